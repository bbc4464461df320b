"""One record of an annotation file: its fields by the names that tasks use, checked; and the fields of a whole file."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clipbert_cli.errors import UnreadableError
from clipbert_cli.foreign import parse_json
from clipbert_cli.printable import did_you_mean, nearest
from clipbert_cli.types import Segment

Names = Mapping[str, str | Sequence[str] | None]
"""Neutral field name -> the file's own name, the names of several columns that make a list, or None for a field that is
not read (`data.fields`)."""

FIELDS: Mapping[str, tuple[str, ...]] = {
    "example_id": ("example_id", "question_id", "qid", "sen_id"),
    "media_id": ("media_id", "video_id", "clip_name", "gif_name", "image_id", "coco_id", "vg_id"),
    "caption": ("caption", "captions", "text", "sentence"),
    "question": ("question",),
    "options": ("options",),
    "answer": ("answer",),
    "answers": ("answers",),
    "labels": ("labels",),
    "answer_type": ("answer_type",),
    "start": ("start",),
    "end": ("end",),
}
"""Neutral field name -> the names that public annotations use for it. The first one that a record has is read."""

NUMBERED: Mapping[str, re.Pattern[str]] = {
    "options": re.compile(r"(?:a|opt|option|choice)[ _]?(\d+)", re.I),
    "answers": re.compile(r"answer[ _]?(\d+)", re.I),
}
"""Neutral name of a list -> the names of columns that hold one entry each, numbered from 0 or from 1."""

PEOPLE = 10
"""The number of people who answer a question of VQA; soft labels are defined for that many."""


_CLOCK = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?)")
"""Seconds, minutes and seconds, or hours, minutes and seconds."""


class RecordError(ValueError):
    """One mistake in one record, raised by a task's parser. The message names field, value and requirement."""


