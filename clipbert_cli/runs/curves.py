"""The numbers of `metrics.jsonl` as curves over the steps, of one run or of several."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Records = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Curve:
    """One number of one run over the steps."""

    run: str
    name: str
    steps: list[int]
    values: list[float]


@dataclass(frozen=True)
class Panel:
    """Curves of the same unit, which are drawn over each other."""

    title: str
    curves: list[Curve]


# Numbers of `train` records by panel. Losses of a task, such as `mlm`, are further numbers of the first panel.
_TRAINING = {
    "learning rate": ("learning_rate", "visual_learning_rate"),
    "gradient norm": ("grad_norm",),
    "time spent waiting for data": ("data_wait",),
    "examples per second": ("examples_per_second",),
    "peak memory in MiB": ("peak_memory_mib",),
    "skipped steps": ("skipped_steps",),
}
_NO_LOSS = {"step", "epoch", *(name for names in _TRAINING.values() for name in names)}


def panels(runs: Mapping[str, Records]) -> list[Panel]:
    """Return what can be drawn: losses, rates, validation scores, and how training went; empty panels are left out.

    Args:
        runs: the records of each run by the name under which its curves are shown.
    """
    found: dict[str, dict[tuple[str, str], Curve]] = {}
    for run, records in runs.items():
        for record in records:
            for title, name, value in _numbers(record):
                curve = found.setdefault(title, {}).setdefault((run, name), Curve(run, name, [], []))
                curve.steps.append(record["step"])
                curve.values.append(value)
    drawn = [Panel(title, list(found[title].values())) for title in _order(found)]
    # A panel that says that no step was skipped says nothing.
    return [each for each in drawn if each.title != "skipped steps" or any(any(curve.values) for curve in each.curves)]


def _order(found: Mapping[str, Any]) -> list[str]:
    """Return the titles in the order of the page: losses, then scores, then the rest."""
    titles = ["loss", "validation score", "validation rank", *_TRAINING]
    return [title for title in titles if title in found]


def _numbers(record: Mapping[str, Any]) -> Iterator[tuple[str, str, float]]:
    """Yield (panel, curve, value) of a record."""
    event, is_sound = record.get("event"), isinstance(record.get("step"), int)
    if not is_sound or event not in ("train", "validation"):
        return
    place = _training_panel if event == "train" else _validation_panel
    for name, value in record.items():
        title = place(name)
        if title and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield title, name if event == "train" else f"validation {name.replace('_', ' ')}", value


def _training_panel(name: str) -> str | None:
    titles = [title for title, names in _TRAINING.items() if name in names]
    return titles[0] if titles else None if name in _NO_LOSS else "loss"


def _validation_panel(name: str) -> str | None:
    # How many examples and words were scored is the same in every validation.
    if name in ("step", "count", "masked_words", "missing"):
        return None
    if name.endswith("loss"):
        return "loss"
    return "validation rank" if name.endswith("rank") else "validation score"
