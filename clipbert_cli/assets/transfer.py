"""What all kinds of sources share: the progress callbacks of a download, and the exceptions that end one."""

from __future__ import annotations


class StoppedError(Exception):
    """The user pressed Ctrl-C: a thread stops here and leaves a state from which the next download continues."""


class SourceRefusedError(Exception):
    """This source does not give the file; the next source may. Never leaves `Fetcher.fetch`."""


class DownloadProgress:
    """Receives the progress of downloads, from several threads. This class ignores it; a command draws it."""

    def begin(self, name: str, total: int | None, done: int) -> None:
        """Called when a file starts, continues or starts again: `done` of `total` bytes are there (None: unknown)."""

    def advance(self, name: str, count: int) -> None:
        """Called when `count` more bytes have arrived."""

    def end(self, name: str) -> None:
        """Called when a source has given the file or has refused it."""

    def say(self, message: str) -> None:
        """Called with a line for the user, such as the reason why a source is left."""
