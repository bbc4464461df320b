"""Recipe text to values that know the file and line, or the option, they came from.

    YAML text ─► read_yaml ─► Entries ─► merge, put ─► fill (${NAME}) ─► nested ─► the schema

Unquoted scalars follow YAML 1.2's core rules, not PyYAML's older ones: `5e-5` is a number, `yes` and `2024-01-01` text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from clipbert_cli import foreign
from clipbert_cli.errors import RecipeError, UnreadableError

KeyPath = tuple[str | int, ...]


class Origin(NamedTuple):
    """A line of a file, or an option such as `--set`, which has no line."""

    place: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.place}:{self.line}" if self.line else self.place


class Entry(NamedTuple):
    """One value of a recipe: a scalar, a plain list, or `SECTION`, whose keys are entries of their own."""

    value: Any
    origin: Origin


SECTION: Final = object()
Entries = dict[KeyPath, Entry]
"""All values by key path; the path of a section comes before those of its keys, () is the whole document."""


class Mistake(NamedTuple):
    """One line of a report. `says` starts with what follows the key: `": unknown key"`, `" is 0: it must be 1"`."""

    origin: str
    path: KeyPath
    says: str

    def __str__(self) -> str:
        return f"{self.origin}: {key_name(self.path)}{self.says}" if self.path else self.origin + self.says


def key_name(path: KeyPath) -> str:
    """Return a key path as a person writes it: `model.visual.depths[2]`."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).removeprefix(".")


def shown(path: Path) -> str:
    """Return a file's name for messages: relative if it is below the current folder."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


# ------------------------------------------------------------------------------------------------------ entries


def merge(base: Entries, over: Entries) -> Entries:
    """Return `base` with `over` on top: sections merge key by key, anything else is replaced."""
    # A scalar over a section, or the reverse, must leave no old key behind. Two sections merge.
    replaced = {
        path for path, entry in over.items() if path in base and not (entry.value is base[path].value is SECTION)
    }
    kept = {
        key: entry for key, entry in base.items() if not any(key[:depth] in replaced for depth in range(len(key) + 1))
    }
    return kept | over


def put(base: Entries, path: KeyPath, over: Entries) -> Entries:
    """Return `base` with a document merged in at `path`. Sections on the way keep their origin."""
    origin = over[()].origin
    on_the_way = [path[:depth] for depth in range(len(path))]
    missing = {
        each: Entry(SECTION, origin) for each in on_the_way if each not in base or base[each].value is not SECTION
    }
    return merge(merge(base, missing), {(*path, *key): entry for key, entry in over.items()})


def nested(entries: Entries) -> Any:
    """Return the values of a document as plain dictionaries, lists and scalars."""
    found: dict[KeyPath, Any] = {}
    # A section comes before its keys, so its dictionary exists when the first of them is put into it.
    for path, entry in entries.items():
        found[path] = {} if entry.value is SECTION else entry.value
        if path:
            found[path[:-1]][path[-1]] = found[path]
    return found[()]


# ------------------------------------------------------------------------------------------------ variables

# The first alternative is the escape.
_REFERENCE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class Variables:
    """Fills `${NAME}` from an environment, and `$${` with a plain `${`.

    Other text stays as it is. `unset` has a mistake for each variable that has no value.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.unset: list[Mistake] = []

    def fill(self, entry: Entry, path: KeyPath, *, is_text: Callable[[KeyPath], bool]) -> Entry:
        """Return the entry with its variables filled; what the schema wants as a number is read as one."""

        def filled(value: Any, path: KeyPath) -> Any:
            if isinstance(value, list):
                return [filled(item, (*path, number)) for number, item in enumerate(value)]
            if not isinstance(value, str) or "${" not in value:
                return value
            text = _REFERENCE.sub(lambda match: self._value(match, value, entry.origin, path), value)
            return text if is_text(path) else plain_scalar(text)

        return Entry(filled(entry.value, path), entry.origin)

    def _value(self, match: re.Match[str], text: str, origin: Origin, path: KeyPath) -> str:
        if match[0] == "$${":
            return "${"
        # An empty variable counts as unset: an empty data root is never meant.
        value = self.environment.get(match[1])
        if not value:
            says = f" is {text}: the environment variable {match[1]} is not set"
            self.unset.append(Mistake(str(origin), path, says))
            return match[0]
        return value


