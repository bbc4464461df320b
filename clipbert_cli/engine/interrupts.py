"""Ctrl-C at a safe moment: between two steps, never inside the starting or stopping of loading processes."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from types import FrameType
from typing import Any


class Interrupts:
    """While it is entered, the first Ctrl-C is only noted and `check` raises it; a second one leaves at once.

    It is a sink of the training loop, which thereby checks after every update. Outside the main thread, where Python
    lets no one handle signals, it does nothing.
    """

    def __init__(self) -> None:
        self._noted = False
        self._previous: Any = None

    def __enter__(self) -> Interrupts:
        try:
            self._previous = signal.signal(signal.SIGINT, self._note)
        except ValueError:  # not the main thread
            self._previous = None
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _note(self, _signal: int, _frame: FrameType | None) -> None:
        if self._noted:
            raise KeyboardInterrupt
        self._noted = True

    def check(self) -> None:
        """Raises KeyboardInterrupt if Ctrl-C was pressed."""
        if self._noted:
            raise KeyboardInterrupt

    def advance(self, step: int) -> None:
        self.check()

    def write(self, record: Mapping[str, Any]) -> None:
        pass

    def close(self) -> None:
        pass
