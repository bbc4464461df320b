"""Reading annotation files (JSON lines or CSV) and answer vocabularies, and grouping examples by media item.

All bad records of a file are reported together, with file, line, field and value, before anything runs.
"""

from __future__ import annotations

import csv
import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from clipbert_cli.errors import AnnotationError
from clipbert_cli.types import Example, Group

SEPARATORS = {".csv": ",", ".tsv": "\t"}
SHOWN = 20
"""How many mistakes or names a message lists; of the others it gives the number."""

logger = logging.getLogger("clipbert")


class RecordError(ValueError):
    """One mistake in one record, raised by a task's parser. The message names field, value and requirement."""


FIELDS: Mapping[str, tuple[str, ...]] = {
    "example_id": ("example_id", "question_id", "qid", "sen_id"),
    "media_id": ("media_id", "video_id", "clip_name", "gif_name", "image_id", "coco_id", "vg_id"),
    "caption": ("caption", "text"),
    "question": ("question",),
    "options": ("options",),
    "answer": ("answer",),
    "labels": ("labels",),
    "answer_type": ("answer_type",),
}
"""Neutral field name -> the names that public annotations use for it. The first one that a record has is read."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a file, whose fields are read by their neutral names (`FIELDS`).

    Args:
        line: line in the file, from 1.
        index: number of the record in the file, from 0; blank lines do not count.
        fields: the record's own fields.
        names: neutral name -> own field, for the names that the recipe sets (`data.fields`).
        typed: False for a CSV file, in which every value is text.
    """

    line: int
    index: int
    fields: Mapping[str, Any]
    names: Mapping[str, str] = field(default_factory=dict)
    typed: bool = True

    def text(self, name: str) -> str:
        """Return a field that is non-empty text. Raises RecordError."""
        own, value = self._value(name)
        if not isinstance(value, str) or not value.strip():
            raise RecordError(f"{own} is {json.dumps(value)}: it must be text")
        return _encodable(own, value)

    def identifier(self, name: str) -> str:
        """Return a field that is text or an integer, as text. Raises RecordError."""
        own, value = self._value(name)
        # True is an integer in Python, but it is no id.
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise RecordError(f"{own} is {json.dumps(value)}: it must be text or an integer")
        return _encodable(own, str(value))

    def integer(self, name: str, *, below: int) -> int:
        """Return a field that is an integer from 0 to below - 1. Raises RecordError."""
        own, value = self._value(name)
        if not self.typed and isinstance(value, str) and value.strip().isdecimal():
            value = int(value)
        if type(value) is not int or not 0 <= value < below:
            raise RecordError(f"{own} is {json.dumps(value)}: it must be an integer from 0 to {below - 1}")
        return value

    def texts(self, name: str, *, count: int) -> tuple[str, ...]:
        """Return a field that is a list of `count` non-empty texts (in CSV: a JSON list). Raises RecordError."""
        own, value = self._structured(name)
        if not isinstance(value, list) or any(not isinstance(item, str) or not item.strip() for item in value):
            raise RecordError(f"{own} is {json.dumps(value)}: it must be a list of texts")
        if len(value) != count:
            raise RecordError(f"{own} has {len(value)} entries, {json.dumps(value)}: there must be {count}")
        return tuple(_encodable(own, item) for item in value)

    def shares(self, name: str) -> dict[str, float]:
        """Return a field that is an object of numbers from 0 to 1 (in CSV: a JSON object). Raises RecordError."""
        own, value = self._structured(name)
        if not isinstance(value, dict):
            raise RecordError(f'{own} is {json.dumps(value)}: it must be an object such as {{"cat": 1.0}}')
        for key, share in value.items():
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
                raise RecordError(f"{own}[{json.dumps(key)}] is {json.dumps(share)}: it must be a number from 0 to 1")
        return {_encodable(own, key): float(share) for key, share in value.items()}

    def has(self, name: str) -> bool:
        """Return whether the record has the field, and it is not null (in CSV: not empty)."""
        return any(self._is_there(own) for own in self._own(name))

    def _own(self, name: str) -> tuple[str, ...]:
        return (self.names[name],) if name in self.names else FIELDS[name]

    def _is_there(self, own: str) -> bool:
        value = self.fields.get(own)
        return value is not None and (self.typed or value != "")

    def _value(self, name: str) -> tuple[str, Any]:
        own = self._own(name)
        for each in own:
            if self._is_there(each):
                return each, self.fields[each]
        others = f" (or {', '.join(own[1:])})" if own[1:] else ""
        raise RecordError(f"{own[0]}{others} is missing; the record has {', '.join(self.fields) or 'no fields'}")

    def _structured(self, name: str) -> tuple[str, Any]:
        own, value = self._value(name)
        if not self.typed:
            try:
                value = json.loads(value)
            except ValueError:
                raise RecordError(f"{own} is {json.dumps(value)}: in a CSV file it must be JSON") from None
        return own, value


