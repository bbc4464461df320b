"""How commands speak: results on stdout, everything else on stderr, plain where stderr is no terminal."""

from __future__ import annotations

import json
import logging
import sys
from functools import cache
from typing import Any

from rich.console import Console


@cache
def stderr() -> Console:
    """The console for messages, tables and progress; rich itself respects NO_COLOR and missing terminals."""
    return Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())


def note(message: str) -> None:
    """One line for the person, on stderr."""
    stderr().print(message, markup=False)


def warn(message: str) -> None:
    """One warning for the person, on stderr."""
    stderr().print(f"[yellow]warning:[/yellow] {_plain(message)}")


def error(message: str, *, hint: str | None = None) -> None:
    """An error and what to do next, on stderr."""
    stderr().print(f"[bold red]error:[/bold red] {_plain(message)}")
    if hint:
        stderr().print(f"[cyan]next:[/cyan] {_plain(hint)}")


def show_logs() -> None:
    """Show what the package's rooms log: warnings and above, as warnings."""
    logger = logging.getLogger("clipbert")
    if not any(isinstance(handler, _WarningHandler) for handler in logger.handlers):
        logger.addHandler(_WarningHandler(logging.WARNING))
        logger.propagate = False


class _WarningHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        warn(record.getMessage())


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
