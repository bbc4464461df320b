"""Questions as JSON lines, read while they are written, and their answers as JSON lines in the same order.

{"video": "cat.mp4", "question": "what is it ?", "options": [...], ...}    ─►  the same line with its answer
a line that cannot be answered                                            ─►  the same line with `error`
"""

from __future__ import annotations

import io
import json
import select
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from clipbert_cli.errors import ClipbertError, UnreadableError, UsageError
from clipbert_cli.foreign import parse_json
from clipbert_cli.infer.asking import KINDS, Asked, Asker
from clipbert_cli.infer.trained import TrainedRun
from clipbert_cli.runtime.interrupts import Interrupts

# So many lines are answered together at most. Whoever writes more of them has to wait.
_WINDOW = 1000
_CHUNK = 2**20
# A line is cut off here. A file without line breaks must not fill the memory.
_MOST_BYTES = 2**24
_MOST_PARTS = 100_000
# A line of so many bytes is the last one. Reading on to its end could take minutes, or for ever.
_ENDLESS = 2**30
# Fields of an answer. A field of the same name is not passed through.
_OWN = ("answer", "score", "top", "option", "error")


@dataclass(frozen=True)
class Line:
    """A line as it was read: its fields, and the question or the mistake in it."""

    fields: Mapping[str, Any]
    asked: Asked | ClipbertError


def parse(raw: bytes, number: int) -> Line:
    """Read the question of a line. A mistake is part of the result, because other lines can be answered."""
    fields: Any = {"line": number}
    try:
        if len(raw) > _MOST_BYTES:
            last = f"after one of {_ENDLESS // 2**30} GiB no more is read"
            raise UsageError(f"the line is longer than {_MOST_BYTES // 2**20} MiB; {last}")
        read = parse_json(raw, "the line", line=None, max_parts=_MOST_PARTS)
        if not isinstance(read, dict):
            raise UsageError(f"a JSON {type(read).__name__}, but must be an object")
        fields = read
        return Line(fields, _asked(read))
    except (UsageError, UnreadableError) as exc:
        return Line(fields, exc)


def _asked(fields: Mapping[str, Any]) -> Asked:
    named = [kind for kind in KINDS if kind in fields]
    if len(named) != 1:
        raise UsageError(f"the line has {' and '.join(named) or 'neither video nor image'}, but must have one of them")
    kind = named[0]
    options = fields.get("options", [])
    if not isinstance(options, list) or not all(isinstance(option, str) and option.strip() for option in options):
        raise UsageError(f"options is {json.dumps(options)}, but must be a list of texts")
    # Options alone are compared with the file, without a question.
    needed = [kind] if options and fields.get("question") is None else [kind, "question"]
    for name in needed:
        if not isinstance(fields.get(name), str) or not fields[name].strip():
            raise UsageError(f"{name} is {json.dumps(fields.get(name))}, but must be text")
    return Asked(kind, Path(fields[kind]), fields[kind], fields.get("question") or "", tuple(options))


def read_windows(stream: IO[bytes], check_interrupts: Callable[[], None]) -> Iterator[list[Line]]:
    """Yield the lines that are there, as soon as there is one, until the stream ends. Blank lines are skipped."""
    window: list[Line] = []
    number = 0
    for raw in _raw_lines(stream, check_interrupts):
        number += raw is not None
        if raw and raw.strip():
            window.append(parse(raw, number))
        if window and (raw is None or len(window) == _WINDOW):
            yield window
            window = []
    if window:
        yield window


def _raw_lines(stream: IO[bytes], check_interrupts: Callable[[], None]) -> Iterator[bytes | None]:
    """Yield the lines of a stream, and None where the next one is not there yet."""
    line, size = bytearray(), 0
    while size < _ENDLESS:
        if not _has_more(stream, seconds=0):
            yield None
            # A signal is only noted while this waits.
            while not _has_more(stream, seconds=0.2):
                check_interrupts()
        # `read1` leaves nothing in the stream's own buffer, which `_has_more` could not see.
        chunk = stream.read1(_CHUNK)  # type: ignore[attr-defined]
        if not chunk:
            break
        for number, part in enumerate(chunk.split(b"\n")):
            if number:
                yield bytes(line)
                line, size = bytearray(), 0
            # What is beyond the limit is read and forgotten, up to the next line.
            line += part[: max(_MOST_BYTES + 1 - size, 0)]
            size += len(part)
    if line:
        yield bytes(line)


def _has_more(stream: IO[bytes], *, seconds: float) -> bool:
    """Wait until the stream has something to read, or has ended; at most so many seconds."""
    try:
        return bool(select.select([stream], [], [], seconds)[0])
    except io.UnsupportedOperation:  # bytes in memory
        return True


def answer_lines(run: TrainedRun, stream: IO[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the answer to each line of questions as soon as it is there, in order.

    Raises:
        InterruptionError: a signal asked to stop.
    """
    with Interrupts() as interrupts:
        waiting: deque[Line] = deque()

        def windows() -> Iterator[list[Asked | ClipbertError]]:
            for lines in read_windows(stream, interrupts.check):
                waiting.extend(lines)
                yield [line.asked for line in lines]

        for answer in Asker(run).answers(windows(), check_interrupts=interrupts.check):
            fields = {name: value for name, value in waiting.popleft().fields.items() if name not in _OWN}
            yield {**fields, **({"error": str(answer)} if isinstance(answer, ClipbertError) else answer.fields)}
