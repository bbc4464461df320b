"""How commands speak: results on stdout, everything else on stderr, plain where stderr is no terminal."""

from __future__ import annotations

import json
import logging
import sys
from functools import cache
from typing import Any

from rich.console import Console
from rich.text import Text


@cache
def stderr() -> Console:
    """The console for messages, tables and progress; rich itself respects NO_COLOR and missing terminals."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=not sys.stderr.isatty())


_muted = False


def mute() -> None:
    """From now on only errors: of several processes that do the same, one tells of it."""
    global _muted
    _muted = True


def is_muted() -> bool:
    """Whether another process speaks for this one."""
    return _muted


def note(message: str) -> None:
    """One line for the person, on stderr."""
    if not _muted:
        stderr().print(message)


def warn(message: str) -> None:
    """One warning for the person, on stderr."""
    if not _muted:
        stderr().print(Text.assemble(("warning: ", "yellow"), message))


def error(message: str, *, hint: str | None = None) -> None:
    """An error and what to do next, on stderr."""
    stderr().print(Text.assemble(("error: ", "bold red"), message))
    if hint:
        stderr().print(Text.assemble(("next: ", "cyan"), hint))


def show_logs() -> None:
    """Show what the package's rooms log: warnings and above, as warnings."""
    logger = logging.getLogger("clipbert")
    if not any(isinstance(handler, _WarningHandler) for handler in logger.handlers):
        logger.addHandler(_WarningHandler(logging.WARNING))
        logger.propagate = False


class _WarningHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        warn(record.getMessage())


def print_result(line: str) -> None:
    """One line of a result, on stdout."""
    if not _muted:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    if _muted:
        return
    # A file name that is no UTF-8 is shown with escapes.
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
