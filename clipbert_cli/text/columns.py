"""The fields of an annotation file: those that a task reads, those that nothing reads, those that are nowhere."""

from __future__ import annotations

from collections.abc import Sequence

from clipbert_cli.text.fields import FIELDS, Names, Record

_MOST_SHAPES = 1000
"""Records of JSON lines may all have other fields; so many combinations tell enough."""


class Columns:
    """The fields that the records of a file have, added record by record.

    Args:
        names: the recipe's names of fields; see `Record`.
    """

    def __init__(self, names: Names) -> None:
        self.names = names
        self.all: dict[str, None] = {}
        self._filled: set[str] = set()
        self._shapes: dict[frozenset[str], None] = {}

    def add(self, record: Record) -> None:
        """Note the fields of one record; those with a value count as there."""
        self.all |= dict.fromkeys(record.fields)
        there = frozenset(name for name, value in record.fields.items() if value is not None and value != "")
        self._filled |= there
        if len(self._shapes) < _MOST_SHAPES:
            self._shapes[there] = None

    def has(self, name: str) -> bool:
        """Return whether any record has a value in this field of a task."""
        return any(record.has(name) for record in self._examples())

    def unread(self, fields: Sequence[str]) -> list[str]:
        """Return the file's fields that a task with these fields never reads, in the file's order.

        Fields that no record has a value in are left out: nothing is lost with them.
        """
        read = {own for record in self._examples() for name in fields for own in record.sources(name)}
        # Null in `data.fields` says that a field is meant to be left alone.
        left = {each for name, own in self.names.items() if own is None for each in FIELDS[name]}
        return [own for own in self.all if own in self._filled - read - left]

    def _examples(self) -> list[Record]:
        """Return one record per combination of fields, whose values mean nothing."""
        return [Record("", 0, dict.fromkeys(shape, "-"), self.names) for shape in self._shapes]


def unmatched(names: Names, *files: Columns) -> dict[str, str]:
    """Return the entries of `data.fields` that match no field of any of the files: neutral name -> what it names."""
    there = {own for columns in files for own in columns.all}
    found = {}
    for name, own in names.items():
        wanted = [own] if isinstance(own, str) else list(own or ())
        if absent := [each for each in wanted if each not in there]:
            found[name] = f"data.fields.{name} is {', '.join(absent)}"
    return found
