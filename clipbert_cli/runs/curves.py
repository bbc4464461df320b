"""The numbers of `metrics.jsonl` as curves over the steps, of one run or of several, and a PNG of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from clipbert_cli.errors import RunError, UsageError
from clipbert_cli.printable import printable

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

# How the machine fared is in the report; a picture shows how the training did.
DRAWN = ("loss", "validation score", "validation rank", "learning rate", "gradient norm")
STYLES = ("-", "--", ":", "-.")


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


def plot_runs(runs: Mapping[str, Records], out: IO[bytes]) -> None:
    """Write a PNG with one panel per unit. A run has one colour, and each of its curves in a panel another line style.

    Raises:
        UsageError: matplotlib is not installed.
        RunError: there is no number to draw yet.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as exc:
        raise UsageError(
            "clipbert runs plot needs matplotlib, which is not installed", hint="pip install 'clipbert[plot]'"
        ) from exc
    found = [panel for panel in panels(runs) if panel.title in DRAWN]
    if not found:
        raise RunError(
            f"{', '.join(runs)}: metrics.jsonl has no numbers to draw yet", hint="wait for the first log record"
        )
    # Not pyplot, which would look for a display and keep the figure in a global list.
    figure = Figure(figsize=(8, 2.4 * len(found)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(_plain(" and ".join(runs)))
    names = list(runs)
    for number, panel in enumerate(found, start=1):
        axes = figure.add_subplot(len(found), 1, number)
        numbers = list(dict.fromkeys(curve.name for curve in panel.curves))
        for curve in panel.curves:
            axes.plot(
                curve.steps,
                curve.values,
                STYLES[numbers.index(curve.name) % len(STYLES)],
                color=f"C{names.index(curve.run)}",
                marker="o" if len(curve.values) < 30 else None,
                markersize=3,
                label=_plain(f"{curve.run}: {curve.name}" if len(runs) > 1 else curve.name),
            )
        axes.set_title(panel.title, loc="left", fontsize=9)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
        axes.set_xlabel("step" if number == len(found) else "")
    figure.savefig(out, format="png", dpi=110)


def _plain(text: str) -> str:
    """Return text that matplotlib shows as it is: two dollar signs would begin a formula, bytes are not drawn."""
    return printable(text).replace("$", r"\$")
