"""Ctrl-C and other requests to stop, at a safe moment: between steps, never while loading processes start or stop."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from types import FrameType
from typing import Any

from clipbert_cli.errors import InterruptionError

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Ctrl-C; what schedulers, `kill` and torchrun send; what SLURM sends ahead of a time limit (`--signal=USR1@120`)."""


class Interrupts:
    """While it is entered, a signal is only noted; whoever works asks for it at a safe moment.

    A second Ctrl-C, or SIGTERM after Ctrl-C (which is how torchrun passes the second one on), leaves at once with
    KeyboardInterrupt. A repeated SIGTERM does not: schedulers and launchers both send it. Outside the main thread,
    where Python lets no one handle signals, this does nothing.

    Args:
        signals: which ones; default Ctrl-C.
    """

    def __init__(self, signals: Sequence[signal.Signals] = (signal.SIGINT,)) -> None:
        self.signals = signals
        self.noted: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        try:
            for number in self.signals:
                self._previous[number] = signal.signal(number, self._note)
        except ValueError:  # not the main thread
            pass
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.noted is signal.SIGINT and number in (signal.SIGINT, signal.SIGTERM):
            raise KeyboardInterrupt
        self.noted = signal.Signals(number)

    def check(self) -> None:
        """Raises InterruptionError if a signal was noted."""
        if self.noted is not None:
            raise InterruptionError(self.noted)
