"""Where a step's time goes: moments at which the loop passed from one phase to the next."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch

from clipbert_cli.train.phases import PHASES, Phase

OTHER = "other"
"""What is in no phase: random seeds, learning rates, counting, logs."""


class Clock(Protocol):
    """Takes moments, and tells the seconds between two of them once they are past."""

    def now(self) -> Any: ...

    def seconds(self, begin: Any, end: Any) -> float: ...


class HostClock:
    """For devices whose work is done when the call returns."""

    def now(self) -> float:
        return time.perf_counter()

    def seconds(self, begin: float, end: float) -> float:
        return end - begin


class StreamClock:
    """The time at which a GPU's computing stream passes an event that was put between the kernels.

    Nothing waits for the device while steps run, so that copies, sums over processes and loading overlap with computing
    as they do in training; a phase is charged with what of it held the stream up. Only reading waits.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.current_stream(device)

    def now(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(self._stream)
        return event

    def seconds(self, begin: torch.cuda.Event, end: torch.cuda.Event) -> float:
        end.synchronize()
        milliseconds: float = begin.elapsed_time(end)
        return milliseconds / 1000


def clock_of(device: torch.device) -> Clock:
    """The clock that is true for a device."""
    return StreamClock(device) if device.type == "cuda" else HostClock()


class Timeline:
    """Listens to a loop's phases. Every moment from the first `step` to the last one belongs to exactly one phase, or
    to `OTHER`; one that interrupts another takes its time from it.

        step      data  copy data  forward  backward      optimizer communication optimizer   step
        |--other--|-----|----|-----|--------|--------|-----|---------|-------------|-----------|--other--|
                                                     communication: from the last gradient on

    Args:
        alone: there is one process: nothing is communicated.
    """

    def __init__(self, clock: Clock, *, alone: bool) -> None:
        self._clock, self._alone = clock, alone
        self._moments: list[tuple[str, Any]] = []  # what begins, when
        self._steps: list[int] = []  # which moments begin a step
        self._inside: str = OTHER
        self._gradient: Any = None

    def step(self) -> None:
        """A step is over, or the first one begins."""
        self._steps.append(len(self._moments))
        self._begin(OTHER)

    def gradient(self) -> None:
        """A parameter's gradient is there. What of the backward pass follows the last one is waiting for the sums over
        the processes, which begin during it."""
        self._gradient = self._clock.now()

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        if self._alone and name == "communication":
            yield
            return
        outer = self._inside
        self._begin(name)
        try:
            yield
        finally:
            if name == "backward" and self._gradient is not None:
                self._moments.append(("communication", self._gradient))
                self._gradient = None
            self._begin(outer)

    def _begin(self, name: str) -> None:
        self._inside = name
        self._moments.append((name, self._clock.now()))

    def seconds(self) -> tuple[dict[str, float], list[float]]:
        """Seconds by phase over all steps, 0 for what did not happen, and seconds by step. Both have the same sum."""
        spent = dict.fromkeys([*PHASES, OTHER], 0.0)
        first, last = self._steps[0], self._steps[-1]
        pieces = [
            (name, self._clock.seconds(begin, end))
            for (name, begin), (_, end) in zip(
                self._moments[first:last], self._moments[first + 1 : last + 1], strict=True
            )
        ]
        for name, seconds in pieces:
            spent[name] += seconds
        bounds = zip(self._steps, self._steps[1:], strict=False)
        return spent, [sum(seconds for _, seconds in pieces[begin - first : end - first]) for begin, end in bounds]
