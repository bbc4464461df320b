"""What fetching from every kind of source shares: progress callbacks and the refusal of a source."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from clipbert_cli.files import LockHeldError, lock


class Stopped(Exception):  # noqa: N818 - a signal between threads, not an error a person meets
    """The person interrupted: leave what is half-done resumable."""


class Refused(Exception):  # noqa: N818 - says what a source did, and never leaves this room
    """This source does not give the file; the next one may."""


class Progress:
    """What a fetch tells of itself. This one is silent; a command shows it."""

    def begin(self, name: str, total: int | None, done: int) -> None:
        """A file starts, goes on, or starts again: `done` bytes of `total` (None: unknown) are here."""

    def advance(self, name: str, count: int) -> None:
        """`count` more bytes are here."""

    def end(self, name: str) -> None:
        """The file is here, or given up."""

    def say(self, message: str) -> None:
        """A line for the person."""


def lock_file(path: Path) -> Path:
    """Return the lock file of a file that is being downloaded or a part that is being made."""
    return path.with_name(path.name + ".lock")


@contextmanager
def locked(path: Path, stop: threading.Event) -> Iterator[None]:
    """Hold the lock of `path` against other threads and processes, waiting until it is free.

    Raises:
        Stopped: `stop` was set while waiting.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(lock(lock_file(path), keep_waiting=lambda: not stop.wait(0.1)))
        except LockHeldError:
            raise Stopped from None
        yield
