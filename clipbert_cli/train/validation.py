"""The scores of the validation split, and which checkpoint is the best one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clipbert_cli.errors import RecipeError


class BestCheckpoint:
    """The best and the last scores so far, each {"step", ...metrics}; both are empty before the first validation.

    Args:
        metric: name of the metric that decides, with `-` before it if less is better.
    """

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self.best: dict[str, Any] = {}
        self.last: dict[str, Any] = {}

    @property
    def metric_name(self) -> str:
        """The metric's name without the sign, a key of the scores."""
        return self.metric.removeprefix("-")

    def update(self, scores: dict[str, Any]) -> bool:
        """Add the scores of one validation, and return whether they are the best. Of equal ones the first is the best.

        Raises:
            RecipeError: the scores lack the metric.
        """
        self.last = scores
        value = metric_value(scores, self.metric)
        if self.best and value <= metric_value(self.best, self.metric):
            return False
        self.best = scores
        return True


def metric_value(scores: Mapping[str, Any], metric: str) -> float:
    """Return the number that decides which checkpoint is best: more is better, negated if `-` is before the name.

    Raises:
        RecipeError: validation gives no such number.
    """
    value = scores.get(metric.removeprefix("-"))
    if not isinstance(value, int | float):
        known = [key for key, each in scores.items() if isinstance(each, int | float) and key != "step"]
        raise RecipeError(
            f"train.best_metric is {metric!r}, but must be one of {', '.join(known)}",
            hint="name one of these, with - before it if less is better",
        )
    return -value if metric.startswith("-") else value
