"""Files of records in the forms that people have: JSON lines, a JSON list, and tables as spreadsheets export them.

    .csv .tsv         a row of headings, then one row per record; cells may be quoted and contain line breaks
    .json             a list of objects, alone or as the only list of an object; an object with the media ids as names,
                      each with an object or a list of captions; JSON lines
    .jsonl .ndjson    one JSON object per line
    others            JSON lines if the file begins with { or [, else a table

Text is UTF-8, or UTF-16 with a byte order mark. A byte order mark is no part of the text.
"""

from __future__ import annotations

import codecs
import csv
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from clipbert_cli.errors import UnreadableError
from clipbert_cli.foreign import excerpt, lines_of, open_text, parse_json, read_json, read_lines
from clipbert_cli.text.fields import FIELDS, Names, Record

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

MAX_LIST_BYTES = 64 * 2**20
"""The limit of a JSON list, which is read whole. JSON lines have none."""

_ROWS_LOOKED_AT = 20

logger = logging.getLogger("clipbert")


def read_records(path: Path, *, names: Names | None = None) -> Iterator[Record | str]:
    """Yield the records of a file in order; the path `-` is standard input in JSON lines.

    What is not a record yields a message that names file, line and mistake. Blank lines are skipped with a warning.

    Args:
        names: see `Record`.
    """
    ending = path.suffix.lower()
    # Only a regular file can be looked into before it is read.
    start = _start(path) if path.is_file() else b""
    if other := next((what for first, what in OTHER_FILES.items() if start.startswith(first)), None):
        yield f"{path}: it is {other}: export it as CSV (UTF-8) or as JSON lines"
        return
    if ending in SEPARATORS or (ending not in JSON_ENDINGS and _begins_table(start)):
        yield from _read_table(path, SEPARATORS.get(ending, SEPARATORS[".csv"]), names or {})
        return
    if ending == ".json" and (listed := _as_list(path)) is not None:
        yield from _read_list(path, listed, names or {})
    else:
        yield from _read_lines(path, names or {})


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(64)


def _begins_table(start: bytes) -> bool:
    is_utf16 = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = start.decode("utf-16" if is_utf16 else "utf-8-sig", errors="ignore").strip()
    return bool(text) and text[0] not in "{["


# ------------------------------------------------------------------------------------------ JSON


def _read_lines(path: Path, names: Names) -> Iterator[Record | str]:
    lines, index = read_lines(path), 0
    try:
        for line, raw in lines:
            if not raw.strip():
                logger.warning("%s:%d: blank line, skipped", path, line)
                continue
            yield _record(path, line, raw, index, names)
            index += 1
    except UnreadableError as exc:  # no line can be read after this one
        yield str(exc)


def _record(path: Path, line: int, raw: bytes, index: int, names: Names) -> Record | str:
    try:
        fields = parse_json(raw, str(path), line=line)
    except UnreadableError as exc:
        return str(exc)
    place = f"{path}:{line}"
    if isinstance(fields, dict):
        return Record(place, index, fields, names)
    return f"{place}: {_other_than_object(fields)}"


def _as_list(path: Path) -> Any:
    """Return the content of a JSON file; None if it is JSON lines, which are read line by line."""
    try:
        return read_json(path, limit=MAX_LIST_BYTES)
    except UnreadableError:
        return None


def _read_list(path: Path, content: Any, names: Names) -> Iterator[Record | str]:
    records = content
    if isinstance(content, dict):
        lists = [name for name, value in content.items() if _is_list_of(value, dict)]
        if len(lists) > 1:
            yield f"{path}: a JSON object with the lists {', '.join(lists)}: keep one of them, the list of records"
            return
        # A file of one JSON line is an object as well.
        records = content[lists[0]] if lists else _by_media_id(content, names) or [content]
    if not isinstance(records, list):
        yield f"{path}: {_other_than_object(records)}"
        return
    for index, fields in enumerate(records):
        place = f"{path}, record {index}"
        yield (
            Record(place, index, fields, names)
            if isinstance(fields, dict)
            else f"{place}: {_other_than_object(fields)}"
        )


def _by_media_id(content: dict[str, Any], names: Names) -> list[dict[str, Any]]:
    """Return the records of an object whose names are media ids; an empty list if it is another one."""
    media_id, caption, example_id = (_file_name(name, names) for name in ("media_id", "caption", "example_id"))
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


def _file_name(name: str, names: Names) -> str:
    """Return the name of a field in the file."""
    own = names.get(name)
    return own if isinstance(own, str) else name


