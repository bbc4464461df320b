"""The phases of a training step, and the interface through which the loop announces them to a profiler.

data ─► copy ─► forward ─► backward ─► optimizer       communication: sums over processes, inside any of them
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal, Protocol

Phase = Literal["data", "copy", "forward", "backward", "communication", "optimizer"]

# A description of each phase, in the order of a step.
PHASES: dict[Phase, str] = {
    "data": "waiting for the next batch",
    "copy": "copies to the device that computing waits for",
    "forward": "forward passes and loss",
    "backward": "backward passes and averaging over processes",
    "communication": "sums of counts and losses over processes",
    "optimizer": "unscaling, clipping, update, moving average",
}


class Phases(Protocol):
    """Receives the phases of every step. The time of an inner phase does not count for the outer one."""

    def phase(self, name: Phase) -> AbstractContextManager[object]: ...


class NullPhases:
    """Ignores all phases."""

    _nothing = nullcontext()

    def phase(self, name: Phase) -> AbstractContextManager[object]:
        return self._nothing
