"""How long work that was asked to stop is waited for.

    signal ─► the work reaches a safe moment ─► end                             (runtime/interrupts.py)
           └► no end for a while ─► "waiting ..." ─► second Ctrl-C ─► SIGKILL   (here)

A process can wait where it answers no signal: for a file system, a GPU or another process that hangs. Nobody can tell
that from a long step, so a person decides with a second Ctrl-C.
"""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Sequence

# Ctrl-C; the signal of schedulers, `kill` and torchrun; SLURM's warning before a time limit (`--signal=USR1@120`); a
# terminal that was closed or a connection that was lost.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)

_SECONDS_TO_SAY = 3.0
_SECONDS_AFTER_THE_SECOND = 3.0


def ends_at_once(before: signal.Signals | None, number: signal.Signals) -> bool:
    """Return whether `number` after another signal ends the work at once.

    A second Ctrl-C does, and SIGTERM after Ctrl-C, into which torchrun turns the second one. A repeated SIGTERM does
    not, because schedulers and launchers both send it.
    """
    return before is signal.SIGINT and number in (signal.SIGINT, signal.SIGTERM)


def taken_signals() -> Sequence[signal.Signals]:
    """Return STOP_SIGNALS without SIGHUP if this process was started to outlive its terminal (`nohup`)."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return STOP_SIGNALS[:-1] if ignored else STOP_SIGNALS


class Patience:
    """The time that is left to work which was asked to stop.

    Args:
        limit: seconds after the first signal.
        is_silent: another process says that it waits.
    """

    def __init__(self, *, limit: float = math.inf, is_silent: bool = False) -> None:
        self.asked: signal.Signals | None = None
        self._limit, self.is_silent = limit, is_silent
        self._begin = self._end = math.inf

    def ask(self, number: signal.Signals) -> None:
        """Note a signal."""
        now = time.monotonic()
        if self.asked is None:
            self._begin, self._end = now, now + self._limit
        if ends_at_once(self.asked, number):
            self._end = min(self._end, now + _SECONDS_AFTER_THE_SECOND)
            self.is_silent = True
        self.asked = number

    def is_over(self) -> bool:
        """Return whether it is time to end by force, and say once that the work is waited for."""
        now = time.monotonic()
        if now - self._begin >= _SECONDS_TO_SAY and not self.is_silent:
            self.is_silent = True
            again = "Ctrl-C again" if self.asked is signal.SIGINT else "Ctrl-C twice"
            sys.stderr.write(f"waiting for the running step to end; {again} ends at once\n")
            sys.stderr.flush()
        return now >= self._end
