"""The progress of downloads: one bar per file with rate and time left on a terminal, one line per file elsewhere."""

from __future__ import annotations

import threading
from typing import Any

from rich.progress import DownloadColumn, TransferSpeedColumn

from clipbert_cli.assets.fetch import DownloadProgress
from clipbert_cli.commands.progress import bar_with
from clipbert_cli.commands.terminal import note
from clipbert_cli.printable import printable


class DownloadBars(DownloadProgress):
    """Draws the progress of downloads on stderr."""

    def __init__(self) -> None:
        self._bars = bar_with(DownloadColumn(), TransferSpeedColumn())
        self._tasks: dict[str, Any] = {}
        # The threads that fetch files call these methods at the same time.
        self._lock = threading.Lock()

    def __enter__(self) -> DownloadBars:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def update(self, name: str, done: int, total: int | None) -> None:
        with self._lock:
            if is_new := name not in self._tasks:
                self._tasks[name] = self._bars.add_task(printable(name.rsplit("/", 1)[1]), total=total)
            self._bars.update(self._tasks[name], completed=done, total=total)
        if is_new and self._bars.disable:
            note(f"{name}: continuing after {done:,} bytes" if done else f"{name}: downloading")

    def end(self, name: str) -> None:
        with self._lock:
            if name in self._tasks:
                self._bars.remove_task(self._tasks.pop(name))

    def say(self, message: str) -> None:
        note(message)
