"""What is wrong with a recipe, in sentences: the schema's findings, each with the file or option it came from."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from types import NoneType
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from clipbert_cli.recipe.schema import Recipe
from clipbert_cli.recipe.yaml_nodes import KeyPath, Mistake, Node, key_name

# What a value must be, by the schema's error type; `{…}` is filled from the error's own numbers.
_MUST_BE = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text, in quotes if it looks like something else",
    "string_unicode": "valid text",
    "bool_type": "true or false",
    "list_type": "a list, such as [1, 2]",
    "dict_type": "a section of `key: value` lines",
    "model_type": "a section of `key: value` lines",
    "greater_than": "greater than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "too_short": "a list of at least {min_length} values",
    "too_long": "a list of at most {max_length} values",
}


def sentences(error: ValidationError, root: Node) -> list[Mistake]:
    """One mistake for each finding of the schema."""
    return [Mistake(_origin(root, detail), detail["loc"], _says(detail)) for detail in error.errors()]


def unknown_key(origin: str, path: KeyPath, *, dotted: bool = False) -> Mistake:
    """The mistake of a key that the schema does not have, with the nearest that it has.

    Args:
        dotted: name the nearest key from the recipe's top, as `--set` needs it, not within its section.
    """
    depth = next(depth for depth in range(len(path)) if type_at(path[: depth + 1]) is NoneType)
    section, key = path[:depth], str(path[depth])
    known = _keys(type_at(section))
    near = [key_name((*section, name, *path[depth + 1 :])) for name in difflib.get_close_matches(key, known, n=1)]
    if not near:
        near = _same_key_elsewhere(str(path[-1]))
    elif not dotted:
        near = [near[0].rpartition(".")[2]]
    if near:
        return Mistake(origin, path, f": unknown key; did you mean {_any_of(near)}?")
    place = key_name(section)
    has = f"{place or 'a recipe'} has {', '.join(known)}" if known else f"{place} has no keys of its own"
    return Mistake(origin, path, f": unknown key; {has}")


def _same_key_elsewhere(key: str) -> list[str]:
    names = list(_all_keys(Recipe))
    near = difflib.get_close_matches(key, [name.rpartition(".")[2] for name in names], n=1)
    return [name for name in names if name.rpartition(".")[2] in near][:3]


def type_at(path: KeyPath) -> Any:
    """The schema's type at a key path, without `| None`; NoneType where the schema has no such key."""
    found: Any = Recipe
    for key in path:
        if _is_section(found) and key in found.model_fields:
            found = _without_none(found.model_fields[str(key)].annotation)
        elif get_origin(found) is dict:
            found = _without_none(get_args(found)[1])
        else:
            return NoneType
    return found


def is_nullable(path: KeyPath) -> bool:
    """Whether the schema takes null at an existing key path."""
    parent = type_at(path[:-1])
    return _is_section(parent) and NoneType in get_args(parent.model_fields[str(path[-1])].annotation)


def _says(detail: ErrorDetails) -> str:
    kind, value = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        return unknown_key("", detail["loc"]).says
    if kind == "missing":
        return f": missing{_meaning(detail['loc'])}"
    if kind == "value_error":
        reason = str(detail["ctx"]["error"])
        return f": {reason}" if isinstance(value, dict) else f" is {_as_written(value)}: {reason}"
    if kind == "literal_error":
        choices = [str(choice) for choice in get_args(type_at(detail["loc"]))]
        near = difflib.get_close_matches(str(value), choices, n=1)
        guess = f"; did you mean {near[0]}?" if near else ""
        return f" is {_as_written(value)}: it must be {_any_of(choices)}{guess}"
    if kind in _MUST_BE:
        bounds = {name: _short(bound) for name, bound in detail.get("ctx", {}).items()}
        return f" is {_as_written(value)}: it must be {_MUST_BE[kind].format(**bounds)}"
    return f" is {_as_written(value)}: {detail['msg']}"


def _meaning(path: KeyPath) -> str:
    parent = type_at(path[:-1])
    field = parent.model_fields.get(str(path[-1])) if _is_section(parent) else None
    return f" ({field.description})" if field is not None and field.description else ""


def _as_written(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _short(bound: Any) -> Any:
    return int(bound) if isinstance(bound, float) and bound.is_integer() else bound


def _any_of(choices: list[str]) -> str:
    return choices[0] if len(choices) == 1 else f"{', '.join(choices[:-1])} or {choices[-1]}"


def _origin(root: Node, detail: ErrorDetails) -> str:
    """Where a wrong value came from; for a missing key, its section; for keys that do not go together, all of them."""
    node = root
    for key in detail["loc"]:
        children: Any = node.value
        if isinstance(children, dict) and key in children:
            node = children[str(key)]
        elif isinstance(children, list) and isinstance(key, int):
            node = children[key]
        else:
            break
    if detail["type"] == "value_error" and isinstance(node.value, dict):
        named = re.findall(r"\w+", str(detail["ctx"]["error"]))
        places = {child.origin: None for key, child in node.value.items() if key in named}
        return " and ".join(places) or node.origin
    return node.origin


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _without_none(kind: Any) -> Any:
    inner = [argument for argument in get_args(kind) if argument is not NoneType]
    if NoneType in get_args(kind) and len(inner) == 1:
        kind = inner[0]
    return kind.__origin__ if hasattr(kind, "__metadata__") else kind


def _keys(kind: Any) -> list[str]:
    return list(kind.model_fields) if _is_section(kind) else []


def _all_keys(kind: Any, prefix: str = "") -> Iterator[str]:
    for key in _keys(kind):
        inner = _without_none(kind.model_fields[key].annotation)
        yield prefix + key
        yield from _all_keys(inner, f"{prefix}{key}.")
