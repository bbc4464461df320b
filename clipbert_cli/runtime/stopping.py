"""How long work that was asked to stop is waited for, and its end by force.

    signal ─► the work reaches a safe moment ─► end                             (runtime/interrupts.py)
           └► no end for a while ─► "waiting ..." ─► second Ctrl-C ─► SIGKILL   (here)

A process can wait where it answers no signal: for a file system, a GPU or another process that hangs. Nobody can tell
that from a long step, so a person decides with a second Ctrl-C. A process that somebody has stopped (SIGSTOP) is
another matter: it is never waited for.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

# Ctrl-C; the signal of schedulers, `kill` and torchrun; SLURM's warning before a time limit (`--signal=USR1@120`); a
# terminal that was closed or a connection that was lost.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)

_SECONDS_TO_SAY = 3.0
_SECONDS_OF_A_STOPPED_PROCESS = 5.0
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
    """The time that is left to processes which were asked to stop.

    Args:
        limit: seconds after the first signal.
        is_silent: another process says that it waits.
    """

    def __init__(self, *, limit: float = math.inf, is_silent: bool = False) -> None:
        self.asked: signal.Signals | None = None
        self._limit, self.is_silent = limit, is_silent
        self._begin = 0.0
        self._end = math.inf
        self._stopped_since = math.inf

    def ask(self, number: signal.Signals) -> None:
        """Note a signal."""
        now = time.monotonic()
        if self.asked is None:
            self._begin, self._end = now, now + self._limit
        if ends_at_once(self.asked, number):
            self._end = min(self._end, now + _SECONDS_AFTER_THE_SECOND)
            self.is_silent = True
        self.asked = number

    def is_over(self, processes: Iterable[int]) -> bool:
        """Return whether it is time to end these processes by force, and say once that they are waited for.

        This is called several times a second after the first signal.
        """
        now = time.monotonic()
        self._stopped_since = min(self._stopped_since, now) if any(map(_is_stopped, processes)) else math.inf
        if now - self._begin >= _SECONDS_TO_SAY and not self.is_silent:
            self.is_silent = True
            again = "Ctrl-C again" if self.asked is signal.SIGINT else "Ctrl-C twice"
            sys.stderr.write(f"waiting for the running step to end; {again} ends at once\n")
            sys.stderr.flush()
        return now >= min(self._end, self._stopped_since + _SECONDS_OF_A_STOPPED_PROCESS)


def children() -> list[int]:
    """Return the processes that this one has started and that it has not asked about since they ended."""
    return _children(os.getpid())


def descendants(processes: Iterable[int]) -> list[int]:
    """Return these processes and all that they have started."""
    return [each for process in processes for each in (process, *descendants(_children(process)))]


def kill(processes: Iterable[int]) -> None:
    """End processes and all that they have started, by SIGKILL."""
    for process in descendants(processes):
        try:
            os.kill(process, signal.SIGKILL)
        except OSError:  # it has ended meanwhile
            continue


def _children(process: int) -> list[int]:
    found: list[int] = []
    for thread in Path(f"/proc/{process}/task").glob("*/children"):
        found += map(int, _text(thread).split())
    return found


def _is_stopped(process: int) -> bool:
    # The state follows the name, which is in brackets and can hold anything.
    return _text(Path(f"/proc/{process}/stat")).rpartition(")")[2].split()[:1] == ["T"]


def _text(file: Path) -> str:
    """Return what the system says of a process, nothing if it has ended meanwhile."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
