"""Scores of finished predictions. Plain numbers in, plain numbers out; no model, no tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def accuracy_by_type(correct: Sequence[float], types: Sequence[str | None]) -> dict[str, Any]:
    """Mean of `correct` (1 right, 0 wrong, or a soft score between) over all examples and over each answer type.

    Returns:
        {"accuracy": fraction, "count": examples, "by_type": {type: {"accuracy": fraction, "count": examples}}};
        types in alphabetical order; examples without a type count in the overall accuracy alone. Fractions are exact
        means, 0.0 when there is nothing to average.
    """
    of_type: dict[str, list[float]] = {}
    for value, kind in zip(correct, types, strict=True):
        if kind is not None:
            of_type.setdefault(kind, []).append(value)
    return {
        "accuracy": _mean(correct),
        "count": len(correct),
        "by_type": {kind: {"accuracy": _mean(of_type[kind]), "count": len(of_type[kind])} for kind in sorted(of_type)},
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
