"""Printing of commands: results on stdout, everything else on stderr, plain text where the stream is no terminal."""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any, TextIO

from clipbert_cli.printable import SHOWN, Lines, clipped, printable
from clipbert_cli.runtime.process_exit import is_one_of_several

if TYPE_CHECKING:
    from rich.console import Console


class _Stream(io.TextIOWrapper):
    """A standard stream whose errors are handled by a context.

    Args:
        stream: Python's stream of this number; None for one that was closed.
    """

    def __init__(
        self, number: int, stream: TextIO | None, handling: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._handling = handling
        by_line = at_once = False
        if isinstance(stream, io.TextIOWrapper):
            by_line, at_once = stream.line_buffering, stream.write_through
        super().__init__(
            open(number, "wb", buffering=0 if at_once else -1, closefd=False),  # noqa: SIM115 - open to the end
            stream.encoding if stream else "utf-8",
            stream.errors if stream else "backslashreplace",
            line_buffering=by_line,
            write_through=at_once,
        )

    def write(self, text: str) -> int:
        with self._handling():
            return super().write(text)
        return 0

    def flush(self) -> None:
        with self._handling():
            super().flush()


@contextmanager
def _of_output() -> Iterator[None]:
    """Name stdout in an error, as other files are named in theirs."""
    try:
        yield
    except OSError as exc:
        raise OSError(exc.errno, exc.strerror, "standard output") from exc


def _lost() -> AbstractContextManager[None]:
    return suppress(OSError)


def open_streams() -> None:
    """Open the standard streams that the shell has closed (`>&-`): another file would take their place.

    A result that stdout does not take is an error, which names it. A message that stderr does not take (a full disk, a
    terminal that is gone) is lost, and the command goes on.
    """
    for number, flags in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # it gets the lowest number that is free
    sys.stdout, sys.stderr = _Stream(1, sys.stdout, _of_output), _Stream(2, sys.stderr, _lost)


def drop_output() -> None:
    """Drop what stdout has not taken, which Python would try to write again, and complain of, when it exits."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@cache
def stderr() -> Console:
    """Return the console for messages and progress. Rich itself respects NO_COLOR and missing terminals."""
    # Imported late, as everywhere here: without a message a command does not wait for rich.
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=not sys.stderr.isatty())


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Show what goes on while the block runs. Without a terminal, and of several processes, nothing is shown."""
    if is_one_of_several() or not sys.stderr.isatty():
        yield
        return
    with stderr().status(f"{what} ..."):
        yield


_muted = False


def mute() -> None:
    """Print nothing but errors from now on: of several processes that do the same work, only one reports it."""
    global _muted
    _muted = True


def is_muted() -> bool:
    """Return whether another process reports what this one does."""
    return _muted


# ------------------------------------------------------------------------------------------ messages on stderr


def note(*lines: str) -> None:
    """Print lines about what happens."""
    if not _muted:
        for line in lines:
            stderr().print(printable(clipped(line)))


def warn(*lines: str) -> None:
    """Print one warning."""
    if not _muted:
        _print_labelled("warning", "yellow", str(Lines(map(clipped, lines))))


def warn_of_each(what: str, found: Sequence[tuple[object, str]]) -> None:
    """Print one warning per (name, reason) pair; after the first 20 only the number of the others."""
    for name, reason in found[:SHOWN]:
        warn(f"{what}: {name}: {reason}")
    if len(found) > SHOWN:
        warn(f"{what}: {len(found) - SHOWN} more (--json lists all)")


def error(*lines: str, hint: str | None = None) -> None:
    """Print an error and what to do next."""
    _print_labelled("error", "bold red", str(Lines(lines)))
    if hint:
        _print_labelled("next", "cyan", printable(hint))


def _print_labelled(label: str, style: str, text: str) -> None:
    from rich.text import Text

    stderr().print(Text.assemble((f"{label}: ", style), text))


def show_logs() -> None:
    """Print the warnings that the packages log as warnings of the command."""
    logger = logging.getLogger("clipbert")
    if not any(isinstance(handler, _WarningHandler) for handler in logger.handlers):
        logger.addHandler(_WarningHandler())
        logger.propagate = False


class _WarningHandler(logging.Handler):
    """Prints every warning once: the splits of a recipe may share a store, of which each warns."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._printed: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message not in self._printed:
            self._printed.add(message)
            warn(*(record.msg if isinstance(record.msg, Lines) else [message]))


# ------------------------------------------------------------------------------------------ results on stdout


def print_result(*lines: str) -> None:
    """Print a result that is text."""
    _write(str(Lines(lines)))


def _write(text: str) -> None:
    if not _muted:
        sys.stdout.write(f"{text}\n")
        # Progress on stderr may follow, and both streams may end in one log file: keep their order.
        sys.stdout.flush()


def print_json(value: Any) -> None:
    """Print a result that is one JSON document."""
    # The escapes of JSON, and not those of `printable`, leave the document the same. A file name need not be UTF-8:
    # Python holds its other bytes as surrogates, which are escaped as well.
    text = json.dumps(value, ensure_ascii=False)
    _write("".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text))


def wrapped(text: str, *, indent: int, stream: TextIO | None = None) -> list[str]:
    """Return a text in lines, all but the first indented.

    Args:
        stream: the lines are as wide as its terminal, and the text is one line if it has none. Without a stream they
            have 80 columns.
    """
    width = 80
    if stream is not None:
        width = shutil.get_terminal_size().columns if stream.isatty() else sys.maxsize
    return textwrap.wrap(text, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


def aligned(rows: Sequence[Sequence[str]], *, left: int = 1) -> list[str]:
    """Return rows of text as the lines of a table, with the first `left` columns to the left, all others to the right.

    The headings are printed into pipes and files as well: the numbers of a log mean nothing without them.
    """
    rows = [tuple(map(printable, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = ["<" if column < left else ">" for column in range(len(widths))]
    form = "  ".join(f"{{:{side}{width}}}" for side, width in zip(sides, widths, strict=True))
    return [form.format(*row).rstrip() for row in rows]


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a result that is a table: aligned under headings on a terminal, else one line per row for `cut` and `awk`.

    Rows may be shorter than the headings. Without a terminal, cells are separated by tabs and there are no headings.
    """
    if sys.stdout.isatty():
        filled = [(*row, *[""] * (len(headings) - len(row))) for row in rows]
        print_result(*aligned([headings, *filled], left=len(headings)))
        return
    for row in rows:
        _write("\t".join(map(printable, row)))
