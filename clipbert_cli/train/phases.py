"""The phases of a training step, which the loop announces to a profiler.

data ─► copy ─► forward ─► backward ─► optimizer       communication: sums over processes, inside any of them
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

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


Announce = Callable[[Phase], AbstractContextManager[object]]
"""Gives the context of a phase. The time of an inner phase does not count for the outer one."""

_NOTHING = nullcontext()


def unnoticed(_name: Phase) -> AbstractContextManager[object]:
    """Return the context of a phase that nothing measures."""
    return _NOTHING
