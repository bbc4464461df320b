"""One bar a file, with rate and time left, on a terminal; a line a file elsewhere."""

from __future__ import annotations

import threading
from typing import Any

from clipbert_cli.assets.transfer import Progress
from clipbert_cli.commands.terminal import note, stderr


class DownloadProgress(Progress):
    """Shows what fetches say of themselves; may be called from any thread."""

    def __init__(self) -> None:
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.progress import Progress as Bars

        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=stderr(),
            disable=not stderr().is_terminal,
            transient=True,
        )
        self._tasks: dict[str, Any] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> DownloadProgress:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def begin(self, name: str, total: int | None, done: int) -> None:
        with self._lock:
            if name in self._tasks:
                self._bars.update(self._tasks[name], total=total, completed=done)
                return
            self._tasks[name] = self._bars.add_task(name.rsplit("/", 1)[1], total=total, completed=done)
        if self._bars.disable:
            note(f"{name}: going on after {done:,} bytes" if done else f"{name}: fetching")

    def advance(self, name: str, count: int) -> None:
        self._bars.advance(self._tasks[name], count)

    def end(self, name: str) -> None:
        with self._lock:
            if name in self._tasks:
                self._bars.remove_task(self._tasks.pop(name))

    def say(self, message: str) -> None:
        note(message)
