"""The profile of a training: its first steps are measured and thrown away, no checkpoint is written.

runs/<name>-profile/     beside the run's folder, which is left alone
    profile.json         what was measured, on which machine, of which training
    trace.json.gz        some steps as a Chrome trace (open it in ui.perfetto.dev or chrome://tracing)
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from clipbert_cli.errors import InterruptionError, OutputError, UsageError
from clipbert_cli.files import publish_file, scratch_folder, write_json
from clipbert_cli.profile.profiler import AFTERWARDS, TRACED, Profiler
from clipbert_cli.runtime.interrupts import STOP_SIGNALS, Interrupts
from clipbert_cli.runtime.provenance import environment
from clipbert_cli.train.logs import Sink
from clipbert_cli.train.startup import training_facts
from clipbert_cli.train.training import Training

logger = logging.getLogger("clipbert")

# Steps until memory is allocated and kernels are chosen.
WARM_UP = 3

# Batches that each loading process prepares ahead (DataLoader's default). The first steps find them ready, and would
# make loading look faster than it is.
PREFETCHED = 2

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
        prefetched = PREFETCHED * training.setup.recipe.data.workers
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
            raise OutputError(f"{self.folder} cannot be written: {exc.strerror}", hint=hint) from exc

    def _write(self, unfinished: Path, profiler: Profiler, report: Mapping[str, Any]) -> None:
        """Write both files into the scratch folder, then move them to their places."""
        try:
            profiler.write_trace(unfinished / TRACE_FILE)
            write_json(unfinished / PROFILE_FILE, report)
            self.folder.mkdir(exist_ok=True)
            for name in (TRACE_FILE, PROFILE_FILE):
                publish_file(unfinished / name, self.folder / name)
        except OSError as exc:
            raise OutputError(f"{self.folder} cannot be written: {exc.strerror}") from exc


def profile_folder(run: Path) -> Path:
    """Return the folder beside the run's, with `-profile` after its name. The run itself may begin or exist."""
    named = run if run.name not in ("", "..") else Path(os.path.realpath(run))  # `.` and `a/..` have no name to add to
    return named.parent / f"{named.name}-profile"
