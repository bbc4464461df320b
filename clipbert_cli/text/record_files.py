"""Files of records in the forms that people have: JSON lines, a JSON list, and tables as spreadsheets export them.

    .csv .tsv         a row of headings, then one row per record; cells may be quoted and contain line breaks
    .json             a list of objects, alone or as the only list of an object; JSON lines
    .jsonl .ndjson    one JSON object per line
    others            JSON lines if the file begins with { or [, else a table

Text is UTF-8, or UTF-16 with a byte order mark. A byte order mark is no part of the text. All texts become Unicode's
composed form NFC, so that an `é` of one keyboard and of another are the same letter.
"""

from __future__ import annotations

import codecs
import csv
import dataclasses
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import IO, Any

from clipbert_cli.errors import UnreadableError
from clipbert_cli.foreign import (
    excerpt,
    first_bytes,
    lines_of,
    open_text,
    parse_json,
    read_json,
    read_json_list,
    read_lines,
)
from clipbert_cli.text.fields import Names, Record
from clipbert_cli.types import composed

SEPARATORS = {".csv": ",;\t|", ".tsv": "\t"}
"""Endings of tables, and what may separate their cells. Excel writes semicolons where commas mark decimals."""

JSON_ENDINGS = {".json", ".jsonl", ".ndjson"}

MAX_OBJECT_BYTES, MAX_OBJECT_PARTS = 64 * 2**20, 4_000_000
"""The limits of a JSON object with records, which is read whole. JSON lines and lists have none."""

MAX_FIELDS = 10_000
"""The limit of fields in a record, because each of them is looked at several times."""

MAX_TABLE_LINE = 2**20
"""The limit of characters in a line of a table: each cell takes 50 times the memory of its separator."""

_ROWS_LOOKED_AT = 20

logger = logging.getLogger("clipbert")


def read_records(path: Path, *, names: Names | None = None) -> Iterator[Record | str]:
    """Yield the records of a file in order; the path `-` is standard input in JSON lines.

    What is not a record yields a message that names file, line and mistake. Blank lines are skipped.

    Args:
        names: see `Record`.
    """
    try:
        for record in _read(path, names or {}):
            yield record if isinstance(record, str) else _composed(record)
    except UnreadableError as exc:  # nothing can be read after this
        yield str(exc)


def _composed(record: Record) -> Record | str:
    """Return a record with its texts in the form NFC, or what is wrong with its names."""
    if len(record.fields) > MAX_FIELDS:
        return f"{record.place}: {len(record.fields)} fields, but a record has at most {MAX_FIELDS}"
    try:
        fields = composed(record.fields)
    except ValueError as exc:
        return f"{record.place}: {exc}"
    return dataclasses.replace(record, fields=fields)


def _read(path: Path, names: Names) -> Iterator[Record | str]:
    ending = path.suffix.lower()
    start = b"" if path == Path("-") else first_bytes(path, 64)
    is_text = ending not in JSON_ENDINGS and start and not _begins_with(start, "{[")
    if ending in SEPARATORS or is_text:
        yield from _read_table(path, SEPARATORS.get(ending, SEPARATORS[".csv"]), names)
    elif _begins_with(start, "["):
        yield from _read_list(path, names)
    elif ending == ".json" and (content := _as_object(path)) is not None:
        yield from _read_object(path, content, names)
    else:
        yield from _read_lines(path, names)


def _begins_with(start: bytes, letters: str) -> bool:
    is_utf16 = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = start.decode("utf-16" if is_utf16 else "utf-8-sig", errors="ignore").strip()
    return text[:1] != "" and text[0] in letters


# ------------------------------------------------------------------------------------------ JSON


def _read_lines(path: Path, names: Names) -> Iterator[Record | str]:
    for line, raw in read_lines(path):
        if raw.strip():
            try:
                yield _record(parse_json(raw, str(path), line=line), f"{path}:{line}", names)
            except UnreadableError as exc:
                yield str(exc)


def _record(fields: Any, place: str, names: Names) -> Record | str:
    if isinstance(fields, dict):
        return Record(place, fields, names)
    return f"{place}: a JSON {type(fields).__name__}, expected an object: {excerpt(json.dumps(fields))}"


def _read_list(path: Path, names: Names) -> Iterator[Record | str]:
    """Yield the records of a JSON list, which may be larger than the memory."""
    for index, fields in enumerate(read_json_list(path)):
        yield _record(fields, f"{path}, record {index}", names)


