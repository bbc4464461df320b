"""Files of records in the forms that people have: JSON lines, a JSON list, and tables as spreadsheets export them.

    .csv .tsv    a row of headings, then one row per record; cells may be quoted and contain line breaks
    .json        a list of objects, alone or as the only list of an object; JSON lines are read, too
    others       one JSON object per line

Text is UTF-8, or UTF-16 with a byte order mark. A byte order mark is no part of the text.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import logging
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from clipbert_cli.text.fields import Names, Record

SEPARATORS = {".csv": ",;\t|", ".tsv": "\t"}
"""Endings of tables, and what may separate their cells. Excel writes semicolons where commas mark decimals."""

_ROWS_LOOKED_AT = 20

logger = logging.getLogger("clipbert")


def read_records(path: Path, *, names: Names | None = None) -> Iterator[Record | str]:
    """Yield the records of a file in order; the path `-` is standard input in JSON lines.

    What is not a record yields a message that names file, line and mistake. Blank lines are skipped with a warning.

    Args:
        names: see `Record`.
    """
    ending = path.suffix.lower()
    if ending in SEPARATORS:
        yield from _read_table(path, SEPARATORS[ending], names or {})
        return
    with sys.stdin.buffer if path == Path("-") else path.open("rb") as stream:
        if ending == ".json" and (listed := _as_list(path, stream)) is not None:
            yield from _read_list(path, listed, names or {})
        else:
            yield from _read_lines(path, stream, names or {})


# ------------------------------------------------------------------------------------------ JSON


def _read_lines(path: Path, stream: IO[bytes], names: Names) -> Iterator[Record | str]:
    index = 0
    for line, raw in enumerate(_utf8_lines(stream), start=1):
        if not raw.strip():
            logger.warning("%s:%d: blank line, skipped", path, line)
            continue
        place = f"{path}:{line}"
        try:
            fields = json.loads(raw.decode("utf-8"))
        except UnicodeDecodeError as exc:
            yield f"{place}: not UTF-8 text (byte {exc.start} is 0x{raw[exc.start]:02x})"
        except json.JSONDecodeError as exc:
            yield f"{place}: not a whole JSON object ({exc.msg} at column {exc.colno}): {_shorten(raw)}"
        else:
            if isinstance(fields, dict):
                yield Record(place, index, fields, names)
            else:
                yield f"{place}: {_other_than_object(fields)}"
        index += 1


def _utf8_lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines of a file, a byte order mark removed."""
    first = next(iter(stream), b"")
    # PowerShell writes UTF-16 where the output of a command is redirected to a file.
    if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = (first + stream.read()).decode("utf-16", errors="replace")
        yield from io.BytesIO(text.encode("utf-8", errors="surrogatepass"))
        return
    if first:
        yield first.removeprefix(codecs.BOM_UTF8)
    yield from stream


def _as_list(path: Path, stream: IO[bytes]) -> Any:
    """Return the content of a JSON file; None if it is JSON lines, which are read line by line.

    The stream is at its start afterwards.
    """
    try:
        return json.loads(b"".join(_utf8_lines(stream)))
    except ValueError:
        return None
    finally:
        stream.seek(0)


def _read_list(path: Path, content: Any, names: Names) -> Iterator[Record | str]:
    records = content
    if isinstance(content, dict):
        lists = [name for name, value in content.items() if _is_list_of_objects(value)]
        if len(lists) > 1:
            yield f"{path}: a JSON object with the lists {', '.join(lists)}: keep one of them, the list of records"
            return
        # A file of one JSON line is an object as well.
        records = content[lists[0]] if lists else [content]
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


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(entry, dict) for entry in value)


def _other_than_object(value: Any) -> str:
    return f"a JSON {type(value).__name__}, expected an object: {_shorten(json.dumps(value).encode())}"


def _shorten(raw: bytes, limit: int = 60) -> str:
    text = raw.decode("utf-8", errors="replace").strip()
    return text if len(text) <= limit else text[: limit - 3] + "..."


# ------------------------------------------------------------------------------------------ tables


def _read_table(path: Path, separators: str, names: Names) -> Iterator[Record | str]:
    """Yield the records of a table whose first row has headings."""
    line = 1
    try:
        with path.open(encoding=_encoding(path), newline="") as stream:
            line, start, separator = _separator(stream, separators)
            stream.seek(start)
            yield from _rows(path, csv.reader(stream, delimiter=separator, strict=True), line, names)
    except UnicodeError as exc:
        found = f"byte 0x{exc.object[exc.start]:02x}" if isinstance(exc, UnicodeDecodeError) else str(exc)
        yield f"{path}: not UTF-8 text ({found}); save it as UTF-8, in Excel as `CSV UTF-8`"


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
                yield Record(f"{path}:{line}", index, dict(zip(headings, cells, strict=True)), names, typed=False)
            index += 1
    except csv.Error as exc:
        yield f"{path}:{line}: not a whole CSV row ({exc})"


def _without_blank_end(cells: list[str]) -> list[str]:
    # Spreadsheets export columns that once held something, as empty cells at the end of each row.
    while cells and not cells[-1].strip():
        cells = cells[:-1]
    return cells


def _encoding(path: Path) -> str:
    with path.open("rb") as stream:
        start = stream.read(4)
    return "utf-16" if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"


def _separator(stream: IO[str], separators: str) -> tuple[int, int, str]:
    """Return the number of the line with the headings, its position in the stream, and what separates the cells.

    This is the separator with which the first rows have equally many cells, and most. A first line `sep=;`, which Excel
    writes and obeys, states it.
    """
    first = stream.readline()
    if first.startswith("sep=") and len(first.rstrip("\r\n")) == len("sep=;"):
        return 2, stream.tell(), first[len("sep=")]
    looks: list[tuple[bool, int]] = []
    for separator in separators:
        stream.seek(0)
        looks.append(_look(csv.reader(stream, delimiter=separator, strict=True)))
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
