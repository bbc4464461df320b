"""Training curves of a run as a PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clipbert_cli.errors import RunError, UsageError

# Fields of `train` records that are drawn; of `validation` records every number is.
TRAINING = ("loss", "learning_rate", "grad_norm")


def curves(records: Sequence[Mapping[str, Any]]) -> dict[str, tuple[list[int], list[float]]]:
    """Return what can be drawn: the name of each curve -> its steps and values."""
    found: dict[str, tuple[list[int], list[float]]] = {}
    for record in records:
        event = record.get("event")
        names = TRAINING if event == "train" else [name for name in record if name not in ("event", "step")]
        if event not in ("train", "validation"):
            continue
        for name in names:
            value = record.get(name)
            if isinstance(value, int | float) and not isinstance(value, bool):
                steps, values = found.setdefault(name if event == "train" else f"validation {name}", ([], []))
                steps.append(record["step"])
                values.append(value)
    return found


def plot_run(records: Sequence[Mapping[str, Any]], out: Path, *, title: str) -> None:
    """Write a PNG with one panel per curve.

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
    found = curves(records)
    if not found:
        raise RunError("metrics.jsonl has no numbers to draw yet", hint="wait for the first log record")
    # Not pyplot, which would look for a display and keep the figure in a global list.
    figure = Figure(figsize=(8, 2.4 * len(found)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    for number, (name, (steps, values)) in enumerate(found.items(), start=1):
        panel = figure.add_subplot(len(found), 1, number)
        panel.plot(steps, values, marker="o" if len(values) < 30 else None, markersize=3)
        panel.set_title(name, loc="left", fontsize=9)
        panel.grid(alpha=0.3)
        panel.set_xlabel("step" if number == len(found) else "")
    figure.savefig(out, format="png", dpi=110)
