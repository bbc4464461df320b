"""The parts of a training step, by name, and who listens when the loop goes from one to the next.

data ─► copy ─► forward ─► backward ─► optimizer       communication: sums over the processes, wherever they happen
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal, Protocol

Phase = Literal["data", "copy", "forward", "backward", "communication", "optimizer"]

PHASES: dict[Phase, str] = {
    "data": "waiting for the next batch",
    "copy": "to the device, where computing waits",
    "forward": "forward passes and loss",
    "backward": "backward passes",
    "communication": "sums over processes, where computing waits",
    "optimizer": "unscaling, clipping, update, moving average",
}
"""Every part with what it is, in the order of a step."""


class Phases(Protocol):
    """Is told what the loop does. A phase within another one interrupts it."""

    def phase(self, name: Phase) -> AbstractContextManager[object]: ...


class NullPhases:
    """Nobody listens."""

    _nothing = nullcontext()

    def phase(self, name: Phase) -> AbstractContextManager[object]:
        return self._nothing
