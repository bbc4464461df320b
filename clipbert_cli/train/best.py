"""What validation said so far, and which checkpoint is the best by it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clipbert_cli.errors import RecipeError


def metric_value(scores: Mapping[str, Any], metric: str) -> float:
    """The number that decides which checkpoint is best: more is better, unless `-` stands before the name.

    Raises:
        RecipeError: validation gives no such number.
    """
    name = metric.removeprefix("-")
    value = scores.get(name)
    if not isinstance(value, int | float):
        known = [key for key, each in scores.items() if isinstance(each, int | float) and key != "step"]
        raise RecipeError(
            f"train.best_metric is {metric!r}: validation gives {', '.join(known)}",
            hint="name one of these, with - before it where less is better",
        )
    return -value if metric.startswith("-") else value


class BestCheckpoint:
    """The best and the last scores, each {"step", ...metrics}; empty before the first validation.

    Args:
        metric: the one that decides, with `-` before it where less is better.
    """

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self.best: dict[str, Any] = {}
        self.last: dict[str, Any] = {}

    def update(self, scores: dict[str, Any]) -> bool:
        """Take in a validation's scores; whether they are the best so far, which an equal one is not.

        Raises:
            RecipeError: they lack the metric.
        """
        self.last = scores
        value = metric_value(scores, self.metric)
        if self.best and value <= metric_value(self.best, self.metric):
            return False
        self.best = scores
        return True
