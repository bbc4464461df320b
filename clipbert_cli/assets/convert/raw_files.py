"""Find and read original annotation files; refuse what is not as documented, with the file and the record."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import pickle
import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from clipbert_cli.errors import AnnotationError, UnreadableError
from clipbert_cli.foreign import check_pickle, parse_json, read_bytes, read_json_list, read_text, read_text_lines

MAX_BYTES = 2**31
"""The limit of an original file that is read whole; the largest, of VQA v2, has 390 MB."""

MAX_PICKLE = 2**28
"""The limit of a pickle; the captions of MSVD have 6 MB."""

# Python documents UnpicklingError, and that damaged pickles raise others.
_PICKLE_ERRORS = (
    *(EOFError, LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError, MemoryError),
)


class Record(NamedTuple):
    """One record of an original file. `where` names file and record in messages."""

    where: str
    fields: Mapping[str, Any]

    def error(self, message: str) -> AnnotationError:
        """Return the error that this record is not as documented."""
        return AnnotationError(f"{self.where}: {message}")

    def field(self, *names: str, kind: type | tuple[type, ...] = str) -> Any:
        """Return the first field of `names` that the record has.

        Raises:
            AnnotationError: the record is no object, has none of the fields, or has a value of another type.
        """
        if not isinstance(self.fields, Mapping):
            raise self.error(f"an object with {_either(names)} was expected, not {reprlib.repr(self.fields)}")
        name = next((name for name in names if name in self.fields), None)
        if name is None:
            raise self.error(f"no field {_either(names)}: it has {', '.join(self.fields) or 'none'}")
        value = self.fields[name]
        # In Python, but not in JSON, `true` is an int.
        if not isinstance(value, kind) or isinstance(value, bool):
            wanted = _either([each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,))])
            raise self.error(f"{name} is {reprlib.repr(value)}: {wanted} was expected")
        return value

    def records(self, name: str) -> list[Record]:
        """Return the records in the list `name` of this one."""
        return [Record(self.where, each) for each in self.field(name, kind=list)]

    def line(self, *names: str) -> str:
        """Return a text field as one line."""
        return one_line(self.field(*names))

    def integer(self, *names: str, allowed: range | None = None) -> int:
        """Return a whole number in the range `allowed`, which may be written as text."""
        return integer(self.field(*names, kind=(int, str)), self.where, names[0], allowed=allowed)

    def media(self, *names: str) -> str:
        """Return a field that is a media id."""
        return media_name(self.field(*names), self.where)


def _either(names: Sequence[str]) -> str:
    return " or ".join(names)


def integer(text: str | int, where: str, name: str, *, allowed: range | None = None) -> int:
    """Return a whole number in the range `allowed`."""
    try:
        value = int(text)
    except ValueError:
        raise AnnotationError(f"{where}: {name} is {reprlib.repr(text)}: a whole number was expected") from None
    if allowed is not None and value not in allowed:
        raise AnnotationError(f"{where}: {name} is {value}: {allowed[0]} to {allowed[-1]} was expected")
    return value


def media_name(name: str, where: str) -> str:
    """Return a media id, which may not be blank."""
    if not name.strip():
        raise AnnotationError(f"{where}: the name of its media is {name!r}: text was expected")
    return name


def find(raw: Path, *names: str) -> Path:
    """Return the file under `raw` that has one of `names`; an earlier name wins.

    Raises:
        AnnotationError: there is none, or there are several of the same name.
    """
    found = find_optional(raw, *names)
    if found is None:
        raise AnnotationError(
            f"{raw}: no file {_either(names)} in this folder or below it",
            hint="put the original file there, unpacked; clipbert assets ls names the sources",
        )
    return found


def find_optional(raw: Path, *names: str) -> Path | None:
    """Return what `find` returns, or None if there is no such file."""
    for name in names:
        # Archives of copies put the files into folders of various names, so that the name alone must identify them.
        found = sorted(path for path in raw.rglob(name) if path.is_file())
        if len(found) > 1:
            raise AnnotationError(
                f"{raw}: {name} is there {len(found)} times: {', '.join(map(str, found[:3]))}", hint="keep one of them"
            )
        if found:
            return found[0]
    return None


def read_json(path: Path) -> Any:
    """Return the content of a JSON file."""
    try:
        return parse_json(read_text(path, limit=MAX_BYTES), str(path), line=1, max_parts=MAX_BYTES)
    except UnreadableError as exc:
        raise _not_json(exc) from exc


def read_list(path: Path, key: str) -> Iterator[Record]:
    """Yield the records under `key` of a JSON object, such as {"images": [...]}."""
    for index, record in enumerate(Record(str(path), read_json(path)).field(key, kind=list)):
        yield Record(f"{path}, {key.removesuffix('s')} {index}", record)


def read_records(path: Path) -> Iterator[Record]:
    """Yield the records of a JSON list or of a JSONL file without reading the whole.

    As Python objects, Visual Genome's region descriptions would take several GB.
    """
    try:
        if path.suffix == ".jsonl":
            for number, line in enumerate(read_text_lines(path), start=1):
                if line.strip():
                    yield Record(f"{path}, line {number}", parse_json(line, str(path), line=number))
        else:
            for index, record in enumerate(read_json_list(path)):
                yield Record(f"{path}, record {index}", record)
    except UnreadableError as exc:
        raise _not_json(exc) from exc


def read_pickle(path: Path) -> Any:
    """Return what a pickle of texts, numbers, lists and objects holds. One that names any class is refused.

    Raises:
        AnnotationError: it is damaged, or holds something else.
    """
    try:
        file = io.BytesIO(read_bytes(path, limit=MAX_PICKLE))
        check_pickle(file)
        return _PlainUnpickler(file, encoding="utf-8").load()
    except (UnreadableError, pickle.UnpicklingError, *_PICKLE_ERRORS) as exc:
        raise AnnotationError(
            f"{path}: no pickle of texts, numbers and lists: {exc}", hint="get the file again, or leave it out"
        ) from exc


class _PlainUnpickler(pickle.Unpickler):
    """Reads builtin values only: a pickle runs code through the classes and functions that it names."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def read_table(path: Path, *, separator: str) -> Iterator[Record]:
    """Yield the rows of a table.

    In tables that are separated by tabs, quotes are characters like any other: TGIF-QA has unpaired ones.

    Raises:
        AnnotationError: no header, or a row of another length.
    """
    lines, tabs = read_text_lines(path), separator == "\t"
    rows = csv.reader(lines, delimiter=separator, quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL)
    try:
        header = next(rows, [])
        if not header:
            raise AnnotationError(f"{path}: empty: a table with a header was expected", hint="get the file again")
        for row in filter(None, rows):
            where = f"{path}, line {rows.line_num}"
            if len(row) != len(header):
                raise AnnotationError(f"{where}: {len(row)} columns where the header has {len(header)}")
            yield Record(where, dict(zip(header, row, strict=True)))
    except (csv.Error, UnreadableError) as exc:
        raise AnnotationError(f"{path}: no table of text: {exc}", hint="get the file again") from exc


def stem(name: str) -> str:
    """Return the media id of a file name: the name without its folder and its ending."""
    return os.path.splitext(os.path.basename(name))[0]


def one_line(text: str) -> str:
    """Return a text without line breaks and without blanks around it; everything else stays."""
    return re.sub(r"[ \t]*[\r\n]+[ \t]*", " ", text.strip())


def share(key: str, parts: int) -> int:
    """Return a number in 0..parts-1 that depends on nothing but `key`: a split that never changes."""
    return int.from_bytes(hashlib.sha256(f"clipbert:{key}".encode()).digest()[:8], "big") % parts


def _not_json(exc: UnreadableError) -> AnnotationError:
    return AnnotationError(str(exc), hint="get the file again: it is damaged or another file")
