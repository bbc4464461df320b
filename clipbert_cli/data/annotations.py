"""Reads annotation files: JSON lines into checked examples, answer vocabularies, examples into groups.

Every bad record of a file is collected and reported together, with file, line, field and value, before anything runs.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from clipbert_cli.batch import Example, Group
from clipbert_cli.errors import AnnotationError

SHOWN = 20  # mistakes of a file that are printed; the rest is counted

logger = logging.getLogger("clipbert")


class RecordError(ValueError):
    """One mistake in one record: what a task's parser raises. The message names field, value and requirement."""


@dataclass(frozen=True, slots=True)
class Record:
    """One JSON object of a file. `line` counts from 1, `index` counts the records from 0 (blank lines have none)."""

    line: int
    index: int
    fields: Mapping[str, Any]

    def text(self, *names: str) -> str:
        """The first field of `names` that is there and not null, as non-empty text. Raises RecordError."""
        name, value = self._value(names)
        if not isinstance(value, str) or not value.strip():
            raise RecordError(f"{name} is {json.dumps(value)}: it must be text")
        return _encodable(name, value)

    def identifier(self, *names: str) -> str:
        """The first field of `names` that is there and not null, text or an integer, as text. Raises RecordError."""
        name, value = self._value(names)
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise RecordError(f"{name} is {json.dumps(value)}: it must be text or an integer")
        return _encodable(name, str(value))

    def has(self, *names: str) -> bool:
        """Whether one of `names` is there and not null."""
        return any(self.fields.get(name) is not None for name in names)

    def _value(self, names: tuple[str, ...]) -> tuple[str, Any]:
        for name in names:
            if self.fields.get(name) is not None:
                return name, self.fields[name]
        raise RecordError(f"{' or '.join(names)} is missing; the record has {', '.join(self.fields) or 'no fields'}")


def _encodable(name: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise RecordError(f"{name} is {json.dumps(value)}: half a character is in it ({exc.reason})") from exc
    return value


def read_records(path: Path) -> Iterator[Record | str]:
    """Yield the records of a JSONL file in order; a line that is none yields its mistake as text.

    Blank lines are skipped with a warning that names the line. The path `-` is standard input.
    """
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
                    yield Record(line, index, fields)
                else:
                    yield f"{path}:{line}: a JSON {type(fields).__name__}, expected an object: {_shorten(raw)}"
            index += 1


def _shorten(raw: bytes, limit: int = 60) -> str:
    text = raw.decode("utf-8", errors="replace").strip()
    return text if len(text) <= limit else text[: limit - 3] + "..."


def read_examples(path: Path, parse: Callable[[Record], Example]) -> list[Example]:
    """Read and check a whole annotation file.

    Args:
        parse: makes an example of a record, or raises RecordError.

    Raises:
        AnnotationError: for all bad lines, bad records and duplicate example ids together, or for an empty file.
    """
    if not path.is_file():
        raise AnnotationError(
            f"{path}: no such annotation file",
            hint="check data.splits and data.root of the recipe, or give --data-root",
        )
    examples: list[Example] = []
    mistakes: list[str] = []
    line_of: dict[str, int] = {}
    for record in read_records(path):
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
        raise AnnotationError(listed(mistakes), hint="mend or remove these lines; nothing was started")
    if not examples:
        raise AnnotationError(f"{path}: no records in it", hint="expected one JSON object a line")
    return examples


def shortened(names: Sequence[str]) -> str:
    """The first names in one line, and how many more there are."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def listed(mistakes: Sequence[str]) -> str:
    """The first mistakes, one a line, and the count of the rest."""
    rest = len(mistakes) - SHOWN
    return "\n".join([*mistakes[:SHOWN], *([f"... and {rest} more"] if rest > 0 else [])])


def read_answers(path: Path) -> dict[str, int]:
    """Read an answer vocabulary: {answer: label} or a list whose positions are the labels.

    Returns:
        answer -> label in 0..len-1, in label order. Several answers never share a label.

    Raises:
        AnnotationError: no such file, not JSON, or labels that are not exactly 0..len-1.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AnnotationError(f"{path}: no such answer vocabulary", hint="check data.answers of the recipe") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as exc:
        raise AnnotationError(f"{path}: not JSON: {exc}") from exc
    if isinstance(content, list):
        if any(not isinstance(answer, str) for answer in content):
            raise AnnotationError(f"{path}: an answer is not text")
        if len(set(content)) != len(content):
            raise AnnotationError(f"{path}: an answer stands twice in the list")
        content = {answer: label for label, answer in enumerate(content)}
    if not isinstance(content, dict) or not content:
        raise AnnotationError(f"{path}: expected an object of answers and labels, or a list of answers")
    if any(type(label) is not int for label in content.values()) or sorted(content.values()) != list(
        range(len(content))
    ):
        raise AnnotationError(f"{path}: the labels must be the integers 0 to {len(content) - 1}, each once")
    answers = cast("dict[str, int]", content)
    return dict(sorted(answers.items(), key=lambda item: item[1]))


def group_by_media(examples: Sequence[Example], *, max_examples: int) -> list[Group]:
    """Cut each media item's examples, in file order, into groups of at most `max_examples`."""
    of_media: dict[str, list[Example]] = {}
    for example in examples:
        of_media.setdefault(example.media_id, []).append(example)
    return [
        Group(media_id, tuple(members[start : start + max_examples]))
        for media_id, members in of_media.items()
        for start in range(0, len(members), max_examples)
    ]
