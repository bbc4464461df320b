"""Files and text that may come from strangers, read within bounds: the only place of the package that parses JSON.

    read_bytes, read_text, read_json    a whole file: a regular one, of a limited size
    read_json_list                      a JSON list of any size, each of its entries of a limited size
    map_array                           a file of numbers, which stays on the disk
    check_pickle                        a pickle, before a reader of it makes room for what it states
    no_file                             what is there instead of a regular file, for messages
    read_lines                          a file of any size, each of its lines of a limited size
    open_file                           a file that its caller reads within bounds
    parse_json                          JSON text: nesting and integers are limited
    parse_fraction                      a number such as 30000/1001

Whatever a file holds, each function returns its content or raises one `UnreadableError` that names file and line. Only
a file that is missing is a `FileNotFoundError`, because most callers have more to say about it. Links are followed.
"""

from __future__ import annotations

import codecs
import io
import json
import math
import os
import pickle
import pickletools
import re
import select
import stat
import sys
import time
import tokenize
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TextIO, cast

from clipbert_cli.errors import UnreadableError

if TYPE_CHECKING:
    from io import BufferedReader

    import numpy as np

MAX_BYTES = 32 * 2**20
"""The default limit of a file that is read whole, and of a line: a line has the scores of a million texts."""

BLOCK = 2**20
"""The number of characters of a JSON list that are read at a time."""

MAX_DEPTH = 64
"""The limit of nested lists and objects. None of our formats needs more than ten."""

MAX_PARTS = 2_000_000
"""The default limit of lists, objects and names of fields in one JSON text: `{}` takes three bytes there and 88 in
Python's memory, and a million names of one object take two seconds."""

PIPE_SECONDS = 60
"""The time in which the whole content of a pipe must come."""

_PIPES = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")
"""Names of what a shell passes: standard input and process substitution, `<(command)`."""

MAX_ENTRY = 2**23
"""The limit of characters in one entry of a list that is read in parts."""

_BETWEEN_ENTRIES = re.compile(r"[,\s]*")
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


# ------------------------------------------------------------------------------------------ files


def read_bytes(path: Path, *, limit: int = MAX_BYTES) -> bytes:
    """Return the content of a file.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableError: it is no regular file and no pipe of a shell, has more than `limit` bytes, or cannot be read.
    """
    with _opened(path) as file:
        content = file.read(limit + 1) if _is_regular(file) else _read_pipe(file, path, limit + 1)
    if len(content) > limit:
        raise UnreadableError(f"{path} has more than {limit} bytes, the limit for this kind of file")
    return content


def read_text(path: Path, *, limit: int = MAX_BYTES) -> str:
    """Return the content of a UTF-8 file, or of one in UTF-16 with a byte order mark, which is no part of the text.

    Raises:
        FileNotFoundError, UnreadableError: as `read_bytes`; or it is not UTF-8.
    """
    return _decoded(read_bytes(path, limit=limit), str(path), 1)


def read_json(path: Path, *, limit: int = MAX_BYTES, max_parts: int = MAX_PARTS, allow_nan: bool = False) -> Any:
    """Return the value of a JSON file.

    Args:
        limit: as in `read_bytes`.
        max_parts, allow_nan: as in `parse_json`.

    Raises:
        FileNotFoundError, UnreadableError: as `read_text`; or as `parse_json`.
    """
    return parse_json(read_text(path, limit=limit), str(path), max_parts=max_parts, allow_nan=allow_nan)


