"""The mistakes of a recipe in sentences: the schema's findings, each with the line or option it came from."""

from __future__ import annotations

import json
import re
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from clipbert_cli.printable import did_you_mean, similar
from clipbert_cli.recipe.settings import all_settings, annotation_at, any_of, bare, expected, keys_of, nearest
from clipbert_cli.recipe.values import SECTION, Entries, KeyPath, Mistake, key_name

MAX_GUESSES = 100
"""How many mistakes may have a guess of what was meant. Looking for one takes milliseconds, and few are listed."""


def sentences(error: ValidationError, entries: Entries) -> list[Mistake]:
    """Return one mistake per finding of the schema."""
    return [
        Mistake(_origin(entries, detail), detail["loc"], _says(detail, guess=number < MAX_GUESSES))
        for number, detail in enumerate(error.errors())
    ]


def unknown_key(origin: str, path: KeyPath, *, guess: bool) -> Mistake:
    """Return the mistake of a key that the schema does not have, and with `guess` what was meant."""
    if not guess:
        return Mistake(origin, path, ": unknown key")
    depth = next(depth for depth in range(len(path)) if annotation_at(path[: depth + 1]) is None)
    section, known = path[:depth], keys_of(path[:depth])
    meant = [key_name((*section, near, *path[depth + 1 :])) for near in similar(str(path[depth]), known)]
    meant = meant or [key for key in nearest(str(path[-1])) if "." in key]
    if meant:
        return Mistake(origin, path, f": unknown key; did you mean {any_of(meant)}?")
    place = key_name(section)
    has = f"{place or 'a recipe'} has {', '.join(known)}" if known else f"{place} has no keys of its own"
    return Mistake(origin, path, f": unknown key; {has}")


def _says(detail: ErrorDetails, *, guess: bool) -> str:
    kind, value, path = detail["type"], as_written(detail["input"]), detail["loc"]
    if kind == "extra_forbidden":
        return unknown_key("", path, guess=guess).says
    if kind == "missing":
        # The only section with names of a person's choice is data.splits.
        key = key_name(("data", "splits", "NAME", *path[3:]) if path[:2] == ("data", "splits") else path)
        return f": missing. {all_settings()[key].meaning}"
    if kind == "value_error":
        reason = str(detail["ctx"]["error"])
        return f": {reason}" if isinstance(detail["input"], dict) else f" is {value}: {reason}"
    if kind == "finite_number":
        return f" is {value}: it must be a finite number"
    annotation = annotation_at(path)
    meant = ""
    if kind == "literal_error" and guess:
        meant = did_you_mean(str(detail["input"])[:60], map(str, get_args(bare(annotation))))
    if kind == "string_type" and isinstance(detail["input"], int | float):
        meant = "; quotes make text of it"
    if kind == "string_type" and isinstance(detail["input"], list | dict) and key_name(path) in all_settings():
        meant = f". {all_settings()[key_name(path)].meaning}"
    return f" is {value}: it must be {expected(annotation)}{meant}"


def as_written(value: Any) -> str:
    """Return a value for a message, long ones cut."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _origin(entries: Entries, detail: ErrorDetails) -> str:
    """Return where a wrong value came from; of a missing key its section, of keys that do not agree each of them."""
    path = detail["loc"]
    # A missing key and an item of a list have no entry; the section or the list that should hold them has.
    while path not in entries:
        path = path[:-1]
    if detail["type"] == "value_error" and entries[path].value is SECTION:
        # The validators of the schema name the keys that do not agree, relative to their section.
        named = [(*path, *name.split(".")) for name in re.findall(r"[\w.]+", str(detail["ctx"]["error"]))]
        origins = [str(entries[key].origin) for key in named if key in entries and entries[key].value is not SECTION]
        if origins:
            return " and ".join(dict.fromkeys(origins))
    return str(entries[path].origin)
