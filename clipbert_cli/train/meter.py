"""What is measured between two log records: mean losses, speed, waiting for data, memory."""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Window:
    """Sums since the last log record. Values stay on the device until `close`, so that steps do not wait for it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._reset()

    def _reset(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._steps = 0
        self.start()

    def start(self) -> None:
        """Start the clock; sums are kept."""
        self._examples = 0
        self._begin = time.perf_counter()
        self.data_seconds = 0.0

    def add(self, losses: Mapping[str, Tensor], norm: Tensor, *, examples: int) -> None:
        """Book one update."""
        for name, value in {**losses, "grad_norm": norm}.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._steps += 1
        self._examples += examples

    def close(self) -> dict[str, Any]:
        """Means over the window's updates (no loss if all were skipped), examples a second, share of data waits."""
        means: dict[str, Any] = {name: (total / self._steps).item() for name, total in self._sums.items()}
        seconds = time.perf_counter() - self._begin
        speed = {"examples_per_second": self._examples / seconds, "data_wait": self.data_seconds / seconds}
        self._reset()
        return {"loss": None, **means, **speed}

    def state_dict(self) -> dict[str, Any]:
        """Sums and their number; clocks start anew."""
        return {"sums": dict(self._sums), "steps": self._steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._sums = {name: value.to(self.device) for name, value in state["sums"].items()}
        self._steps = state["steps"]


def peak_memory(device: torch.device) -> int:
    """The most memory this process has used so far in MiB: of the GPU it computes on, or of the machine."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) // 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**10