class MissingFieldError(RecordError):
    """A record lacks fields under every name that they may have.

    Args:
        lacking: the neutral name of each field -> the names that were looked for.
        there: the names of the fields that the record has.
    """

    def __init__(self, lacking: Mapping[str, Sequence[str]], there: Iterable[str]) -> None:
        self.lacking, self.there = lacking, tuple(there)
        names = [own[0] + (f" (or {', '.join(own[1:])})" if own[1:] else "") for own in lacking.values()]
        are = "is missing" if len(names) == 1 else "are missing"
        super().__init__(f"{' and '.join(names)} {are}; the record has {', '.join(self.there) or 'no fields'}")

    @property
    def hint(self) -> str:
        """What to do if no record of a file has the fields."""
        near = {name: nearest(own, self.there) or "NAME" for name, own in self.lacking.items()}
        settings = " ".join(f"--set {shlex.quote(f'data.fields.{name}={own}')}" for name, own in near.items())
        return f"correct a misspelt name in the file, or name what it has: {settings}, or data.fields in the recipe"


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a file, whose fields are read by their neutral names (`FIELDS`).

    Args:
        place: the file and the line or number of the record, for messages.
        fields: the record's own fields.
        names: neutral name -> own field or columns, for the names that the recipe sets (`data.fields`).
        typed: False for a table, in which every value is text.
        part: number of the text, from 0, if the file's record has a list of texts and this is one of them.
    """

    place: str
    fields: Mapping[str, Any]
    names: Names = field(default_factory=dict)
    typed: bool = True
    part: int | None = None

    def text(self, name: str) -> str:
        """Return a field that is non-empty text. Raises RecordError, as all methods do that return a value."""
        own, value = self._value(name)
        if not isinstance(value, str) or not value.strip():
            raise RecordError(f"{own} is {json.dumps(value)}: it must be text")
        return encodable(own, value)

    def identifier(self, name: str) -> str:
        """Return a field that is text or an integer, as text."""
        own, value = self._value(name)
        # True is an integer in Python, but it is no id.
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise RecordError(f"{own} is {json.dumps(value)}: it must be text or an integer")
        return encodable(own, str(value))

    def item(self) -> str:
        """Return the media id; with the fields `start` and `end` that of a segment."""
        media_id = self.identifier("media_id")
        start, end = (self.seconds(name) if self.has(name) else None for name in ("start", "end"))
        if start is None and end is None:
            return media_id
        if end is not None and end <= (start or 0):
            raise RecordError(f"end is {end:g}: it must be more than start, {start or 0:g}")
        return Segment(start or 0.0, end).of(media_id)

    def seconds(self, name: str) -> float:
        """Return a field that is a time in seconds, or text such as "1:02.5"."""
        own, value = self._value(name)
        seconds = value
        # Where commas mark decimals, a spreadsheet exports 2,5.
        if isinstance(value, str) and (clock := _CLOCK.fullmatch(value.strip().replace(",", "."))):
            seconds = 3600 * int(clock[1] or 0) + 60 * int(clock[2] or 0) + float(clock[3])
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
            raise RecordError(f'{own} is {json.dumps(value)}: it must be seconds, such as 62.5, or a time, "1:02.5"')
        return float(seconds)

    def integer(self, name: str, *, below: int) -> int:
        """Return a field that is an integer from 0 to below - 1."""
        own, value = self._value(name)
        # A column with empty cells is one of floating point numbers for pandas, which writes 2 as 2.0.
        if not self.typed and isinstance(value, str) and re.fullmatch(r"[0-9]+(\.0)?", value.strip()):
            value = int(value.strip().removesuffix(".0"))
        if type(value) is not int or not 0 <= value < below:
            raise RecordError(f"{own} is {json.dumps(value)}: it must be an integer from 0 to {below - 1}")
        return value

    def texts(self, name: str, *, count: int | None = None, at_least: int = 1) -> tuple[str, ...]:
        """Return a field that is a list of non-empty texts (in a table: a JSON list, or numbered columns).

        Args:
            count: how many there must be, if that is known.
        """
        own, value = self._structured(name)
        if not isinstance(value, list) or any(not isinstance(item, str) or not item.strip() for item in value):
            raise RecordError(f"{own} is {json.dumps(value)}: it must be a list of texts")
        if len(value) < at_least or (count and len(value) != count):
            expected = count or f"at least {at_least}"
            raise RecordError(f"{own} has {len(value)} entries, {json.dumps(value)}: there must be {expected}")
        return tuple(encodable(own, item) for item in value)

    def choice(self, name: str, options: Sequence[str]) -> int:
        """Return the position of an option from a field that holds the position, from 0, or the option's text."""
        own, value = self._value(name)
        places = [place for place, option in enumerate(options) if isinstance(value, str) and option == value]
        if not places:
            return self.integer(name, below=len(options))
        # Options may be numbers. In a table "2" is the option "2" as well as the option at position 2.
        is_position = not self.typed and value.strip().isdecimal() and int(value) < len(options)
        if len(places) > 1 or (is_position and int(value) != places[0]):
            what = f"the options at {' and '.join(map(str, places))}" + (" and a position" if is_position else "")
            raise RecordError(f"{own} is {json.dumps(value)}, which can mean {what}: write the position in JSON lines")
        return places[0]

    def shares(self, name: str) -> dict[str, float]:
        """Return a field that is an object of numbers from 0 to 1 (in a table: a JSON object)."""
        own, value = self._structured(name)
        if not isinstance(value, dict):
            raise RecordError(f'{own} is {json.dumps(value)}: it must be an object such as {{"cat": 1.0}}')
        for key, share in value.items():
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
                raise RecordError(f"{own}[{json.dumps(key)}] is {json.dumps(share)}: it must be a number from 0 to 1")
        return {encodable(own, key): float(share) for key, share in value.items()}

    def votes(self, name: str) -> dict[str, float]:
        """Return the soft labels of a field that lists what several people answered; see `soft_labels`.

        An entry is text, or an object with the text under `answer`, as VQA publishes them. In a table the field is a
        JSON list, or numbered columns.
        """
        own, value = self._structured(name)
        answers: list[Any] = [item.get("answer") if isinstance(item, dict) else item for item in value or ()]
        if not isinstance(value, list) or not answers or any(not isinstance(answer, str) for answer in answers):
            raise RecordError(f'{own} is {json.dumps(value)}: it must be a list of answers, such as ["cat", "dog"]')
        return soft_labels(encodable(own, answer) for answer in answers)

    def require(self, *alternatives: Sequence[str]) -> None:
        """Raise MissingFieldError for all groups of fields of which the record has none, not even an empty one."""
        lacking: dict[str, tuple[str, ...]] = {}
        for names in alternatives:
            own = {each: name for name in names for each in self._own(name)}
            if own and not any(each in self.fields for each in own):
                lacking[next(iter(own.values()))] = tuple(own)
        if lacking:
            raise MissingFieldError(lacking, self.fields)

    def has(self, name: str) -> bool:
        """Return whether the record has the field, and it is not null (in a table: not empty)."""
        return any(self._is_there(own) for own in self._own(name))

    def sources(self, name: str) -> tuple[str, ...]:
        """Return the names under which the record has a field: several where columns make a list."""
        if columns := self._columns(name):
            return tuple(own for own in columns if self._is_there(own))
        return next(((own,) for own in self._own(name) if self._is_there(own)), ())

    def holds_list(self, name: str) -> bool:
        """Return whether the field is a list, or several columns."""
        return self.has(name) and isinstance(self._structured(name, optional=True)[1], list)

    def without(self, names: Iterable[str]) -> Record:
        """Return the record without these fields."""
        return dataclasses.replace(self, names={**self.names, **dict.fromkeys(names)})

    def each(self, name: str | None) -> Iterator[Record]:
        """Yield this record once for every text of a field that holds a list; the record itself if it does not."""
        if name is None or not self.holds_list(name):
            yield self
            return
        columns, (own, texts) = self._columns(name), self._structured(name)
        if not texts:
            raise RecordError(f"{own} is []: it must be text or a list of texts")
        for part, text in enumerate(texts):
            if not isinstance(text, str):
                raise RecordError(f"{own} is {json.dumps(texts)}: entry {part} must be text")
            place = columns[part] if columns else own
            fields = {**self.fields, place: text}
            yield dataclasses.replace(self, fields=fields, names={**self.names, name: place}, part=part)

    def _own(self, name: str) -> tuple[str, ...]:
        """Return the file's names of a field: alternatives of which the first that is there counts."""
        if name in self.names:
            own = self.names[name]
            return (own,) if isinstance(own, str) else tuple(own or ())
        return FIELDS[name] + self._numbered(name)

    def _numbered(self, name: str) -> tuple[str, ...]:
        pattern = NUMBERED.get(name)
        if pattern is None or any(self._is_there(own) for own in FIELDS[name]):
            return ()
        found = {int(match[1]): own for own in self.fields if (match := pattern.fullmatch(own))}
        first = min(found, default=0)
        whole = first <= 1 and len(found) > 1 and sorted(found) == list(range(first, first + len(found)))
        return tuple(found[number] for number in sorted(found)) if whole else ()

    def _is_there(self, own: str) -> bool:
        value = self.fields.get(own)
        return value is not None and (self.typed or value != "")

    def _columns(self, name: str) -> tuple[str, ...]:
        """Return the columns that make a list of the field; none if the field is in one column."""
        if name not in self.names:
            return self._numbered(name)
        own = self.names[name]
        return () if own is None or isinstance(own, str) else tuple(own)

    def _value(self, name: str) -> tuple[str, Any]:
        own = self._own(name)
        for each in own:
            if self._is_there(each):
                return each, self.fields[each]
        if not own:
            raise RecordError(f"{name} is missing: data.fields.{name} is null, so that it is not read")
        if here := [each for each in own if each in self.fields]:
            raise RecordError(f"{here[0]} is {'null' if self.typed else 'empty'}: it must have a value")
        raise MissingFieldError({name: own}, self.fields)

    def _structured(self, name: str, *, optional: bool = False) -> tuple[str, Any]:
        """Return the name and value of a field that is no plain text: of several columns the list of their cells.

        Args:
            optional: in a table the cell may also be plain text.
        """
        if columns := self._columns(name):
            there = [self._is_there(column) for column in columns]
            count = sum(there)
            # Rows with fewer entries leave the last columns empty. A gap would move the positions of the others.
            if not all(there[:count]):
                raise RecordError(f"{columns[there.index(False)]} is empty, but a later one of its kind is not")
            return f"{columns[0]} to {columns[-1]}", [self.fields[column] for column in columns[:count]]
        own, value = self._value(name)
        if not self.typed and isinstance(value, str) and (not optional or value.lstrip().startswith("[")):
            try:
                value = parse_json(value, own, line=None)
            except UnreadableError as exc:
                if not optional:
                    raise RecordError(f"{exc}; in a table it must be JSON") from None
        return own, value


