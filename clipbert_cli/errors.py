"""The errors a person can meet.

    ClipbertError            exit 1   failed
    ├── UsageError           exit 2   a wrong option, or options that do not go together
    ├── RecipeError          exit 2   every mistake of a recipe at once
    ├── CatalogError         exit 2   every mistake of a download catalogue at once
    ├── AnnotationError      exit 1   a record of a JSONL file: file, line, field, value
    ├── StoreError           exit 1   a media store: missing, unfinished, missing media id
    ├── DecodeError          exit 1   media that cannot be decoded
    ├── WeightsError         exit 1   weights that do not fit the model
    ├── RunError             exit 1   a run folder: exists, missing, incomplete
    ├── PredictionsError     exit 1   predictions that do not fit their ground truth
    ├── DownloadError        exit 1   a file that no source gives, or not as published; an archive that is not safe
    ├── InterruptionError    exit 130 stopped by Ctrl-C; exit 143 by SIGTERM or SIGUSR1
    └── OutputError          exit 1   a place that cannot be written

Every message names the field or file, its value and what was expected; `hint` says what to do next.
Exit 0 is done. `commands/app.py` is the one place that turns these into terminal text.
"""

from __future__ import annotations

import signal
from typing import Any


class ClipbertError(Exception):
    """A failure with a message for the person at the terminal.

    Args:
        message: field or file, its value, what was expected.
        hint: what to do next, one sentence; printed on a line of its own.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(ClipbertError):
    exit_code = 2


class RecipeError(ClipbertError):
    exit_code = 2


class CatalogError(ClipbertError):
    exit_code = 2


class AnnotationError(ClipbertError):
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


class InterruptionError(ClipbertError):
    """Work that was asked to stop and did so at a safe moment.

    Args:
        number: the signal; Ctrl-C is SIGINT.
        message: what was reached, and what is kept.
    """

    def __init__(self, number: signal.Signals, message: str = "interrupted", *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.signal = number
        self.exit_code = 130 if number is signal.SIGINT else 143

    def __reduce__(self) -> tuple[Any, ...]:
        return _interrupted, (self.signal, str(self), self.hint)


def _interrupted(number: signal.Signals, message: str, hint: str | None) -> InterruptionError:
    return InterruptionError(number, message, hint=hint)


class OutputError(ClipbertError):
    pass