def escaped(value: Any) -> Any:
    """Return plain values with every `${` in them written so that it is not filled."""
    if isinstance(value, dict):
        return {key: escaped(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [escaped(inner) for inner in value]
    return value.replace("${", "$${") if isinstance(value, str) else value


# ----------------------------------------------------------------------------------------------------- YAML

MAX_BYTES = 2**18
"""The limit of a recipe's file. The longest shipped one has 3 kB; reading this much takes some seconds."""

_TAG = "tag:yaml.org,2002:"
# PyYAML follows YAML 1.1: it reads `5e-5` as text, `yes` as true, `1:30` as 90 and `010` as 8. These are 1.2's rules.
_PLAIN = {
    _TAG + "null": re.compile(r"(?:~|null|Null|NULL|)"),
    _TAG + "bool": re.compile(r"(?:true|True|TRUE|false|False|FALSE)"),
    _TAG + "int": re.compile(r"[-+]?(?:0|[1-9][0-9]*)"),
    _TAG + "float": re.compile(
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
    ),
}
_CONSTRUCT: dict[str, Callable[[str], Any]] = {
    _TAG + "null": lambda _: None,
    _TAG + "bool": lambda text: text.lower() == "true",
    _TAG + "int": int,
    _TAG + "float": lambda text: float(re.sub(r"\.(?=[iInN])", "", text)),
    _TAG + "str": str,
}


def plain_tag(text: str) -> str:
    """Return the YAML tag of an unquoted scalar."""
    return next((tag for tag, pattern in _PLAIN.items() if pattern.fullmatch(text)), _TAG + "str")


def plain_scalar(text: str) -> Any:
    """Return the value of an unquoted scalar: `5e-5` is a float, `null` is None, `abc` is text.

    Raises:
        ValueError: an integer of thousands of digits.
    """
    return _CONSTRUCT[plain_tag(text)](text)


class _Loader(yaml.SafeLoader):
    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        if kind is yaml.ScalarNode and implicit[0]:
            return plain_tag(value)
        return super().resolve(kind, value, implicit)

    def compose_node(self, parent: Any, index: Any) -> Any:
        # A few lines of aliases of aliases can stand for billions of values.
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="an alias (*name) is not read: write the value again", problem_mark=mark)
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):
    """Quotes what this reader or an older one would not take for text, and writes lists on one line."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        if kind is yaml.ScalarNode and implicit[0] and plain_tag(value) != _TAG + "str":
            return plain_tag(value)
        return super().resolve(kind, value, implicit)

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> Any:
        return super().represent_sequence(tag, sequence, flow_style=True)


def write_yaml(value: Mapping[str, Any]) -> str:
    """Return YAML text of plain values that `read_yaml` reads back as they were."""

    def text(*, allow_unicode: bool) -> str:
        # The width keeps a long path on one line; PyYAML would fold it at a space.
        return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=allow_unicode, width=10_000))

    # What a terminal could obey is written with YAML's escapes, and then all that is not ASCII.
    readable = text(allow_unicode=True)
    return readable if all(line.isprintable() for line in readable.split("\n")) else text(allow_unicode=False)


_START = "to start from a recipe that works: clipbert recipes copy NAME mine.yaml"


def read_text(path: Path) -> str:
    """Return the text of a recipe file.

    Raises:
        RecipeError: no readable UTF-8 file.
    """
    place = shown(path)
    try:
        return foreign.read_text(Path(place), limit=MAX_BYTES)
    except FileNotFoundError:
        hint = "clipbert recipes ls lists the shipped ones, whose names have no ending"
        raise RecipeError(f"{place}: no such recipe file", hint=hint) from None
    except UnreadableError as exc:
        raise RecipeError(str(exc), hint="a recipe is a file of YAML in UTF-8") from exc


def read_file(path: Path, mistakes: list[Mistake]) -> Entries:
    """Return the entries of a recipe file.

    Args:
        mistakes: receives duplicate keys, keys that are not text, and tags.

    Raises:
        RecipeError: no readable UTF-8 YAML file with a mapping at its top; syntax errors as file:line:column.
    """
    place = shown(path)
    own: list[Mistake] = []
    entries = read_yaml(read_text(path), place, own)
    top = entries[()].value
    if top is not SECTION:
        holds = "is empty" if top is None else f"holds {'a list' if isinstance(top, list) else 'a single value'}"
        # A tag at the top leaves nothing of the file.
        says = str(own[0]) if own else f"{place} {holds}: a recipe is a mapping of `key: value` lines"
        raise RecipeError(says, hint=_START)
    mistakes += own
    return entries


def read_yaml(text: str, place: str, mistakes: list[Mistake], *, lines: bool = True) -> Entries:
    """Return the entries of one YAML document.

    Args:
        place: file or option, for messages.
        lines: whether the line within `text` is part of each origin.

    Raises:
        RecipeError: a syntax error, an alias, more than one document, nesting without end.
    """
    reader = _Reader(place, mistakes, lines=lines)
    try:
        loader = _Loader(text)
        try:
            document = loader.get_single_node()
        finally:
            loader.dispose()
        # An empty file or an empty `--set KEY=` has no node; its value is null.
        if document is None:
            return {(): Entry(None, Origin(place))}
        reader.add(document, ())
        return reader.entries
    except yaml.MarkedYAMLError as exc:
        mark, problem = exc.problem_mark or exc.context_mark, exc.problem or exc.context or "syntax error"
        where = f"{place}:{mark.line + 1}:{mark.column + 1}" if mark else place
        raise RecipeError(f"{where}: not YAML: {' '.join(problem.split())}", hint=_START) from exc
    except yaml.reader.ReaderError as exc:
        before = text[: exc.position]
        where = f"{place}:{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"
        raise RecipeError(f"{where}: not YAML: this character is not allowed", hint=_START) from exc
    except RecursionError:
        raise RecipeError(f"{place}: nested too deeply") from None


class _Reader:
    """Turns PyYAML's nodes into entries; constructs scalars, lists and sections, nothing else."""

    def __init__(self, place: str, mistakes: list[Mistake], *, lines: bool) -> None:
        self.place, self.mistakes, self.lines = place, mistakes, lines
        self.entries: Entries = {}

    def add(self, node: yaml.Node, path: KeyPath) -> None:
        origin = Origin(self.place, node.start_mark.line + 1 if self.lines else 0)
        if not (isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map"):
            self.entries[path] = Entry(self._plain(node, path), origin)
            return
        self.entries[path] = Entry(SECTION, origin)
        first_line: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag != _TAG + "str":
                text = key_node.value if isinstance(key_node, yaml.ScalarNode) else "a list or mapping"
                self._mistake(key_node, path, f": the key is {text}: it must be text, in quotes if need be")
            elif key_node.value in first_line:
                # PyYAML would keep the last one silently.
                says = f": given twice, in line {first_line[key_node.value]} and in line {line}"
                self._mistake(key_node, (*path, key_node.value), says)
            else:
                first_line[key_node.value] = line
                self.add(value_node, (*path, key_node.value))

    def _plain(self, node: yaml.Node, path: KeyPath) -> Any:
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self._plain(item, (*path, number)) for number, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return {str(key.value): self._plain(value, (*path, str(key.value))) for key, value in node.value}
        if isinstance(node, yaml.ScalarNode) and node.tag in _CONSTRUCT:
            try:
                return _CONSTRUCT[node.tag](node.value)
            except ValueError:
                # `!!int x`, or an integer of more digits than Python converts.
                self._mistake(node, path, f": {node.value[:40]} is no {node.tag.removeprefix(_TAG)}")
                return None
        self._mistake(node, path, f": the tag {node.tag.replace(_TAG, '!!')} is not allowed")
        return None

    def _mistake(self, node: yaml.Node, path: KeyPath, says: str) -> None:
        origin = Origin(self.place, node.start_mark.line + 1 if self.lines else 0)
        self.mistakes.append(Mistake(str(origin), path, says))
