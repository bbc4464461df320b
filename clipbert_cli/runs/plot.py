"""Training curves of one run or of several as a PNG."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO

from clipbert_cli.errors import RunError, UsageError
from clipbert_cli.runs.curves import Panel, Records, panels

# How the machine fared is in the report; a picture shows how the training did.
DRAWN = ("loss", "validation score", "validation rank", "learning rate", "gradient norm")
STYLES = ("-", "--", ":", "-.")


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
        styles = _styles(panel)
        for curve in panel.curves:
            marker = "o" if len(curve.values) < 30 else None
            axes.plot(
                curve.steps,
                curve.values,
                styles[curve.name],
                color=f"C{names.index(curve.run)}",
                marker=marker,
                markersize=3,
                label=_plain(f"{curve.run}: {curve.name}" if len(runs) > 1 else curve.name),
            )
        axes.set_title(panel.title, loc="left", fontsize=9)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
        axes.set_xlabel("step" if number == len(found) else "")
    figure.savefig(out, format="png", dpi=110)


def _styles(panel: Panel) -> dict[str, str]:
    """Return the line style of each number of a panel."""
    numbers = dict.fromkeys(curve.name for curve in panel.curves)
    return {name: STYLES[place % len(STYLES)] for place, name in enumerate(numbers)}


def _plain(text: str) -> str:
    """Return text that matplotlib shows as it is: two dollar signs would begin a formula."""
    return text.replace("$", r"\$")
