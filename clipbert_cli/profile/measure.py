"""A training's first steps, measured: a run that writes no checkpoint and is thrown away.

runs/<name>-profile/     beside the run's folder, which is left alone
    profile.json         what was measured, of which training, on what
    trace.json.gz        some steps as a Chrome trace (ui.perfetto.dev, chrome://tracing)
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from clipbert_cli.errors import InterruptionError, OutputError, UsageError
from clipbert_cli.files import scratch_folder
from clipbert_cli.profile.profiler import AFTERWARDS, TRACED, Profiler
from clipbert_cli.runtime.interrupts import STOP_SIGNALS, Interrupts
from clipbert_cli.runtime.provenance import environment
from clipbert_cli.train.session import Training
from clipbert_cli.train.sinks import Sink

logger = logging.getLogger("clipbert")

WARM_UP = 3
"""Steps until memory is taken and kernels are chosen."""

READY = 2
"""Batches that a loading process keeps ready: DataLoader's default. While the first steps warm up it gets ahead."""

PROFILE_FILE, TRACE_FILE = "profile.json", "trace.json.gz"


class Profiling:
    """A training's profile, decided and ready to start.

    Args:
        steps: to measure. A training that has fewer is measured as far as it goes, with a warning.

    Raises:
        UsageError: the training has no step left to measure.
    """

    def __init__(self, training: Training, steps: int) -> None:
        self.training = training
        self.folder = profile_folder(training.folder.path)
        ahead = READY * training.recipe.data.workers
        self.warm_up = WARM_UP + math.ceil(ahead / training.facts.forward_passes)
        besides, total = self.warm_up + AFTERWARDS, training.plan.total_steps
        if total <= besides:
            raise UsageError(
                f"--profile is {steps}: this training has {total} steps, and a profile takes {besides} besides those "
                "that it measures, to warm up and to look closer",
                hint=f"raise train.epochs, or set train.max_steps to {besides + steps}",
            )
        self.steps = min(steps, total - besides)
        if self.steps < steps:
            logger.warning("this training has %d steps: %d are measured instead of %d", total, self.steps, steps)

    @property
    def total_steps(self) -> int:
        """All that will be done."""
        return self.warm_up + self.steps + AFTERWARDS

    def describe(self) -> str:
        """For the person, a line more of what will run."""
        return (
            f"profile    {self.folder}: {self.steps} steps timed after {self.warm_up} that warm up, then "
            f"{TRACED} traced; nothing else is written"
        )

    def run(self, sinks: Sequence[Sink] = ()) -> dict[str, Any]:
        """Train these steps, write the profile in place of an earlier one, and return it with the places of its files.

        Args:
            sinks: where the loop's records go.

        Raises:
            InterruptionError: a signal asked to stop; nothing is kept.
            OutputError: the folder cannot be written; said before the first step where it can be known then.
        """
        training, world = self.training, self.training.world
        with ExitStack() as stack:
            interrupts = stack.enter_context(Interrupts(STOP_SIGNALS))
            unfinished = world.main_first(lambda: self._begin(stack))
            trainer = training.new_trainer()
            profiler = Profiler(trainer, warm_up=self.warm_up, steps=self.steps)
            try:
                with profiler:
                    trainer.train(
                        training.train_loader,
                        sinks=[profiler, *(sinks if world.is_main else ())],
                        interrupts=interrupts,
                        save=lambda: None,
                        validate=lambda: None,
                        last_step=profiler.last_step,
                    )
            except InterruptionError as exc:
                raise InterruptionError(
                    exc.signal, f"interrupted by {exc.signal.name} while profiling: nothing is kept"
                ) from exc
            report = {
                **profiler.report(),
                "training": training.facts.values(),
                "environment": environment(world, step=0),
            }
            world.main_first(lambda: self._finish(unfinished, profiler, report))
        return {"profile": str(self.folder / PROFILE_FILE), "trace": str(self.folder / TRACE_FILE), **report}

    def _begin(self, stack: ExitStack) -> Path:
        """Make a folder beside the profile's, which goes when the stack is left."""
        try:
            if (self.folder / "recipe.yaml").exists() or (self.folder.exists() and not self.folder.is_dir()):
                raise OutputError(
                    f"{self.folder} is the place of the profile, and something else is there",
                    hint="name another run with --run",
                )
            if self.folder.exists() and not os.access(self.folder, os.W_OK):
                raise OutputError(f"{self.folder} cannot be written", hint="name another run with --run")
            return stack.enter_context(scratch_folder(self.folder))
        except OSError as exc:
            raise OutputError(
                f"{self.folder} cannot be written: {exc.strerror}", hint="name another run with --run"
            ) from exc

    def _finish(self, unfinished: Path, profiler: Profiler, report: Mapping[str, Any]) -> None:
        """Write both files, then give them their names."""
        try:
            profiler.write_trace(unfinished / TRACE_FILE)
            (unfinished / PROFILE_FILE).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
            self.folder.mkdir(exist_ok=True)
            for name in (TRACE_FILE, PROFILE_FILE):
                os.replace(unfinished / name, self.folder / name)
        except OSError as exc:
            raise OutputError(f"{self.folder} cannot be written: {exc.strerror}") from exc


def profile_folder(run: Path) -> Path:
    """Beside the run's folder, `-profile` after its name: a run can still begin, go on or be there."""
    named = run if run.name not in ("", "..") else run.resolve()
    return named.parent / f"{named.name}-profile"