def _as_object(path: Path) -> Any:
    """Return the content of a JSON file; None if it is JSON lines, which are read line by line.

    Raises:
        UnreadableError: as `read_json`.
    """
    try:
        return read_json(path, limit=MAX_OBJECT_BYTES, max_parts=MAX_OBJECT_PARTS)
    except UnreadableError:
        # An object over many lines is not whole where its first line ends.
        _, first = next(read_lines(path), (1, b""))
        if first.strip() and not first.rstrip().endswith(b"}"):
            raise
        return None


def _read_object(path: Path, content: Any, names: Names) -> Iterator[Record | str]:
    """Yield the records of the only list of a JSON object."""
    if not isinstance(content, dict):
        yield _record(content, str(path), names)
        return
    lists = [
        name
        for name, value in content.items()
        if isinstance(value, list) and value and all(isinstance(entry, dict) for entry in value)
    ]
    if len(lists) > 1:
        yield f"{path}: a JSON object with the lists {', '.join(lists)}: keep one of them, the list of records"
        return
    # A file of one JSON line is an object as well.
    records = content[lists[0]] if lists else [content]
    yield from (_record(fields, f"{path}, record {index}", names) for index, fields in enumerate(records))


# ------------------------------------------------------------------------------------------ tables


def _read_table(path: Path, separators: str, names: Names) -> Iterator[Record | str]:
    """Yield the records of a table whose first row has headings."""
    line = 1
    try:
        with open_text(path) as stream:
            first = next(lines_of(stream, path, limit=MAX_TABLE_LINE), "")
            start = 0
            # Excel writes and obeys a first line that states the separator.
            if first.startswith("sep=") and len(first.rstrip("\r\n")) == len("sep=;"):
                line, start, separators = 2, stream.tell(), first[len("sep=")]
            looks = {}
            for separator in separators:
                stream.seek(start)
                looks[separator] = _first_rows(_reader(stream, path, separator))
            # That separator with which the first rows have equally many cells, and most.
            separator = max(looks, key=lambda each: _evenness(looks[each]))
            stream.seek(start)
            yield from _rows(path, _reader(stream, path, separator), line, names)
    except csv.Error as exc:
        yield f"{path}:{line}: not a table ({exc})"
    except UnreadableError as exc:
        if "UTF-8" not in str(exc):
            raise
        yield f"{exc}; save it as UTF-8, in Excel as `CSV UTF-8`"


def _reader(stream: IO[str], path: Path, separator: str) -> Any:
    """Return a reader of the `csv` module for the rest of an open table."""
    return csv.reader(lines_of(stream, path, limit=MAX_TABLE_LINE), delimiter=separator, strict=True)


def _rows(path: Path, rows: Any, line: int, names: Names) -> Iterator[Record | str]:
    """Yield the records of a table.

    Args:
        rows: a reader of the `csv` module.
        line: number of the line at which it begins, from 1.
    """
    lines_before = line - 1
    try:
        headings = _without_blank_end([heading.strip() for heading in next(rows, [])])
        if twice := [heading for heading, count in Counter(filter(None, map(composed, headings))).items() if count > 1]:
            yield f"{path}:{line}: the heading {twice[0]!r} is there twice; rename one of these columns"
            return
        while True:
            # A row with line breaks in its cells ends lines later.
            line = lines_before + rows.line_num + 1
            row = next(rows, None)
            if row is None:
                return
            if not any(cell.strip() for cell in row):
                continue
            cells = (
                row if len(row) <= len(headings) else row[: len(headings)] + _without_blank_end(row[len(headings) :])
            )
            if len(cells) != len(headings):
                yield f"{path}:{line}: {len(cells)} cells, expected {len(headings)}: {', '.join(headings)}"
            else:
                # Nobody sees blanks around a cell in a spreadsheet.
                fields = dict(zip(headings, map(str.strip, cells), strict=True))
                yield Record(f"{path}:{line}", fields, names, typed=False)
    except csv.Error as exc:
        yield f"{path}:{line}: not a whole CSV row ({exc})"


def _without_blank_end(cells: list[str]) -> list[str]:
    # Spreadsheets export columns that once held something, as empty cells at the end of each row.
    while cells and not cells[-1].strip():
        cells = cells[:-1]
    return cells


def _evenness(rows: Sequence[list[str]]) -> tuple[bool, int]:
    """Return whether rows have equally many cells, more than one, and how many the first one has."""
    widths = [len(row) for row in rows] or [0]
    return widths[0] > 1 and len(set(widths)) == 1, widths[0]


def _first_rows(rows: Iterable[list[str]]) -> list[list[str]]:
    """Return the first rows that are not blank, up to a mistake."""
    found: list[list[str]] = []
    # The mistake is reported when the records are read.
    with suppress(csv.Error):
        found += (row for row in islice(rows, _ROWS_LOOKED_AT) if any(cell.strip() for cell in row))
    return found
