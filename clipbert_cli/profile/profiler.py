"""A look at training steps while they run: some to warm up, some timed, one counted, some traced.

    warm_up | steps that are timed | 1 whose FLOPs are counted | 1 that warms the tracer up | TRACED

What slows the loop down comes after the steps that are timed.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule
from torch.utils.hooks import RemovableHandle

from clipbert_cli.profile.flops import flop_counter, matrix_product_rate
from clipbert_cli.profile.timeline import Timeline, clock_of
from clipbert_cli.train.loop import Trainer
from clipbert_cli.train.meter import peak_memory
from clipbert_cli.train.phases import NullPhases, Phase, Phases

TRACED = 2
"""Few, so that the file stays small."""

AFTERWARDS = 2 + TRACED
"""Steps after those that are timed."""


class Traced:
    """Phases as ranges of a trace."""

    def phase(self, name: Phase) -> AbstractContextManager[object]:
        return record_function(name)


class Profiler:
    """The trainer's phases and a sink of its loop; entered around `Trainer.train`, up to `last_step`.

    Args:
        trainer: before its first step.
        warm_up: steps before those that count; at least 1.
        steps: that are timed.
    """

    def __init__(self, trainer: Trainer, *, warm_up: int, steps: int) -> None:
        self.trainer, self.warm_up, self.steps = trainer, warm_up, steps
        self.last_step = warm_up + steps + AFTERWARDS
        self._world = trainer.world
        self._listener: Phases = NullPhases()
        self._timeline = Timeline(clock_of(self._world.device), alone=self._world.size == 1)
        self._counter = flop_counter()
        self._tracer: profile | None = None
        self._examples: dict[int, int] = {}  # after a step
        self._memory = self._skipped = 0
        self._rate = 0.0
        self._turns: dict[int, Callable[[], None]] = {
            warm_up: self._start_timing,
            warm_up + steps: self._start_counting,
            warm_up + steps + 1: self._start_tracing,
            self.last_step: self._finish,
        }
        self._stage = ExitStack()

    def __enter__(self) -> Profiler:
        self._rate = matrix_product_rate(self._world.device, self.trainer.precision.dtype)
        self.trainer.phases = self
        return self

    def __exit__(self, *_: object) -> None:
        self._stage.close()
        self.trainer.phases = NullPhases()

    def phase(self, name: Phase) -> AbstractContextManager[object]:
        """Told by the trainer."""
        return self._listener.phase(name)

    def advance(self, step: int) -> None:
        """A step is done: the next one may be looked at in another way."""
        self._examples[step] = self.trainer.examples
        if self.warm_up < step <= self.warm_up + self.steps:
            self._timeline.step()
        if step in self._turns:
            self._stage.close()
            self._turns[step]()
        elif self._tracer:
            self._tracer.step()

    def write(self, record: Mapping[str, Any]) -> None:
        pass

    def close(self) -> None:
        pass

    def _start_timing(self) -> None:
        if self._world.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._world.device)
        if self._world.size > 1:
            for parameter in self.trainer.model.parameters():
                if parameter.requires_grad:
                    self._stage.callback(_removing(parameter, self._timeline))
        self._skipped = self.trainer.skipped
        self._listener = self._timeline
        self._timeline.step()

    def _start_counting(self) -> None:
        self._memory = peak_memory(self._world.device)
        self._skipped = self.trainer.skipped - self._skipped
        self._listener = NullPhases()
        if self.trainer.config.compile:
            self._stage.enter_context(torch.compiler.set_stance("force_eager"))
        self._stage.enter_context(self._counter)

    def _start_tracing(self) -> None:
        if not self._world.is_main:
            return
        self._listener = Traced()
        kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self._world.device.type == "cuda" else [])]
        turns = schedule(wait=0, warmup=1, active=TRACED, repeat=1)
        self._tracer = self._stage.enter_context(profile(activities=kinds, schedule=turns))

    def _finish(self) -> None:
        self._listener = NullPhases()

    def write_trace(self, file: Path) -> None:
        """The traced steps as a Chrome trace, packed where the name ends with .gz. For the main process alone."""
        assert self._tracer
        self._tracer.export_chrome_trace(str(file))

    def report(self) -> dict[str, Any]:
        """What was measured. Times are the main process's; FLOPs and the machine's rate are sums over all processes.

        Every process must call this, after `last_step`.
        """
        spent, each = self._timeline.seconds()
        whole = sum(each)
        counted = self.warm_up + self.steps + 1
        examples = (self._examples[counted - 1] - self._examples[self.warm_up]) / self.steps
        # A step at an epoch's end is smaller: the counted one stands for the others by its examples.
        share = examples / max(1, self._examples[counted] - self._examples[counted - 1])
        own = (self._counter.get_total_flops() * share, self._rate, self._memory, spent["data"] / self.steps)
        flops, rates, memory, waits = zip(*self._world.gather(own), strict=True)
        done = sum(flops) * self.steps / whole
        return {
            "processes": self._world.size,
            "precision": self.trainer.precision.name,
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


def _removing(parameter: torch.nn.Parameter, timeline: Timeline) -> Callable[[], None]:
    """Tell the timeline of every gradient of the parameter; what ends that."""
    handle: RemovableHandle = parameter.register_post_accumulate_grad_hook(lambda _: timeline.gradient())
    return handle.remove