def read_json_list(path: Path) -> Iterator[Any]:
    """Yield each entry of a JSON list without reading the whole list.

    Raises:
        FileNotFoundError, UnreadableError: as `open_text`; it is not a JSON list, or an entry has more than `MAX_ENTRY`
            characters.
    """
    with open_text(path) as file:
        text = file.read(BLOCK).lstrip()
        if not text.startswith("["):
            raise UnreadableError(f"{path}: a JSON list is expected, but it begins with {excerpt(text, 20)!r}")
        at, index = 1, 0
        while True:
            at = _BETWEEN_ENTRIES.match(text, at).end()  # type: ignore[union-attr]  # it matches the empty text, too
            if text.startswith("]", at):
                if rest := (text[at + 1 :] + file.read(BLOCK)).strip():
                    raise UnreadableError(f"{path}: not JSON (there is more after the list): {excerpt(rest)}")
                return
            where = f"{path}, record {index}"
            try:
                value, at = _DECODER.raw_decode(text, at)
                _check_depth(value)
            except json.JSONDecodeError:
                # The entry goes on behind the block. Reading at least as much again as it has so far keeps the cost of
                # a long entry, which is parsed again from its start, linear. What is no entry would never end.
                more = file.read(max(BLOCK, len(text) - at)) if len(text) - at < MAX_ENTRY else ""
                if not more:
                    parse_json(text[at:], where, line=None)
                text, at = text[at:] + more, 0
                continue
            except _FAILURES as exc:
                raise _refusal(exc, where, None, text[at:]) from exc
            yield value
            index += 1


def first_bytes(path: Path, count: int) -> bytes:
    """Return the first bytes of a regular file; none of a pipe, from which they would be missing afterwards."""
    with _opened(path) as file:
        return file.read(count) if _is_regular(file) else b""


def read_lines(path: Path, *, limit: int = MAX_BYTES) -> Iterator[tuple[int, bytes]]:
    """Yield the number, from 1, and the bytes of each line of a file, the first one without a byte order mark.

    The path `-` is standard input. Lines may come as slowly as the program makes them that writes to a pipe.

    Raises:
        FileNotFoundError, UnreadableError: as `read_bytes`; `limit` is that of one line.
    """
    with _standard_input() if path == Path("-") else _opened(path) as file:
        if file.peek(2).startswith(_UTF16):
            # PowerShell writes UTF-16 where the output of a command is redirected to a file.
            text = io.TextIOWrapper(file, encoding="utf-16", errors="replace", newline="\n")
            yield from ((number, line.encode()) for number, line in enumerate(lines_of(text, path, limit=limit), 1))
            return
        number = 0
        while line := file.readline(limit + 1):
            number += 1
            if len(line) > limit:
                raise UnreadableError(f"{path}:{number}: the line has more than {limit} bytes")
            yield number, line.removeprefix(codecs.BOM_UTF8) if number == 1 else line


def read_text_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text with their line breaks, which may also be those of Windows and of old Macs.

    Raises:
        FileNotFoundError, UnreadableError: as `open_text` and `lines_of`.
    """
    with open_text(path) as file:
        yield from lines_of(file, path)


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Open a text of any size, encoded as in `read_text`, to read it in parts.

    Raises:
        FileNotFoundError, UnreadableError: as `read_text`, also where the block reads what is not UTF-8.
    """
    with _opened(path) as file:
        try:
            encoding = "utf-16" if file.peek(2).startswith(_UTF16) else "utf-8-sig"
            yield io.TextIOWrapper(file, encoding=encoding, newline="")
        except UnicodeError as exc:
            # Text is decoded in blocks; reading the file once more finds the line.
            for number, line in read_lines(path):
                _decoded(line, str(path), number)
            raise UnreadableError(f"{path}: not UTF-8 text ({exc})") from exc


def lines_of(file: IO[str], path: Path, *, limit: int = MAX_BYTES) -> Iterator[str]:
    """Yield the lines of an open text from where it is.

    Raises:
        UnreadableError: a line has more than `limit` characters.
    """
    while line := file.readline(limit + 1):
        if len(line) > limit:
            raise UnreadableError(f"{path}: a line has more than {limit} characters")
        yield line


def standard_input() -> IO[bytes]:
    """Return standard input; raise UnreadableError if it is closed, as after `<&-`."""
    if sys.stdin is None:
        raise UnreadableError("standard input is closed")
    return sys.stdin.buffer


@contextmanager
def _standard_input() -> Iterator[BufferedReader]:
    reader: BufferedReader = io.BufferedReader(cast("Any", standard_input()))
    try:
        yield reader
    finally:
        reader.detach()  # otherwise standard input would be closed with it


@contextmanager
def _opened(path: Path) -> Iterator[BufferedReader]:
    """Open a file as `open_file` does; what fails while it is read is an UnreadableError, too."""
    try:
        with open_file(path) as file:
            yield file
    except FileNotFoundError:
        raise
    # A path with a null character is a ValueError.
    except (OSError, ValueError) as exc:
        raise UnreadableError(f"{path} cannot be read: {getattr(exc, 'strerror', None) or exc}") from exc


