"""What converters share: finding and reading raw files, refusing what is not as documented, writing whole outputs.

A converter is `convert(raw, output)`: it reads the original files anywhere under the folder `raw`, by name, and writes
its outputs through `Output`, which puts them in place together at the end. The same input gives the same bytes.

What a converter writes, the reader of its task takes: records that lack words are left out and counted, and what is
not as documented is an error that names file and record.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from clipbert_cli.errors import AnnotationError
from clipbert_cli.files import scratch_folder

MISSING = object()
BETWEEN = re.compile(r"[,\s]*")
HALF = re.compile(r"\\u[dD][89a-fA-F]")  # how JSON spells half a character; two halves that belong together are whole


def find(raw: Path, *names: str) -> Path:
    """The one file under `raw` that has one of `names`; an earlier name wins.

    Raises:
        AnnotationError: none, or several of the same name.
    """
    found = find_optional(raw, *names)
    if found is None:
        raise AnnotationError(
            f"{raw}: no file {' or '.join(names)} in this folder or below it",
            hint="put the original file there, unpacked; clipbert assets ls names the sources",
        )
    return found


def find_optional(raw: Path, *names: str) -> Path | None:
    """As `find`, None where there is none."""
    for name in names:
        found = sorted(path for path in raw.rglob(name) if path.is_file())
        if len(found) > 1:
            raise AnnotationError(
                f"{raw}: {name} is there {len(found)} times: {', '.join(map(str, found[:3]))}", hint="keep one of them"
            )
        if found:
            return found[0]
    return None


def read_json(path: Path) -> Any:
    """A whole JSON file."""
    try:
        return _parsed(path.read_text(encoding="utf-8"))
    except ValueError as exc:
        raise _not_json(path, exc) from exc


def read_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records of a JSON list or of JSON lines, each with the words that say where it stands."""
    if path.suffix == ".jsonl":
        with open(path, encoding="utf-8") as file:
            try:
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        yield _record(_parsed(line), f"{path}, line {number}")
            except ValueError as exc:
                raise _not_json(path, exc) from exc
        return
    records = read_json(path)
    if not isinstance(records, list):
        raise AnnotationError(f"{path}: a list of records was expected, not {type(records).__name__}")
    for index, record in enumerate(records):
        yield _record(record, f"{path}, record {index}")


def stream_records(path: Path, *, block: int = 1 << 20) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records of a JSON list one by one, for lists that do not fit in memory."""
    decoder = json.JSONDecoder()
    with open(path, encoding="utf-8") as file:
        text = file.read(block).lstrip()
        if not text.startswith("["):
            raise AnnotationError(f"{path}: a list of records was expected, it starts with {text[:20]!r}")
        at, index = 1, 0
        while True:
            at = BETWEEN.match(text, at).end()  # type: ignore[union-attr]  # it matches the empty text too
            if text.startswith("]", at):
                return
            try:
                record, end = decoder.raw_decode(text, at)
            except ValueError as exc:
                more = file.read(max(block, len(text) - at))
                if not more:
                    raise _not_json(path, exc) from exc
                text, at = text[at:] + more, 0
                continue
            yield _record(whole(record) if HALF.search(text, at, end) else record, f"{path}, record {index}")
            at, index = end, index + 1


def read_vocabulary(path: Path) -> dict[str, int]:
    """A published answer vocabulary, in label order.

    Raises:
        AnnotationError: it is none that training can use.
    """
    labels = read_json(path)
    if (
        not isinstance(labels, dict)
        or not labels
        or any(type(label) is not int for label in labels.values())
        or sorted(labels.values()) != list(range(len(labels)))
    ):
        raise AnnotationError(
            f"{path}: an object of answers and the labels 0, 1, 2, ... was expected",
            hint="get the file again, or do without it: the answers are then counted",
        )
    return dict(sorted(labels.items(), key=lambda item: item[1]))


def read_table(path: Path, *, separator: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a table with a header, each with its line number; quotes mean nothing where tabs separate.

    Raises:
        AnnotationError: no header, or a row of another length.
    """
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, delimiter=separator, quoting=csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL)
        try:
            header = next(rows, [])
            if not header:
                raise AnnotationError(f"{path}: empty: a table with a header was expected", hint="get the file again")
            for row in filter(None, rows):
                where = f"{path}, line {rows.line_num}"
                if len(row) != len(header):
                    raise AnnotationError(f"{where}: {len(row)} columns where the header has {len(header)}")
                yield where, dict(zip(header, row, strict=True))
        except (csv.Error, UnicodeDecodeError) as exc:
            raise AnnotationError(f"{path}: no table of text: {exc}", hint="get the file again") from exc


