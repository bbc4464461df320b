"""The profile of a training: its first steps are measured and thrown away, no checkpoint is written.

    warm-up | steps that are timed | 1 whose FLOPs are counted | 1 that warms the tracer up | TRACED steps

Counting and tracing slow the loop down, so they come after the timed steps.

runs/<name>-profile/     beside the run's folder, which is left alone
    profile.json         what was measured, on which machine, of which training
    trace.json.gz        some steps as a Chrome trace (open it in ui.perfetto.dev or chrome://tracing)
"""

from __future__ import annotations

import logging
import math
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from clipbert_cli.errors import InterruptionError, OutputError, UsageError
from clipbert_cli.files import publish_file, scratch_folder, write_json
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

# Steps in the trace; few, because each is several MB.
TRACED = 2

# Steps after those that are timed.
AFTERWARDS = 2 + TRACED


class Profiler:
    """Trains the first steps of a training and measures them. It is the loop's callbacks and receives its phases.

    Args:
        warm_up: steps before those that count, at least 1.
        steps: steps that are timed.
        sinks: where the loop's records go.
    """

    def __init__(self, training: Training, *, warm_up: int, steps: int, sinks: Sequence[Sink] = ()) -> None:
        self.warm_up, self.steps, self.sinks = warm_up, steps, sinks
        self.last_step = warm_up + steps + AFTERWARDS
        self.world = training.world
        self._listener: Announce = unnoticed
        # The trainer reports to this object, which passes phases on to whatever listens in the current stage.
        self.trainer = training.trainer(self.phase)
        self._encoder = training.model.visual_encoder
        self._timer = PhaseTimer(self.world.device, processes=self.world.size)
        self._counter = flop_counter()
        self._tracer: profile | None = None
        self._examples: dict[int, int] = {}  # step -> number of examples up to and including that step
        self._memory = self._skipped = 0
        self._rate = 0.0
        self._stage = ExitStack()
        # What begins after a step.
        self._stages: dict[int, Callable[[], None]] = {
            warm_up: self._start_timing,
            warm_up + steps: self._start_counting,
            warm_up + steps + 1: self._start_tracing,
            self.last_step: lambda: None,
        }

    def run(self, batches: Any, *, interrupts: Interrupts) -> None:
        """Train to `last_step` on this process's batches."""
        # Before training, while the device is idle.
        self._rate = matrix_product_rate(self.world.device, self.trainer.precision.dtype)
        with self._stage, self._encoder.weights_kept():
            self.trainer.train(batches, self, interrupts=interrupts, last_step=self.last_step)

    def phase(self, name: Phase) -> AbstractContextManager[object]:
        return self._listener(name)

    def advance(self, step: int) -> None:
        for sink in self.sinks:
            sink.advance(step)
        self._examples[step] = self.trainer.examples
        if self.warm_up < step <= self.warm_up + self.steps:
            self._timer.step()
        if step in self._stages:
            self._stage.close()
            self._listener = unnoticed
            self._stages[step]()
        elif self._tracer:
            self._tracer.step()

    def log(self, record: Mapping[str, Any]) -> None:
        for sink in self.sinks:
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
        self._memory = peak_memory(self.world.device)
        self._skipped = self.trainer.skipped - self._skipped
        if self.trainer.config.compile:
            # The counter sees operations as PyTorch dispatches them, which compiled code does not do.
            self._stage.enter_context(torch.compiler.set_stance("force_eager"))
        self._stage.enter_context(self._counter)

    def _start_tracing(self) -> None:
        if not self.world.is_main:
            return
        # Each phase is a range of the trace.
        self._listener = record_function
        kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.world.device.type == "cuda" else [])]
        turns = schedule(wait=0, warmup=1, active=TRACED, repeat=1)
        self._tracer = self._stage.enter_context(profile(activities=kinds, schedule=turns, acc_events=True))

    def write_trace(self, file: Path) -> None:
        """Write the traced steps as a Chrome trace, compressed if the name ends with .gz; in the main process only."""
        assert self._tracer
        self._tracer.export_chrome_trace(str(file))

    def report(self) -> dict[str, Any]:
        """Return what was measured. Times are the main process's; FLOPs and rates are sums over all processes.

        Every process must call this, after `run`.
        """
        spent, each = self._timer.seconds()
        whole = sum(each)
        counted = self.warm_up + self.steps + 1
        examples = (self._examples[counted - 1] - self._examples[self.warm_up]) / self.steps
        # The counted step may be a smaller one at an epoch's end: scale its FLOPs to the mean number of examples.
        scale = examples / max(1, self._examples[counted] - self._examples[counted - 1])
        own = (self._counter.get_total_flops() * scale, self._rate, self._memory, spent["data"] / self.steps)
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


