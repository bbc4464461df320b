"""The profile of a training: its first steps are measured and thrown away, no checkpoint is written.

    warm-up | steps that are timed | 1 whose FLOPs are counted

Counting slows the loop down, so it comes after the timed steps. The result is one file beside the run's folder, which
is left alone: runs/<name>-profile.json.
"""

from __future__ import annotations

import logging
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import torch

from clipbert_cli.errors import InterruptionError, UsageError
from clipbert_cli.files import write_json
from clipbert_cli.loading.processes import BATCHES_AHEAD
from clipbert_cli.model.flops import flop_counter, matrix_product_rate
from clipbert_cli.profile.phase_timer import PhaseTimer
from clipbert_cli.runtime.interrupts import Interrupts
from clipbert_cli.runtime.provenance import environment
from clipbert_cli.runtime.stopping import STOP_SIGNALS
from clipbert_cli.system_errors import unwritable
from clipbert_cli.train.logs import Announce, Phase, Sink, peak_memory, unnoticed
from clipbert_cli.train.plan import training_facts
from clipbert_cli.train.training import Training

logger = logging.getLogger("clipbert")

# Steps until memory is allocated and kernels are chosen.
WARM_UP = 3


class Profiler:
    """Trains the first steps of a training and measures them. It is the loop's callbacks and receives its phases.

    Args:
        steps: number of steps to time. A training that has fewer is timed as far as it goes, with a warning.

    Raises:
        UsageError: the training has no step left to time.
    """

    def __init__(self, training: Training, steps: int) -> None:
        self.training, self.world = training, training.world
        self.file = profile_file(training.folder.path)
        # The first steps find these batches ready, and would make loading look faster than it is.
        prefetched = BATCHES_AHEAD * training.setup.recipe.data.workers
        self.warm_up = WARM_UP + math.ceil(prefetched / training.forward_passes)
        others, total = self.warm_up + 1, training.plan.total_steps
        if total <= others:
            raise UsageError(
                f"--profile is {steps}, but this training has only {total} steps, and a profile needs {others} more "
                "than those that it times: to warm up, and to count FLOPs",
                hint=f"raise train.epochs, or set train.max_steps to {others + steps}",
            )
        self.steps = min(steps, total - others)
        if self.steps < steps:
            logger.warning("this training has %d steps: %d are timed instead of %d", total, self.steps, steps)
        self.last_step = self.steps + others
        # The trainer reports to this object, which passes phases on while steps are timed.
        self._listener: Announce = unnoticed
        self.trainer = training.trainer(self.phase)
        self._timer = PhaseTimer(self.world.device, processes=self.world.size)
        self._counter = flop_counter()
        self._counting = ExitStack()
        self._sinks: Sequence[Sink] = ()
        self._examples: dict[int, int] = {}  # step -> number of examples up to and including that step
        self._memory = self._skipped = 0

    def describe(self) -> str:
        """Return the line about the profile that follows the description of the training."""
        return (
            f"profile    {self.file}: {self.steps} steps are timed after {self.warm_up} that warm up; nothing else is "
            "written"
        )

    def run(self, sinks: Sequence[Sink] = ()) -> dict[str, Any]:
        """Train these steps, and return what was measured.

        Args:
            sinks: where the main process's records go.

        Raises:
            InterruptionError: a signal asked to stop; nothing is kept.
        """
        training = self.training
        self._sinks = sinks if self.world.is_main else ()
        with Interrupts(STOP_SIGNALS) as interrupts, self._counting, training.model.visual_encoder.weights_kept():
            # Before training, while the device is idle.
            rate = matrix_product_rate(self.world.device, self.trainer.precision.dtype)
            try:
                self.trainer.train(training.train_loader, self, interrupts=interrupts, last_step=self.last_step)
            except InterruptionError as exc:
                raise InterruptionError(
                    exc.signal, f"interrupted by {exc.signal.name} while profiling: nothing is kept"
                ) from exc
        return {
            **self._measured(rate),
            "training": training_facts(training),
            "environment": environment(self.world, step=0),
        }

    def write(self, result: Mapping[str, Any]) -> None:
        """Write what `run` returned in place of an earlier profile.

        Raises:
            OutputError: the file cannot be written.
        """

        def write() -> None:
            try:
                write_json(self.file, result)
            except OSError as exc:
                raise unwritable(self.file, exc) from exc

        self.world.main_first(write)

    # -------------------------------------------------------------------------------------------- the loop's callbacks

    def phase(self, name: Phase) -> AbstractContextManager[object]:
        return self._listener(name)

    def advance(self, step: int) -> None:
        for sink in self._sinks:
            sink.advance(step)
        self._examples[step] = self.trainer.examples
        if self.warm_up < step <= self.warm_up + self.steps:
            self._timer.step()
        if step == self.warm_up:
            self._start_timing()
        elif step == self.warm_up + self.steps:
            self._start_counting()

    def log(self, record: Mapping[str, Any]) -> None:
        for sink in self._sinks:
            sink.write(record)

    def save(self) -> None:
        """Do nothing: a profile is not kept."""

    def validate(self) -> None:
        """Do nothing: only training is measured."""

    def _start_timing(self) -> None:
        if self.world.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.world.device)
        self._skipped = self.trainer.skipped
        self._listener = self._timer.phase
        self._timer.step()

    def _start_counting(self) -> None:
        self._listener = unnoticed
        self._memory = peak_memory(self.world.device)
        self._skipped = self.trainer.skipped - self._skipped
        if self.trainer.config.compile:
            # The counter sees operations as PyTorch dispatches them, which compiled code does not do.
            self._counting.enter_context(torch.compiler.set_stance("force_eager"))
        self._counting.enter_context(self._counter)

    def _measured(self, rate: float) -> dict[str, Any]:
        """Return what was measured. Times are the main process's; FLOPs and rates are sums over all processes.

        Args:
            rate: FLOPs per second of this process's device.
        """
        spent, each = self._timer.seconds()
        whole = sum(each)
        examples = (self._examples[self.last_step - 1] - self._examples[self.warm_up]) / self.steps
        # The counted step may be a smaller one at an epoch's end: scale its FLOPs to the mean number of examples.
        scale = examples / max(1, self._examples[self.last_step] - self._examples[self.last_step - 1])
        own = (self._counter.get_total_flops() * scale, rate, self._memory, spent["data"] / self.steps)
        flops, rates, memory, waits = zip(*self.world.gather(own), strict=True)
        done = sum(flops) * self.steps / whole
        return {
            "processes": self.world.size,
            "precision": self.trainer.precision.describe(),
            "warm_up_steps": self.warm_up,
            "steps": self.steps,
            "skipped_steps": self._skipped,
            "step_ms": 1000 * whole / self.steps,
            "median_step_ms": 1000 * statistics.median(each),
            "steps_ms": [1000 * seconds for seconds in each],
            "phases": {
                name: {"ms": 1000 * seconds / self.steps, "share": seconds / whole} for name, seconds in spent.items()
            },
            "data_ms_by_process": [1000 * seconds for seconds in waits],
            "examples_per_step": examples,
            "examples_per_second": examples * self.steps / whole,
            "peak_memory_mib": max(memory),
            "flop_per_step": sum(flops),
            "flop_per_second": done,
            "matrix_flop_per_second": sum(rates),
            "mfu": done / sum(rates),
        }


def profile_file(run: Path) -> Path:
    """Return the file beside the run's folder, with `-profile` after its name. The run itself may begin or exist."""
    named = run if run.name not in ("", "..") else Path(os.path.realpath(run))  # `.` and `a/..` have no name to add to
    return named.parent / f"{named.name}-profile.json"
