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


# Number of a `train` record -> its panel; None is not drawn. All others are losses, such as `mlm` of a task.
_TRAINING = {
    "step": None,
    "epoch": None,
    "learning_rate": "learning rate",
    "visual_learning_rate": "learning rate",
    "grad_norm": "gradient norm",
    "data_wait": "time spent waiting for data",
    "examples_per_second": "examples per second",
    "peak_memory_mib": "peak memory in MiB",
    "skipped_steps": "skipped steps",
}


def panels(runs: Mapping[str, Records]) -> list[Panel]:
    """Return what can be drawn: losses, validation scores, then rates and how training went; no empty panels.

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
    titles = dict.fromkeys(("loss", "validation score", "validation rank", *filter(None, _TRAINING.values())))
    drawn = [Panel(title, list(found[title].values())) for title in titles if title in found]
    # A panel that says that no step was skipped says nothing.
    return [each for each in drawn if each.title != "skipped steps" or any(any(curve.values) for curve in each.curves)]


def _numbers(record: Mapping[str, Any]) -> Iterator[tuple[str, str, float]]:
    """Yield (panel, curve, value) of a record."""
    event, is_sound = record.get("event"), isinstance(record.get("step"), int)
    if not is_sound or event not in ("train", "validation"):
        return
    for name, value in record.items():
        title = _TRAINING.get(name, "loss") if event == "train" else _validation_panel(name)
        if title and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield title, name if event == "train" else f"validation {name.replace('_', ' ')}", value


def _validation_panel(name: str) -> str | None:
    # How many examples and words were scored is the same in every validation.
    if name in ("step", "count", "masked_words", "missing"):
        return None
    if name.endswith("loss"):
        return "loss"
    return "validation rank" if name.endswith("rank") else "validation score"
