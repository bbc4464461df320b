"""YAML text into nodes that know which file or option they came from.

Plain scalars follow YAML 1.2's core rules, not PyYAML's older ones: `5e-5` is a number, `yes` and `2024-01-01` text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from clipbert_cli.errors import RecipeError

KeyPath = tuple[str | int, ...]
Scalar = str | int | float | bool | None

MAX_NODES = 100_000  # a recipe has some hundred; aliases of aliases can stand for billions

_TAG = "tag:yaml.org,2002:"
_PLAIN = {
    _TAG + "null": re.compile(r"(?:~|null|Null|NULL|)"),
    _TAG + "bool": re.compile(r"(?:true|True|TRUE|false|False|FALSE)"),
    _TAG + "int": re.compile(r"[-+]?(?:0|[1-9][0-9]*)"),
    _TAG + "float": re.compile(
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
    ),
}
_CONSTRUCT: dict[str, Callable[[str], Scalar]] = {
    _TAG + "null": lambda _: None,
    _TAG + "bool": lambda text: text.lower() == "true",
    _TAG + "int": int,
    _TAG + "float": lambda text: float(re.sub(r"\.(?=[iInN])", "", text)),
    _TAG + "str": str,
}


@dataclass(frozen=True)
class Node:
    """A value of a recipe and where it stands.

    Args:
        value: a scalar, a list of nodes, or a dictionary of nodes.
        origin: the file as shown to the person, or the option (`--set`).
        plain: a scalar written without quotes.
    """

    value: Scalar | list[Node] | dict[str, Node]
    origin: str
    plain: bool = False


@dataclass(frozen=True)
class Mistake:
    """One line of a report: which file or option, which key, what is wrong with it.

    `says` starts with the punctuation that follows the key: `": unknown key"`, `" is 0: it must be at least 1"`.
    """

    origin: str
    path: KeyPath
    says: str

    def __str__(self) -> str:
        return f"{self.origin}: {key_name(self.path)}{self.says}" if self.path else self.origin + self.says


def key_name(path: KeyPath) -> str:
    """`("model", "visual", "depths", 2)` as a person writes it: `model.visual.depths[2]`."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).removeprefix(".")


def shown(path: Path) -> str:
    """A file's name in messages: relative where it lies under the current folder."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def plain_tag(text: str) -> str:
    """The YAML tag of an unquoted scalar."""
    return next((tag for tag, pattern in _PLAIN.items() if pattern.fullmatch(text)), _TAG + "str")


def is_null(text: str) -> bool:
    """Whether an unquoted scalar is null: nothing, `~` or `null`."""
    return plain_tag(text.strip()) == _TAG + "null"


def plain_scalar(text: str) -> Scalar:
    """The value of an unquoted scalar: `5e-5` is a float, `null` is None, `abc` is text.

    Raises:
        ValueError: an integer of thousands of digits.
    """
    return _CONSTRUCT[plain_tag(text)](text)


class _Loader(yaml.SafeLoader):
    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        if kind is yaml.ScalarNode and implicit[0]:
            return plain_tag(value)
        return super().resolve(kind, value, implicit)


class _Dumper(yaml.SafeDumper):
    """Quotes what this reader or an older one would not take for text, and writes lists on one line."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        if kind is yaml.ScalarNode and implicit[0] and plain_tag(value) != _TAG + "str":
            return plain_tag(value)
        return super().resolve(kind, value, implicit)

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> Any:
        return super().represent_sequence(tag, sequence, flow_style=True)


def write_yaml(value: dict[str, Any]) -> str:
    """YAML text of plain values that `read_yaml` reads back as they were."""
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000))


def read_text(path: Path) -> str:
    """The text of a recipe file.

    Raises:
        RecipeError: no readable UTF-8 file.
    """
    origin = shown(path)
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise RecipeError(f"{origin}: no such recipe file", hint="clipbert recipes ls lists the shipped ones") from None
    except IsADirectoryError:
        raise RecipeError(f"{origin} is a folder: a recipe is a YAML file") from None
    except OSError as exc:
        raise RecipeError(f"{origin}: cannot be read: {exc.strerror or exc}") from exc
    except UnicodeDecodeError as exc:
        raise RecipeError(f"{origin}: byte {exc.start} is not UTF-8: a recipe is UTF-8 text") from exc