def unknown_names(names: Names) -> list[str]:
    """Return a sentence for each entry of `data.fields` that is no field of any task."""
    found = []
    for name, own in names.items():
        if name not in FIELDS:
            guess = did_you_mean(name, FIELDS)
            found.append(f"data.fields.{name} is {own!r}, but our names are {', '.join(FIELDS)}{guess}")
    return found


def soft_labels(answers: Iterator[str]) -> dict[str, float]:
    """Return answer -> what it is worth, in the order in which answers first appear.

    One of ten people makes an answer worth 0.3, two 0.6, three 0.9, and more 1 (VQA: Antol et al., ICCV 2015). Other
    numbers of people count as if there were ten.
    """
    counts = Counter(answers)
    total = counts.total()
    return {answer: min(1.0, round(0.3 * PEOPLE * count / total, 6)) for answer, count in counts.items()}


def encodable(name: str, value: str) -> str:
    """Return a text that can be written as UTF-8; raise RecordError for others.

    JSON can hold one half of a UTF-16 pair ("\\ud83d"). Writing it to a predictions file would fail hours later.
    """
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise RecordError(
            f"{name} is {json.dumps(value)}, which contains an unpaired surrogate ({exc.reason})"
        ) from exc
    return value


class Columns:
    """The fields that the records of a file have, added record by record.

    Args:
        names: the recipe's names of fields; see `Record`.
    """

    def __init__(self, names: Names) -> None:
        self.names = names
        self.all: dict[str, None] = {}
        self._filled: set[str] = set()

    def add(self, record: Record) -> None:
        """Note the fields of one record; those with a value count as there."""
        self.all |= dict.fromkeys(record.fields)
        self._filled |= {name for name, value in record.fields.items() if value is not None and value != ""}

    def has(self, name: str) -> bool:
        """Return whether any record has a value in this field of a task."""
        return self._example().has(name)

    def unread(self, fields: Sequence[str]) -> list[str]:
        """Return the file's fields that a task with these fields never reads, in the file's order.

        Fields that no record has a value in are left out: nothing is lost with them.
        """
        read = {own for name in fields for own in self._example().sources(name)}
        # Null in `data.fields` says that a field is meant to be left alone.
        left = {each for name, own in self.names.items() if own is None for each in FIELDS[name]}
        return [own for own in self.all if own in self._filled - read - left]

    def _example(self) -> Record:
        """Return a record with all fields that any record has a value in; its own values mean nothing."""
        return Record("", dict.fromkeys(self._filled, "-"), self.names)


def unmatched(names: Names, *files: Columns) -> dict[str, str]:
    """Return the entries of `data.fields` that match no field of any of the files: neutral name -> what it names."""
    there = {own for columns in files for own in columns.all}
    found = {}
    for name, own in names.items():
        wanted = [own] if isinstance(own, str) else list(own or ())
        if absent := [each for each in wanted if each not in there]:
            found[name] = f"data.fields.{name} is {', '.join(absent)}"
    return found
