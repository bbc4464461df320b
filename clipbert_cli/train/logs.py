"""The reports of training: phases of a step, measurements between two log records, and the files that records go to.

A loop announces the phases of a step to a profiler:

data ─► copy ─► forward ─► backward ─► optimizer       communication: sums over processes, inside any of them
"""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from clipbert_cli.files import naming, without_links

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


class Meter:
    """Mean losses, speed and data waits of the steps since the last log record."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._sums: dict[str, Tensor] = {}
        self._steps = 0
        self.restart_clock()

    def restart_clock(self) -> None:
        """Measure speed from now on, so that a validation does not count as slow training. Sums are kept."""
        self._examples = 0
        self._begin = time.perf_counter()
        self.data_seconds = 0.0

    def add(self, losses: Mapping[str, Tensor], norm: Tensor, *, examples: int) -> None:
        """Add one update: its scalar losses, its gradient's norm, and its number of examples."""
        # Sums stay on the device: `item()` here would make every step wait for the GPU.
        for name, value in {**losses, "grad_norm": norm}.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._steps += 1
        self._examples += examples

    def close(self) -> dict[str, Any]:
        """Return the means over the updates added, and start anew.

        `loss` is None if no update was added. `data_wait` is the share of the time in which the loop waited for data.
        """
        means: dict[str, Any] = {name: (total / self._steps).item() for name, total in self._sums.items()}
        seconds = time.perf_counter() - self._begin
        speed = {"examples_per_second": self._examples / seconds, "data_wait": self.data_seconds / seconds}
        self._sums, self._steps = {}, 0
        self.restart_clock()
        return {"loss": None, **means, **speed}

    def state_dict(self) -> dict[str, Any]:
        """Return the sums, so that a log record's means span an interruption. Clocks are not kept."""
        return {"sums": dict(self._sums), "steps": self._steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`."""
        self._sums = {name: value.to(self.device) for name, value in state["sums"].items()}
        self._steps = state["steps"]


def peak_memory(device: torch.device) -> int:
    """Return the most memory in MiB that this process has used so far: of its GPU, or of the machine without one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) // 2**20
    # Linux counts ru_maxrss in KiB, macOS in bytes.
    unit = 2**10 if sys.platform == "darwin" else 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit // 2**10


class Sink(Protocol):
    """Receives the reports of a training: `advance` after every update, `write` for every record."""

    def advance(self, step: int) -> None:
        return

    def write(self, record: Mapping[str, Any]) -> None:
        return


class JsonLines(Sink):
    """Appends each record as one line of JSON at once, so that the file can be followed while training runs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Without a buffer: closing would write what a full disk has refused once more, and fail once more.
        self._file = open(path, "ab", buffering=0, opener=without_links)  # noqa: SIM115 - see close

    def write(self, record: Mapping[str, Any]) -> None:
        rest = (json.dumps(_finite(record), allow_nan=False) + "\n").encode()
        with naming(self._path):
            while rest:  # an unbuffered file may write less than it was given
                rest = rest[self._file.write(rest) :]

    def close(self) -> None:
        self._file.close()


def _finite(value: Any) -> Any:
    """Return the value with null for every nan and infinity, which JSON does not have (fp16 overflows produce them)."""
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