def read_file(path: Path, mistakes: list[Mistake]) -> Node:
    """The YAML mapping of a recipe file.

    Args:
        mistakes: receives duplicate keys, keys that are no text, and tags.

    Raises:
        RecipeError: no readable UTF-8 YAML file with a mapping at its top; syntax errors as file:line:column.
    """
    origin = shown(path)
    node = read_yaml(read_text(path), origin, mistakes)
    if node.value is None:
        raise RecipeError(f"{origin} is empty: a recipe is a mapping of `key: value` lines")
    if not isinstance(node.value, dict):
        kind = "a list" if isinstance(node.value, list) else "a single value"
        raise RecipeError(f"{origin} holds {kind}: a recipe is a mapping of `key: value` lines")
    return node


def read_yaml(text: str, origin: str, mistakes: list[Mistake]) -> Node:
    """The node of one YAML document.

    Raises:
        RecipeError: a syntax error, more than one document, nesting without end.
    """
    try:
        loader = _Loader(text)
        try:
            document = loader.get_single_node()
        finally:
            loader.dispose()
        if document is None:
            return Node(None, origin)
        return _Builder(origin, mistakes).build(document, ())
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        place = f"{origin}:{mark.line + 1}:{mark.column + 1}" if mark else origin
        raise RecipeError(f"{place}: not YAML: {_one_line(exc.problem or exc.context)}") from exc
    except yaml.reader.ReaderError as exc:
        line = text.count("\n", 0, exc.position) + 1
        column = exc.position - text.rfind("\n", 0, exc.position)
        raise RecipeError(f"{origin}:{line}:{column}: not YAML: this character is not allowed") from exc
    except RecursionError:
        raise RecipeError(f"{origin}: nested too deeply") from None


def _one_line(text: str | None) -> str:
    return " ".join((text or "syntax error").split())


class _Builder:
    """Turns PyYAML's node graph into a tree; constructs scalars, lists and dictionaries, nothing else."""

    def __init__(self, origin: str, mistakes: list[Mistake]) -> None:
        self.origin = origin
        self.mistakes = mistakes
        self.count = 0

    def build(self, node: yaml.Node, path: KeyPath, above: tuple[int, ...] = ()) -> Node:
        self.count += 1
        if self.count > MAX_NODES or id(node) in above:
            raise RecipeError(f"{self.origin}: {key_name(path)}: an alias (*name) repeats without end")
        above = (*above, id(node))
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return Node(self._mapping(node, path, above), self.origin)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            items = [self.build(item, (*path, index), above) for index, item in enumerate(node.value)]
            return Node(items, self.origin)
        if isinstance(node, yaml.ScalarNode) and node.tag in _CONSTRUCT:
            try:
                return Node(_CONSTRUCT[node.tag](node.value), self.origin, plain=node.style is None)
            except ValueError:
                self._mistake(path, f": {node.value[:40]} is no {node.tag.removeprefix(_TAG)}")
                return Node(None, self.origin)
        self._mistake(path, f": the tag {node.tag.replace(_TAG, '!!')} is not allowed")
        return Node(None, self.origin)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath, above: tuple[int, ...]) -> dict[str, Node]:
        result: dict[str, Node] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag != _TAG + "str":
                text = key_node.value if isinstance(key_node, yaml.ScalarNode) else "a list or mapping"
                self._mistake(path, f": the key in line {line} is {text}: it must be text, in quotes if need be")
                continue
            key = key_node.value
            if key in result:
                self._mistake((*path, key), f": given twice, in line {lines[key]} and in line {line}")
                continue
            lines[key] = line
            result[key] = self.build(value_node, (*path, key), above)
        return result

    def _mistake(self, path: KeyPath, says: str) -> None:
        self.mistakes.append(Mistake(self.origin, path, says))
