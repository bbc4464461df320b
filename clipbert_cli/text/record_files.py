"""Files of records in the forms that people have: JSON lines, a JSON list, and tables as spreadsheets export them.

    .csv .tsv         a row of headings, then one row per record; cells may be quoted and contain line breaks
    .json             a list of objects, alone or as the only list of an object; an object with the media ids as names,
                      each with an object or a list of captions; JSON lines
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
from clipbert_cli.text.fields import FIELDS, Names, Record
from clipbert_cli.types import composed

SEPARATORS = {".csv": ",;\t|", ".tsv": "\t"}
"""Endings of tables, and what may separate their cells. Excel writes semicolons where commas mark decimals."""

JSON_ENDINGS = {".json", ".jsonl", ".ndjson"}

OTHER_FILES = {
    b"PK\x03\x04": "a workbook or another ZIP archive",
    b"\xd0\xcf\x11\xe0": "an old workbook of Excel",
    b"PAR1": "a Parquet file",
    b"SQLite": "a database",
    b"\x1f\x8b": "compressed with gzip",
    b"\x80": "a pickle",
}
"""First bytes of files that people take for annotations, and what such a file is."""

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

    What is not a record yields a message that names file, line and mistake. Blank lines are skipped with a warning, and
    so are records reported whose texts are in another form than Unicode's NFC.

    Args:
        names: see `Record`.
    """
    count, first = 0, ""
    try:
        for written in _read(path, names or {}):
            record = written if isinstance(written, str) else _composed(written)
            if record is not written and isinstance(record, Record):
                count, first = count + 1, first or record.place
            yield record
    except UnreadableError as exc:  # nothing can be read after this
        yield str(exc)
    if count:
        logger.warning(
            "%s: %s texts in a decomposed Unicode form, first %s: they are read in the composed form, NFC",
            *(path, "1 record has" if count == 1 else f"{count} records have", first),
        )


def _composed(record: Record) -> Record | str:
    """Return a record with its texts in the form NFC, or what is wrong with its names; itself if nothing changes."""
    if len(record.fields) > MAX_FIELDS:
        return f"{record.place}: {len(record.fields)} fields, but a record has at most {MAX_FIELDS}"
    try:
        fields = composed(record.fields)
    except ValueError as exc:
        return f"{record.place}: {exc}"
    return record if fields == record.fields else dataclasses.replace(record, fields=fields)


def _read(path: Path, names: Names) -> Iterator[Record | str]:
    ending = path.suffix.lower()
    start = b"" if path == Path("-") else first_bytes(path, 64)
    if other := next((what for first, what in OTHER_FILES.items() if start.startswith(first)), None):
        yield f"{path}: it is {other}: export it as CSV (UTF-8) or as JSON lines"
        return
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
    blank: list[int] = []
    for line, raw in read_lines(path):
        if not raw.strip():
            blank.append(line)
            continue
        try:
            yield _record(parse_json(raw, str(path), line=line), f"{path}:{line}", names)
        except UnreadableError as exc:
            yield str(exc)
    _warn_of_blank_lines(path, blank)


def _warn_of_blank_lines(path: Path, lines: list[int]) -> None:
    if lines:
        more = f", as are {len(lines) - 1:,} more" if len(lines) > 1 else ""
        logger.warning("%s:%d: blank line, skipped%s", path, lines[0], more)


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
    """Yield the records of the only list of a JSON object, or of an object whose names are media ids."""
    if not isinstance(content, dict):
        yield _record(content, str(path), names)
        return
    lists = [name for name, value in content.items() if _is_list_of(value, dict)]
    if len(lists) > 1:
        yield f"{path}: a JSON object with the lists {', '.join(lists)}: keep one of them, the list of records"
        return
    # A file of one JSON line is an object as well.
    records = content[lists[0]] if lists else _by_media_id(content, names) or [content]
    yield from (_record(fields, f"{path}, record {index}", names) for index, fields in enumerate(records))


def _by_media_id(content: dict[str, Any], names: Names) -> list[dict[str, Any]]:
    """Return the records of an object whose names are media ids; an empty list if it is another one."""
    stated = ((name, names.get(name)) for name in ("media_id", "caption", "example_id"))
    media_id, caption, example_id = (own if isinstance(own, str) else name for name, own in stated)
    if all(isinstance(value, dict) for value in content.values()):
        # Where the records name their media themselves, the names are those of questions.
        known = (media_id, *FIELDS["media_id"])
        return [
            {example_id if any(own in value for own in known) else media_id: name, **value}
            for name, value in content.items()
        ]
    if all(_is_list_of(value, str) for value in content.values()):
        return [{media_id: name, caption: value} for name, value in content.items()]
    return []


def _is_list_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(entry, kind) for entry in value)


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
            widths = [len(_without_blank_end(row)) for row in looks[separator]]
            # One cell above many is no heading. A row that is too long is reported by its line.
            if len(widths) > 2 and widths[0] < min(widths[1:]):
                yield (
                    f"{path}:{line}: {widths[0]} headings, but the rows below have {widths[1]} cells: remove lines "
                    f"above the headings, and quote cells that contain {separator!r}"
                )
                return
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
    blank: list[int] = []
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
                _warn_of_blank_lines(path, blank)
                return
            if not any(cell.strip() for cell in row):
                blank.append(line)
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
