"""Requests to stop: from the signal to the exit code, and SLURM's way of starting the job again.

    signal ─► Interrupts notes it ─► the work reaches a safe moment ─► InterruptionError ─► exit code 129, 130 or 143
                                       training   between two steps; all processes agree, then save (train/loop.py)
                                       inference  between two parts of a batch: `check`
    second Ctrl-C ─► KeyboardInterrupt at once; the end by force, where that does not help (runtime/stopping.py)

Work stops only at safe moments, because a signal may arrive while a checkpoint is written or while loading processes
start or stop. Other parts of the package use what is defined here:

    runtime/stopping.py      the signals, and what ends processes that do not stop
    runtime/launch.py        our launcher passes the signals on to the processes that it started
    loading/processes.py     loading processes ignore Ctrl-C: the process that they load for decides
    train/training.py        says what was saved and how to resume, and asks SLURM to requeue the job
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from types import FrameType
from typing import Any

from clipbert_cli.errors import InterruptionError, RunError, UsageError
from clipbert_cli.runtime.process_exit import check_interrupted
from clipbert_cli.runtime.stopping import STOP_SIGNALS, ends_at_once, taken_signals


class Interrupts:
    """A context in which signals are noted instead of acted upon.

    A second Ctrl-C raises KeyboardInterrupt at once (`ends_at_once`). Outside the main thread this does nothing: Python
    handles signals in the main thread only.

    Args:
        signals: the signals to note.
    """

    def __init__(self, signals: Sequence[signal.Signals] = (signal.SIGINT,)) -> None:
        self.signals = signals
        self.noted: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        try:
            for number in set(self.signals).intersection(taken_signals()):
                self._previous[number] = signal.signal(number, self._note)
        except ValueError:  # this is not the main thread
            pass
        check_interrupted()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        before, self.noted = self.noted, signal.Signals(number)
        if ends_at_once(before, self.noted):
            raise KeyboardInterrupt

    def check(self) -> None:
        """Raise InterruptionError if a signal was noted."""
        if self.noted is not None:
            raise InterruptionError(self.noted)

    def flags(self) -> list[float]:
        """Return 1.0 for the noted signal and 0.0 for the others of STOP_SIGNALS. Processes add these up to agree."""
        return [float(self.noted is number) for number in STOP_SIGNALS]

    @staticmethod
    def first(flags: Sequence[float]) -> signal.Signals | None:
        """Return the first of STOP_SIGNALS that any process noted, given the sums of their `flags`."""
        return next((number for number, count in zip(STOP_SIGNALS, flags, strict=True) if count), None)


def check_requeue() -> None:
    """Raise UsageError if this process does not run in a SLURM job."""
    if "SLURM_JOB_ID" not in os.environ:
        raise UsageError(
            "--requeue needs a SLURM job, but SLURM_JOB_ID is not set", hint="leave --requeue out, or use sbatch"
        )


def was_requeued() -> bool:
    """Return whether SLURM has started this job before."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0


def requeue() -> None:
    """Ask SLURM to put this job into the queue again.

    Raises:
        RunError: SLURM refuses, or cannot be asked.
    """
    command = ["scontrol", "requeue", os.environ["SLURM_JOB_ID"]]
    try:
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError) as exc:
        reason = getattr(exc, "stderr", None) or exc
        raise RunError(
            f"{' '.join(command)} failed: {str(reason).strip()}", hint="everything is saved; submit the job again"
        ) from exc
