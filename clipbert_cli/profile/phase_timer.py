"""The time that the training loop spends in each phase."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from clipbert_cli.train.logs import PHASES, Phase

# The time outside all phases: random seeds, learning rates, counting, logs.
OTHER = "other"


class PhaseTimer:
    """Receives a loop's phases. Every moment from the first `step` to the last belongs to one phase, or to `OTHER`.

        step      data  copy data  forward  backward      optimizer communication optimizer   step
        |--other--|-----|----|-----|--------|--------|-----|---------|-------------|-----------|--other--|

    An inner phase interrupts the outer one. With a single process the sums over processes cost nothing, and belong to
    the phase around them.
    """

    def __init__(self, device: torch.device, *, processes: int) -> None:
        self._device, self._processes = device, processes
        self._moments: list[tuple[str, Any]] = []  # the name of a phase, and the moment at which it begins or goes on
        self._steps: list[int] = []  # positions in `_moments` at which a step begins
        self._inside: str = OTHER

    def step(self) -> None:
        """Note that a step has ended, or that the first one begins."""
        self._steps.append(len(self._moments))
        self._enter(OTHER)

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        if self._processes == 1 and name == "communication":
            yield
            return
        outer = self._inside
        self._enter(name)
        try:
            yield
        finally:
            self._enter(outer)

    def _enter(self, name: str) -> None:
        self._inside = name
        self._moments.append((name, now(self._device)))

    def seconds(self) -> tuple[dict[str, float], list[float]]:
        """Return the seconds of each phase over all steps, and the seconds of each step. Both have the same sum."""
        pieces = [
            (name, elapsed(begin, end))
            for (name, begin), (_, end) in zip(self._moments, self._moments[1:], strict=False)
        ]
        spent = dict.fromkeys([*PHASES, OTHER], 0.0)
        for name, seconds in pieces[self._steps[0] : self._steps[-1]]:
            spent[name] += seconds
        bounds = zip(self._steps, self._steps[1:], strict=False)
        return spent, [sum(seconds for _, seconds in pieces[begin:end]) for begin, end in bounds]


def now(device: torch.device) -> Any:
    """Return this moment, for `elapsed`.

    On a GPU it is an event in the computing stream: the moment at which the GPU, not the CPU, arrives there. Nothing
    waits for the GPU while steps run, so copies and loading overlap with computing as they do without a profiler, and
    a phase counts as long as it keeps the stream busy or waiting.
    """
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def elapsed(begin: Any, end: Any) -> float:
    """Return the seconds between two moments; on a GPU, wait until it has passed the second one."""
    if not isinstance(begin, torch.cuda.Event):
        return float(end - begin)
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1000  # from milliseconds
