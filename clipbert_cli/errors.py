"""Every error that a user can meet. Each names field or file, value and expectation; `hint` says what to do next.

    ClipbertError            exit 1   failed
    ├── UsageError           exit 2   a wrong option, options that do not go together, another kind of typed path
    ├── RecipeError          exit 2   all mistakes of a recipe together
    ├── CatalogError         exit 2   all mistakes of a download catalogue together
    ├── UnreadableError      exit 1   a file or text from outside: not regular, too large, not UTF-8, not JSON
    ├── AnnotationError      exit 1   records of a JSONL file: file, line, field, value
    ├── PathError            exit 1   another kind of thing at a path that a recipe or a program names (path_kinds.py)
    ├── StoreError           exit 1   a media store: damaged, unfinished, or without a media id
    ├── DecodeError          exit 1   media that cannot be decoded
    │   └── ChangedBytesError         media that are not those their record describes (media/packets.py)
    ├── WeightsError         exit 1   weights that do not fit the model
    ├── RunError             exit 1   a run folder: exists, incomplete; a training that cannot go on
    ├── PredictionsError     exit 1   predictions that do not fit their ground truth
    ├── DownloadError        exit 1   a file that no source provides, or not as published; an unsafe archive
    │   └── UnreachedError            no connection to any host of a file was made (assets/connection.py)
    ├── MemoryFullError      exit 1   the GPU's memory or the machine's is full
    ├── OutputError          exit 1   a file or folder that cannot be written
    ├── InterruptionError    exit 130 stopped by Ctrl-C; exit 129 by SIGHUP; exit 143 by SIGTERM or SIGUSR1
    └── LaunchError          the exit code of a launched process that failed (runtime/process_exit.py)

Exit 0 means done. Exit 2 means that what was typed, or the text of a recipe, must change: a typed path at which
something else is than expected, or nothing, is such a mistake. Exit 1 means that the command is right, but what it
found is damaged or does not fit, or a file that the recipe names is missing or of another kind.

Only `commands/app.py` turns errors, these and a few of Python's, into terminal text.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from typing import Any

from clipbert_cli.printable import Lines, clipped


class ClipbertError(Exception):
    """A failure with a message for the user.

    Args:
        message: field or file, its value, what was expected; several lines are given as a sequence. A line break inside
            of a line is not ours but that of a file name, for example, and is escaped with all that is not printable.
        hint: what to do next, in one sentence; printed on a separate line.
    """

    exit_code = 1

    def __init__(self, message: str | Sequence[str], *, hint: str | None = None) -> None:
        super().__init__(message)
        self.lines = Lines(map(clipped, (message,) if isinstance(message, str) else message))
        self.hint = hint and clipped(hint)

    def __str__(self) -> str:
        return str(self.lines)


class UsageError(ClipbertError):
    exit_code = 2


class RecipeError(ClipbertError):
    exit_code = 2


class CatalogError(ClipbertError):
    exit_code = 2


class UnreadableError(ClipbertError):
    pass


class AnnotationError(ClipbertError):
    pass


class PathError(ClipbertError):
    pass


class StoreError(ClipbertError):
    pass


class DecodeError(ClipbertError):
    pass


class WeightsError(ClipbertError):
    pass


class RunError(ClipbertError):
    pass


class PredictionsError(ClipbertError):
    pass


class DownloadError(ClipbertError):
    pass


class MemoryFullError(ClipbertError):
    pass


def interruption_code(number: signal.Signals) -> int:
    """Return the exit code of a command that a signal stopped."""
    return {signal.SIGINT: 130, signal.SIGHUP: 129}.get(number, 143)


class InterruptionError(ClipbertError):
    """Work that a signal asked to stop, and that stopped at a safe moment (runtime/interrupts.py).

    Args:
        number: the signal; Ctrl-C is SIGINT.
        message: how far the work came, and what is kept.
    """

    def __init__(self, number: signal.Signals, message: str = "interrupted", *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.signal = number
        self.exit_code = interruption_code(number)

    # Processes send errors to each other. By default pickle would pass the message as the signal.
    def __reduce__(self) -> tuple[Any, ...]:
        return _interrupted, (self.signal, str(self), self.hint)


def _interrupted(number: signal.Signals, message: str, hint: str | None) -> InterruptionError:
    return InterruptionError(number, message, hint=hint)


class OutputError(ClipbertError):
    pass


def with_causes(exc: BaseException) -> Iterator[BaseException]:
    """Yield an error, then what it was raised from or while handling. Libraries can make a circle of these."""
    link: BaseException | None = exc
    found: list[BaseException] = []
    while link is not None and link not in found:
        yield link
        found.append(link)
        link = link.__cause__ or link.__context__
