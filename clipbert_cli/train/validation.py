"""The scores and losses of the validation split, and which checkpoint is the best one."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from torch import Tensor

from clipbert_cli.errors import RunError
from clipbert_cli.foreign import excerpt
from clipbert_cli.runtime.distributed import World
from clipbert_cli.task.base import Task
from clipbert_cli.types import Batch, Outputs


class ValidationLosses:
    """The mean losses over the examples of a validation, with the clips of validation; call it with each batch."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._sums: dict[str, Tensor | float] = {}
        self._count = 0

    def __call__(self, outputs: Outputs, batch: Batch) -> None:
        losses, count = self._task.validation_losses(outputs, batch)
        for name, loss in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + loss.double() * count
        self._count += count

    def means(self, world: World) -> dict[str, float]:
        """Return `loss` and `NAME_loss` of its parts, over the examples of all processes; nothing without examples."""
        sums: Counter[str] = Counter()
        counts = 0
        for part, count in world.gather(({name: float(value) for name, value in self._sums.items()}, self._count)):
            sums.update(part)
            counts += count
        return {name if name == "loss" else f"{name}_loss": total / counts for name, total in sums.items()}


class BestCheckpoint:
    """The best and the last scores so far, each {"step", ...metrics}; both are empty before the first validation.

    Args:
        metric: name of the metric that decides, with `-` before it if less is better. `metric_name` has no sign.
    """

    def __init__(self, metric: str) -> None:
        self.metric, self.metric_name = metric, metric.removeprefix("-")
        self.best: dict[str, Any] = {}
        self.last: dict[str, Any] = {}
        self._most = -math.inf

    def update(self, scores: dict[str, Any]) -> bool:
        """Add the scores of one validation, and return whether they are the best. The first of equal ones is the best.

        Raises:
            RunError: the scores of a run hold something else than a number. That a validation gives this number is
                checked before any training (`contradictions.py`).
        """
        self.last = scores
        value = scores.get(self.metric_name)
        if not isinstance(value, int | float):
            raise RunError(
                f"a score that the run has saved is no number: {self.metric_name} is {excerpt(repr(value))}",
                hint="the run's files have been changed: restore them, or begin a new run",
            )
        value = -value if self.metric.startswith("-") else value
        if self.best and value <= self._most:
            return False
        self.best, self._most = scores, value
        return True