def _encodable(name: str, value: str) -> str:
    # JSON can hold one half of a UTF-16 pair ("\ud83d"). Writing it to a predictions file would fail hours later.
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise RecordError(
            f"{name} is {json.dumps(value)}, which contains an unpaired surrogate ({exc.reason})"
        ) from exc
    return value


def read_records(path: Path, *, names: Mapping[str, str] | None = None) -> Iterator[Record | str]:
    """Yield the records of a JSONL, CSV (.csv) or tab-separated (.tsv) file in order.

    A line that is not a record yields a message that names file, line and mistake. Blank lines are skipped with a
    warning. The path `-` is standard input in JSONL.

    Args:
        names: neutral name -> own field; see `Record`.
    """
    if path.suffix.lower() in SEPARATORS:
        yield from _read_table(path, SEPARATORS[path.suffix.lower()], names or {})
        return
    index = 0
    with sys.stdin.buffer if path == Path("-") else path.open("rb") as stream:
        for line, raw in enumerate(stream, start=1):
            if not raw.strip():
                logger.warning("%s:%d: blank line, skipped", path, line)
                continue
            try:
                fields = json.loads(raw.decode("utf-8"))
            except UnicodeDecodeError as exc:
                yield f"{path}:{line}: not UTF-8 text (byte {exc.start} is 0x{raw[exc.start]:02x})"
            except json.JSONDecodeError as exc:
                yield f"{path}:{line}: not a whole JSON object ({exc.msg} at column {exc.colno}): {_shorten(raw)}"
            else:
                if isinstance(fields, dict):
                    yield Record(line, index, fields, names or {})
                else:
                    yield f"{path}:{line}: a JSON {type(fields).__name__}, expected an object: {_shorten(raw)}"
            index += 1


def _read_table(path: Path, separator: str, names: Mapping[str, str]) -> Iterator[Record | str]:
    """Yield the records of a table whose first row has headings. Cells may be quoted and contain line breaks."""
    try:
        # Excel begins a CSV file with a byte order mark, which would become part of the first heading.
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.reader(stream, delimiter=separator, strict=True)
            headings = next(rows, [])
            index = 0
            for row in rows:
                if not row:
                    logger.warning("%s:%d: blank line, skipped", path, rows.line_num)
                    continue
                if len(row) != len(headings):
                    yield f"{path}:{rows.line_num}: {len(row)} cells, expected {len(headings)}: {', '.join(headings)}"
                else:
                    yield Record(rows.line_num, index, dict(zip(headings, row, strict=True)), names, typed=False)
                index += 1
    except UnicodeDecodeError as exc:
        yield f"{path}: not UTF-8 text (byte 0x{exc.object[exc.start]:02x})"
    except csv.Error as exc:
        yield f"{path}:{rows.line_num}: not a whole CSV row ({exc})"