def open_file(path: Path) -> BufferedReader:
    """Open a regular file, or a pipe that a shell passes. Anything else could be without end, or never begin.

    Raises:
        OSError, ValueError: it cannot be opened.
        UnreadableError: it is something else.
    """
    # Opening a named pipe waits until another process writes to it, unless it is opened like this.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode) and not (stat.S_ISFIFO(mode) and str(path).startswith(_PIPES)):
            raise UnreadableError(f"{path} is {_kind(mode)}: a regular file was expected")
        os.set_blocking(descriptor, True)
        return open(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _is_regular(file: BufferedReader) -> bool:
    return stat.S_ISREG(os.fstat(file.fileno()).st_mode)


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def no_file(path: Path, what: str) -> str:
    """Return the message about a path that is no regular file: what is there, or that there is no such `what`."""
    try:
        return f"{path} is {_kind(path.stat().st_mode)}: a regular file was expected"
    except FileNotFoundError:
        return f"{path}: no such {what}"
    except (OSError, ValueError) as exc:
        return f"{path} cannot be read: {getattr(exc, 'strerror', None) or exc}"


def _read_pipe(file: BufferedReader, path: Path, limit: int) -> bytes:
    end, content = time.monotonic() + PIPE_SECONDS, bytearray()
    while len(content) < limit:
        if not select.select([file], [], [], max(end - time.monotonic(), 0))[0]:
            raise UnreadableError(f"{path} did not end within {PIPE_SECONDS} seconds")
        if not (block := os.read(file.fileno(), 2**16)):
            break
        content += block
    return bytes(content)


def map_array(path: Path) -> np.ndarray:
    """Return the array of a `.npy` file, which is read where it is used.

    Raises:
        FileNotFoundError, UnreadableError: as `read_bytes`; or it is no array of numbers, or is cut off.
    """
    import numpy as np

    with _opened(path):  # refuses what is no regular file
        try:
            return np.lib.format.open_memmap(path, mode="r")
        except _DAMAGED_HEADER as exc:
            reason = excerpt(str(exc) or "it is cut off")
            raise UnreadableError(f"{path}: not an array of numbers: {reason}") from exc


def check_pickle(file: IO[bytes]) -> None:
    """Check the numbers under which a pickle keeps values for later, and go back to its start.

    Python's reader makes room for as many values as the largest number: ten bytes can take 64 GB.

    Raises:
        pickle.UnpicklingError: a number is larger than the count of the operations before it.
        OSError, ValueError, MemoryError, OverflowError: it cannot be read, or is damaged.
    """
    for count, (operation, argument, _) in enumerate(pickletools.genops(file)):
        if operation.name.endswith("PUT") and int(argument or 0) > count:
            raise pickle.UnpicklingError(f"operation {count} keeps its value under the number {argument}")
    file.seek(0)


_DAMAGED_HEADER = (
    *(ValueError, TypeError, EOFError, SyntaxError, tokenize.TokenError),
    *(LookupError, RecursionError, MemoryError, OverflowError),
)
"""The errors of NumPy and of Python's parser, which reads the header of a `.npy` file."""


# ------------------------------------------------------------------------------------------ JSON


class _UnusableError(Exception):
    """JSON that other code could not work with: the reason, and the text of it to look for."""


def parse_json(
    text: str | bytes,
    where: str,
    *,
    line: int | None = 1,
    max_parts: int = MAX_PARTS,
    allow_nan: bool = False,
) -> Any:
    """Return the value of a JSON text.

    Args:
        text: bytes are encoded as in `read_text`.
        where: the file, or another place, for the message.
        line: number of the text's first line within the file; None where the place has no lines.
        max_parts: how many lists, objects and names of fields it may have; a colon in a text counts as a name.
        allow_nan: also read NaN and infinities, which Python writes and which are no JSON.

    Raises:
        UnreadableError: it is not JSON, has too many parts or more than `MAX_DEPTH` in each other, an object with a
            name twice, or a number that does not fit into 64 bits.
    """
    if isinstance(text, bytes):
        text = _decoded(text, where, line)
    text = text.rstrip()  # an error at the end is one of the last line
    brackets = text.count("[") + text.count("{")
    if brackets + text.count(":") > max_parts:
        raise UnreadableError(f"{where}: not usable JSON: more than {max_parts} lists, objects and names of fields")
    try:
        value = (_LENIENT_DECODER if allow_nan else _DECODER).decode(text)
        if brackets > MAX_DEPTH:
            _check_depth(value)
    except _FAILURES as exc:
        raise _refusal(exc, where, line, text) from exc
    return value


_FAILURES = (json.JSONDecodeError, _UnusableError, RecursionError)


def _refusal(exc: Exception, where: str, line: int | None, text: str) -> UnreadableError:
    """Return the error about a JSON text that cannot be parsed, with the line of the mistake if that is known."""
    if isinstance(exc, json.JSONDecodeError):
        reason = f"not JSON ({exc.msg} at column {exc.colno}): {excerpt(text)}"
        return UnreadableError(f"{_place(where, line, text, exc.pos)}: {reason}")
    too_deep = (f"more than {MAX_DEPTH} lists and objects in each other",)
    reason, *literal = too_deep if isinstance(exc, RecursionError) else exc.args
    if literal:
        where = _place(where, line, text, text.find(*literal))
    elif "\n" not in text:
        where = _place(where, line, text, 0)
    return UnreadableError(f"{where}: not usable JSON: {reason}")


def _check_depth(value: Any) -> None:
    """Raise RecursionError for nesting that later work on the value could not follow without exhausting the stack."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [each for each in level if isinstance(each, dict | list)]
        if not level:
            return
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
    raise RecursionError


def _integer(digits: str) -> int:
    # Python makes no integer of more than 4,300 digits and no float of more than 308, NumPy no element of 64 bits.
    if len(digits) <= 20 and -(2**63) <= (value := int(digits)) < 2**63:
        return value
    raise _UnusableError(f"the number {excerpt(digits, 30)} does not fit into 64 bits", digits)


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise _UnusableError(f"the number {excerpt(digits, 30)} does not fit into 64 bits", digits)
    return value


def _constant(name: str) -> float:
    raise _UnusableError(f"{name} is no JSON number", name)


def _object(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    # Readers disagree about which of two values of one name counts.
    value = dict(fields)
    if len(value) < len(fields):
        twice = Counter(name for name, _ in fields).most_common(1)[0][0]
        raise _UnusableError(f"one object has the name {excerpt(twice)!r} twice: remove one of them")
    return value


_LENIENT_DECODER = json.JSONDecoder(parse_int=_integer, object_pairs_hook=_object)
_DECODER = json.JSONDecoder(parse_int=_integer, parse_float=_float, parse_constant=_constant, object_pairs_hook=_object)


def parse_fraction(text: str) -> Fraction:
    """Return a number such as `25`, `29.97` or `30000/1001`.

    Raises:
        ValueError: it is another text. Python would compute `1e999999999` for minutes.
    """
    if not re.fullmatch(r"-?[0-9]{1,18}(?:\.[0-9]{1,18}|/0*[1-9][0-9]{0,17})?", text):
        raise ValueError(f"{excerpt(text)!r} is no number such as 25, 29.97 or 30000/1001")
    return Fraction(text)


def _decoded(content: bytes, where: str, line: int | None) -> str:
    try:
        if content.startswith(_UTF16):
            return content.decode("utf-16")
        return content.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as exc:
        place = where if line is None else f"{where}:{line + exc.object.count(10, 0, exc.start)}"
        byte = exc.start - exc.object.rfind(10, 0, exc.start) - 1
        raise UnreadableError(f"{place}: not UTF-8 text (byte {byte} is 0x{exc.object[exc.start]:02x})") from exc


def _place(where: str, line: int | None, text: str, position: int) -> str:
    return where if line is None else f"{where}:{line + text.count(chr(10), 0, position)}"


def excerpt(text: str, limit: int = 60) -> str:
    """Return the start of a text, for messages."""
    text = text[: limit + 1].strip()
    return text if len(text) <= limit else text[: limit - 3] + "..."