def _is_list_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(entry, kind) for entry in value)


def _other_than_object(value: Any) -> str:
    return f"a JSON {type(value).__name__}, expected an object: {excerpt(json.dumps(value))}"


# ------------------------------------------------------------------------------------------ tables


def _read_table(path: Path, separators: str, names: Names) -> Iterator[Record | str]:
    """Yield the records of a table whose first row has headings."""
    line = 1
    try:
        with open_text(path) as stream:
            line, start, separator = _separator(path, stream, separators)
            stream.seek(start)
            widths = _widths(csv.reader(lines_of(stream, path), delimiter=separator))
            # One cell above many is no heading. A row that is too long is reported by its line.
            if len(widths) > 2 and widths[0] < min(widths[1:]):
                yield (
                    f"{path}:{line}: {widths[0]} headings, but the rows below have {widths[1]} cells: remove lines "
                    f"above the headings, and quote cells that contain {separator!r}"
                )
                return
            stream.seek(start)
            rows = csv.reader(lines_of(stream, path), delimiter=separator, strict=True)
            yield from _rows(path, rows, line, names)
    except UnreadableError as exc:
        yield f"{exc}; save it as UTF-8, in Excel as `CSV UTF-8`" if "UTF-8" in str(exc) else str(exc)


def _rows(path: Path, rows: Any, line: int, names: Names) -> Iterator[Record | str]:
    """Yield the records of a table.

    Args:
        rows: a reader of the `csv` module.
        line: number of the line at which it begins, from 1.
    """
    lines_before, index = line - 1, 0
    try:
        headings = _without_blank_end([heading.strip() for heading in next(rows, [])])
        if twice := [heading for heading, count in Counter(filter(None, headings)).items() if count > 1]:
            yield f"{path}:{line}: the heading {twice[0]!r} is there twice; rename one of these columns"
            return
        while True:
            # A row with line breaks in its cells ends lines later.
            line = lines_before + rows.line_num + 1
            row = next(rows, None)
            if row is None:
                return
            if not any(cell.strip() for cell in row):
                logger.warning("%s:%d: blank line, skipped", path, line)
                continue
            cells = (
                row if len(row) <= len(headings) else row[: len(headings)] + _without_blank_end(row[len(headings) :])
            )
            if len(cells) != len(headings):
                yield f"{path}:{line}: {len(cells)} cells, expected {len(headings)}: {', '.join(headings)}"
            else:
                # Nobody sees blanks around a cell in a spreadsheet.
                fields = dict(zip(headings, map(str.strip, cells), strict=True))
                yield Record(f"{path}:{line}", index, fields, names, typed=False)
            index += 1
    except csv.Error as exc:
        yield f"{path}:{line}: not a whole CSV row ({exc})"


def _without_blank_end(cells: list[str]) -> list[str]:
    # Spreadsheets export columns that once held something, as empty cells at the end of each row.
    while cells and not cells[-1].strip():
        cells = cells[:-1]
    return cells


def _separator(path: Path, stream: IO[str], separators: str) -> tuple[int, int, str]:
    """Return the number of the line with the headings, its position in the stream, and what separates the cells.

    This is the separator with which the first rows have equally many cells, and most. A first line `sep=;`, which Excel
    writes and obeys, states it.
    """
    first = next(lines_of(stream, path), "")
    if first.startswith("sep=") and len(first.rstrip("\r\n")) == len("sep=;"):
        return 2, stream.tell(), first[len("sep=")]
    looks: list[tuple[bool, int]] = []
    for separator in separators:
        stream.seek(0)
        looks.append(_look(csv.reader(lines_of(stream, path), delimiter=separator, strict=True)))
    return 1, 0, separators[looks.index(max(looks))]


def _look(rows: Iterable[list[str]]) -> tuple[bool, int]:
    """Return whether the first rows have equally many cells, more than one, and how many headings there are."""
    widths: list[int] = []
    try:
        widths += (len(row) for row in islice(rows, _ROWS_LOOKED_AT) if row)
    except csv.Error:
        return False, widths[0] if widths else 0
    width = widths[0] if widths else 0
    return width > 1 and set(widths) == {width}, width


def _widths(rows: Iterable[list[str]]) -> list[int]:
    """Return how many cells each of the first rows has, up to the last one that is not blank."""
    filled = (len(_without_blank_end(row)) for row in islice(rows, _ROWS_LOOKED_AT))
    return [width for width in filled if width]