def _shorten(raw: bytes, limit: int = 60) -> str:
    text = raw.decode("utf-8", errors="replace").strip()
    return text if len(text) <= limit else text[: limit - 3] + "..."


def read_examples(
    path: Path, parse: Callable[[Record], Example], *, names: Mapping[str, str] | None = None
) -> list[Example]:
    """Return the examples of an annotation file, all of them checked.

    Args:
        parse: makes an example from a record, or raises RecordError.
        names: neutral name -> own field; see `Record`.

    Raises:
        AnnotationError: there are bad lines, bad records or duplicate example ids, all named in the message, or the
            file is missing or empty.
    """
    if not path.is_file():
        raise AnnotationError(
            f"{path}: no such annotation file",
            hint="check data.splits and data.root of the recipe, or give --data-root",
        )
    examples: list[Example] = []
    mistakes: list[str] = []
    line_of: dict[str, int] = {}
    for record in read_records(path, names=names):
        if isinstance(record, str):
            mistakes.append(record)
            continue
        try:
            example = parse(record)
        except RecordError as exc:
            mistakes.append(f"{path}:{record.line}: {exc}")
            continue
        if (first := line_of.setdefault(example.example_id, record.line)) != record.line:
            mistakes.append(f"{path}:{record.line}: example id {example.example_id!r} is also that of line {first}")
        examples.append(example)
    if mistakes:
        raise AnnotationError(listed(mistakes), hint="fix or remove these lines; nothing was started")
    if not examples:
        raise AnnotationError(
            f"{path}: no records in it", hint="write one JSON object per line, or a CSV file with a row of headings"
        )
    return examples


def shortened(names: Sequence[str]) -> str:
    """Return the first names in one line, and how many more there are."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def listed(mistakes: Sequence[str]) -> str:
    """Return the first mistakes, one per line, and how many more there are."""
    rest = len(mistakes) - SHOWN
    return "\n".join([*mistakes[:SHOWN], *([f"... and {rest} more"] if rest > 0 else [])])


def read_answers(path: Path) -> dict[str, int]:
    """Read an answer vocabulary, a JSON object {answer: label} or a list whose positions are the labels.

    Returns:
        answer -> label, in the order of the labels, which are 0 to the number of answers - 1, each once.

    Raises:
        AnnotationError: the file is missing or not JSON, the labels are others, or an answer is not encodable.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AnnotationError(f"{path}: no such answer vocabulary", hint="check data.answers of the recipe") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as exc:
        raise AnnotationError(f"{path}: not JSON: {exc}") from exc
    if isinstance(content, list):
        if any(not isinstance(answer, str) for answer in content):
            raise AnnotationError(f"{path}: an answer in the list is not text")
        if len(set(content)) != len(content):
            raise AnnotationError(f"{path}: an answer is in the list twice")
        content = {answer: label for label, answer in enumerate(content)}
    if not isinstance(content, dict) or not content:
        raise AnnotationError(f"{path}: expected an object of answers and labels, or a list of answers")
    if any(type(label) is not int for label in content.values()) or sorted(content.values()) != list(
        range(len(content))
    ):
        raise AnnotationError(f"{path}: the labels must be the integers 0 to {len(content) - 1}, each once")
    answers = cast("dict[str, int]", content)
    for answer in answers:
        try:
            _encodable("an answer", answer)
        except RecordError as exc:
            raise AnnotationError(f"{path}: {exc}") from exc
    return dict(sorted(answers.items(), key=lambda item: item[1]))


def group_by_media(examples: Sequence[Example], *, max_examples: int) -> list[Group]:
    """Return groups of at most `max_examples` examples of one media item, in the order of the file."""
    of_media: dict[str, list[Example]] = {}
    for example in examples:
        of_media.setdefault(example.media_id, []).append(example)
    return [
        Group(media_id, tuple(members[start : start + max_examples]))
        for media_id, members in of_media.items()
        for start in range(0, len(members), max_examples)
    ]
