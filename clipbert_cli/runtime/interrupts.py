"""Requests to stop: from the signal to the exit code, and SLURM's way of starting the job again.

    signal ─► Interrupts notes it ─► the work reaches a safe moment ─► InterruptionError ─► exit code 130 or 143
                                       training   between two steps; all processes agree, then save (train/loop.py)
                                       inference  between two parts of a batch: `check`
    second Ctrl-C ─► KeyboardInterrupt at once

Work stops only at safe moments, because a signal may arrive while a checkpoint is written or while loading processes
start or stop. Other parts of the package use what is defined here:

    runtime/distributed.py   our launcher passes STOP_SIGNALS on to the processes that it started
    loading/loader.py        loading processes ignore Ctrl-C: the process that they load for decides
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

# Ctrl-C; the signal of schedulers, `kill` and torchrun; SLURM's warning before a time limit (`--signal=USR1@120`).
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Interrupts:
    """A context in which signals are noted instead of acted upon.

    A second Ctrl-C, or SIGTERM after Ctrl-C, raises KeyboardInterrupt at once: torchrun turns the second Ctrl-C into
    SIGTERM. A repeated SIGTERM does not, because schedulers and launchers both send it. Outside the main thread this
    does nothing: Python handles signals in the main thread only.

    Args:
        signals: the signals to note.
    """

    def __init__(self, signals: Sequence[signal.Signals] = (signal.SIGINT,)) -> None:
        self.signals = signals
        self.noted: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        try:
            for number in self.signals:
                self._previous[number] = signal.signal(number, self._note)
        except ValueError:  # this is not the main thread
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