def field(record: Mapping[str, Any], where: str, *names: str, kind: type | tuple[type, ...] = str) -> Any:
    """The record's field of one of these names, of this type.

    Raises:
        AnnotationError: absent, or of another type.
    """
    if not isinstance(record, Mapping):
        raise AnnotationError(f"{where}: an object with {' or '.join(names)} was expected, not {record!r}")
    for name in names:
        value = record.get(name, MISSING)
        if value is not MISSING:
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                wanted = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
                raise AnnotationError(f"{where}: {name} is {value!r}: {wanted} was expected")
            return value
    raise AnnotationError(f"{where}: no field {' or '.join(names)}: it has {', '.join(record) or 'none'}")


def media_name(name: str, where: str) -> str:
    """A media id that can be one.

    Raises:
        AnnotationError: it is blank.
    """
    if not name.strip():
        raise AnnotationError(f"{where}: the name of its media is {name!r}: text was expected")
    return name


def integer(text: str | int, where: str, name: str, *, allowed: range | None = None) -> int:
    """A whole number, in a range."""
    try:
        value = int(text)
    except ValueError:
        raise AnnotationError(f"{where}: {name} is {text!r}: a whole number was expected") from None
    if allowed is not None and value not in allowed:
        raise AnnotationError(f"{where}: {name} is {value}: {allowed[0]} to {allowed[-1]} was expected")
    return value


def one_line(text: str) -> str:
    """Text without stray line breaks and outer blanks; nothing else is touched."""
    return re.sub(r"[ \t]*[\r\n]+[ \t]*", " ", text.strip())


def whole(value: Any) -> Any:
    """A JSON value without half characters, which JSON can spell and UTF-8 cannot: each becomes a question mark."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, list):
        return [whole(item) for item in value]
    if isinstance(value, dict):
        return {whole(key): whole(item) for key, item in value.items()}
    return value


def stem(name: str) -> str:
    """The media id of a file name."""
    return os.path.splitext(os.path.basename(name))[0]


def share(key: str, parts: int) -> int:
    """A fixed number in 0..parts-1 for a key: a split that depends on nothing but the key."""
    return int.from_bytes(hashlib.sha256(f"clipbert:{key}".encode()).digest()[:8], "big") % parts


def answer_vocabulary(answers: Iterable[str], size: int | None = None) -> dict[str, int]:
    """answer -> label, the most frequent first; of equally frequent ones the first seen. Empty ones are no answers."""
    return {answer: label for label, (answer, _) in enumerate(Counter(filter(str.strip, answers)).most_common(size))}


class Output:
    """The outputs of one conversion: written aside, put in place together, or not at all.

    `counts` maps each file to (records, distinct media ids or None); `warnings` are for the person.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.counts: dict[str, tuple[int, int | None]] = {}
        self.media: dict[str, set[str]] = {}
        self.warnings: list[str] = []

    def __enter__(self) -> Output:
        self._stack = ExitStack()
        self._aside = self._stack.enter_context(scratch_folder(self.folder / "conversion"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if kind is None:
                for name in self.counts:
                    os.replace(self._aside / name, self.folder / name)

    def records(
        self,
        name: str,
        records: Iterable[Mapping[str, Any]],
        *,
        media: str,
        words: tuple[str, ...],
        unique: str | None = None,
    ) -> None:
        """Write JSON lines, all but those that no reader takes.

        Args:
            media: the field of the media id.
            words: fields, of one text or a list of texts; a record without words in each of them is left out.
            unique: the field of the record's id; of several with the same one the first is kept.
        """
        seen: set[str] = set()
        ids: set[Any] = set()
        count = empty = repeated = 0
        with open(self._aside / name, "w", encoding="utf-8", newline="\n") as file:
            for record in records:
                if not all(_has_words(record[field]) for field in words):
                    empty += 1
                    continue
                if unique is not None and record[unique] in ids:
                    repeated += 1
                    continue
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
                seen.add(record[media])
                if unique is not None:
                    ids.add(record[unique])
                count += 1
        if empty:
            lacks = " or ".join("a blank option" if field == "options" else f"no {field}" for field in words)
            self.warn(f"{name}: {empty:,} records have {lacks}: left out")
        if repeated:
            self.warn(f"{name}: {repeated:,} records have the {unique} of an earlier one: left out")
        self.counts[name] = (count, len(seen))
        self.media[name] = seen

    def vocabulary(self, name: str, labels: Mapping[str, int]) -> None:
        """Write an answer vocabulary."""
        with open(self._aside / name, "w", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(labels, ensure_ascii=False) + "\n")
        self.counts[name] = (len(labels), None)

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def _record(value: Any, where: str) -> tuple[str, dict[str, Any]]:
    if not isinstance(value, dict):
        raise AnnotationError(f"{where}: an object was expected, not {value!r}")
    return where, value


def _has_words(value: str | list[str]) -> bool:
    return all(text.strip() for text in ([value] if isinstance(value, str) else value))


def _parsed(text: str) -> Any:
    value = json.loads(text)
    return whole(value) if HALF.search(text) else value


def _not_json(path: Path, exc: ValueError) -> AnnotationError:
    return AnnotationError(f"{path}: not JSON: {exc}", hint="get the file again: it is damaged or another file")