logger = logging.getLogger("clipbert")

# Steps until memory is allocated and kernels are chosen.
WARM_UP = 3

PROFILE_FILE, TRACE_FILE = "profile.json", "trace.json.gz"


class Profiling:
    """The profile of a training, planned and ready to start.

    Args:
        steps: number of steps to time. A training that has fewer is timed as far as it goes, with a warning.

    Raises:
        UsageError: the training has no step left to time.
    """

    def __init__(self, training: Training, steps: int) -> None:
        self.training = training
        self.folder = profile_folder(training.folder.path)
        # The first steps find these batches ready, and would make loading look faster than it is.
        prefetched = BATCHES_AHEAD * training.setup.recipe.data.workers
        self.warm_up = WARM_UP + math.ceil(prefetched / training.forward_passes)
        other, total = self.warm_up + AFTERWARDS, training.plan.total_steps
        if total <= other:
            raise UsageError(
                f"--profile is {steps}, but this training has only {total} steps, and a profile needs {other} more "
                "than those that it times: to warm up, to count FLOPs and to trace",
                hint=f"raise train.epochs, or set train.max_steps to {other + steps}",
            )
        self.steps = min(steps, total - other)
        if self.steps < steps:
            logger.warning("this training has %d steps: %d are timed instead of %d", total, self.steps, steps)

    @property
    def total_steps(self) -> int:
        """All steps, timed or not."""
        return self.warm_up + self.steps + AFTERWARDS

    def describe(self) -> str:
        """Return the line about the profile that follows the description of the training."""
        return (
            f"profile    {self.folder}: {self.steps} steps are timed after {self.warm_up} that warm up, then "
            f"{TRACED} are traced; nothing else is written"
        )

    def run(self, sinks: Sequence[Sink] = ()) -> dict[str, Any]:
        """Train these steps, write the profile in place of an earlier one, and return it with the paths of its files.

        Args:
            sinks: where the main process's records go.

        Raises:
            InterruptionError: a signal asked to stop; nothing is kept.
            OutputError: the folder cannot be written. This is checked before the first step as far as possible.
        """
        training, world = self.training, self.training.world
        with ExitStack() as stack:
            interrupts = stack.enter_context(Interrupts(STOP_SIGNALS))
            unfinished = world.main_first(lambda: self._make_folder(stack))
            own_sinks = sinks if world.is_main else ()
            profiler = Profiler(training, warm_up=self.warm_up, steps=self.steps, sinks=own_sinks)
            try:
                profiler.run(training.train_loader, interrupts=interrupts)
            except InterruptionError as exc:
                raise InterruptionError(
                    exc.signal, f"interrupted by {exc.signal.name} while profiling: nothing is kept"
                ) from exc
            report = {
                **profiler.report(),
                "training": training_facts(training),
                "environment": environment(world, step=0),
            }
            world.main_first(lambda: self._write(unfinished, profiler, report))
        return {"profile": str(self.folder / PROFILE_FILE), "trace": str(self.folder / TRACE_FILE), **report}

    def _make_folder(self, stack: ExitStack) -> Path:
        """Make a scratch folder beside the profile's; it is removed when the stack is closed."""
        hint = "name another run with --run"
        try:
            if (self.folder / "recipe.yaml").exists() or (self.folder.exists() and not self.folder.is_dir()):
                raise OutputError(f"the profile goes to {self.folder}, but something else is there", hint=hint)
            if self.folder.parent.exists() and not self.folder.parent.is_dir():
                raise OutputError(f"{self.folder} cannot be written: {self.folder.parent} is not a folder", hint=hint)
            if self.folder.exists() and not os.access(self.folder, os.W_OK):
                raise OutputError(f"{self.folder} cannot be written", hint=hint)
            return stack.enter_context(scratch_folder(self.folder))
        except OSError as exc:
            raise unwritable(self.folder, exc) from exc

    def _write(self, unfinished: Path, profiler: Profiler, report: Mapping[str, Any]) -> None:
        """Write both files into the scratch folder, then move them to their places."""
        try:
            profiler.write_trace(unfinished / TRACE_FILE)
            write_json(unfinished / PROFILE_FILE, report)
            self.folder.mkdir(exist_ok=True)
            for name in (TRACE_FILE, PROFILE_FILE):
                publish_file(unfinished / name, self.folder / name)
        except OSError as exc:
            raise unwritable(self.folder, exc) from exc


def profile_folder(run: Path) -> Path:
    """Return the folder beside the run's, with `-profile` after its name. The run itself may begin or exist."""
    named = run if run.name not in ("", "..") else Path(os.path.realpath(run))  # `.` and `a/..` have no name to add to
    return named.parent / f"{named.name}-profile"
