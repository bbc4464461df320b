"""Charts as geometry, which `templates/charts.html` draws as SVG: lines over steps or ranks, and bars of a histogram.

Lengths are in units of the drawing, `WIDTH` x `HEIGHT`, which scales with the page.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

WIDTH, HEIGHT = 560, 240
LEFT, RIGHT, TOP, BOTTOM = 60, 12, 10, 38
# So many points are more than a screen shows. Every n-th point of longer lines is drawn.
_MOST_POINTS = 600
# About so many bars show the shape of a distribution.
_BINS = 20


@dataclass(frozen=True)
class Chart:
    """One drawing.

    Args:
        x_ticks, y_ticks: (position, text).
        lines: (series, path, dots).
        bars: (x, y, width, height, what it says).
    """

    title: str
    x_label: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: Sequence[tuple[Series, str, list[tuple[float, float]]]] = ()
    bars: Sequence[tuple[float, float, float, float, str]] = ()
    width: ClassVar[int] = WIDTH
    height: ClassVar[int] = HEIGHT
    left: ClassVar[int] = LEFT
    bottom: ClassVar[int] = HEIGHT - BOTTOM
    right: ClassVar[int] = WIDTH - RIGHT


@dataclass(frozen=True)
class Series:
    """The points of a line.

    Args:
        colour, dash: lines of one run share a colour, lines of one number share the dashes.
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    colour: int = 0
    dash: int = 0


@dataclass(frozen=True)
class _Axis:
    """Maps values to positions."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False
    least_step: float = 0.0

    def __call__(self, value: float) -> float:
        low, high, value = (math.log10(each) if self.is_log else each for each in (self.low, self.high, value))
        return round(self.start + (self.end - self.start) * (value - low) / (high - low), 2)

    def ticks(self) -> list[tuple[float, str]]:
        values = _powers(self.low, self.high) if self.is_log else _steps(self.low, self.high, least=self.least_step)
        return [(self(value), _label(value)) for value in values]


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_range: tuple[float, float] | None = None,
    log_x: bool = False,
) -> Chart:
    """Return a chart of lines; with `log_x` all x must be positive."""
    xs, ys = [x for each in series for x in each.xs], [y for each in series for y in each.ys]
    x = _Axis(*_range(xs, is_log=log_x), LEFT, WIDTH - RIGHT, log_x)
    y = _Axis(*(y_range or _range(ys)), HEIGHT - BOTTOM, TOP)
    lines = []
    for each in series:
        stride = -(-len(each.xs) // _MOST_POINTS)
        points = [(x(a), y(b)) for a, b in zip(each.xs[::stride], each.ys[::stride], strict=True)]
        path = "M" + " L".join(f"{a:g} {b:g}" for a, b in points)
        # A line of few points would not show where they are, and a single point is no line.
        lines.append((each, path, points if len(points) <= 30 else []))
    return Chart(title, x_label, x.ticks(), y.ticks(), lines)


def bar_chart(title: str, bars: Sequence[tuple[str, int]], *, x_label: str, at_edges: bool = False) -> Chart:
    """Return a chart of one bar per (label, count).

    Args:
        at_edges: a label is the least value that its bar counts, and stands at the bar's left edge.
    """
    y = _Axis(0.0, max((value for _, value in bars), default=0) or 1, HEIGHT - BOTTOM, TOP, least_step=1.0)
    pitch = (WIDTH - LEFT - RIGHT) / max(1, len(bars))
    drawn, ticks = [], []
    # Labels of narrow bars would cover each other.
    every = -(-len(bars) // 12)
    for place, (label, value) in enumerate(bars):
        left, top = LEFT + place * pitch, y(value)
        size = round(pitch * 0.8, 2), round(y(0) - top, 2)
        drawn.append((round(left + pitch * 0.1, 2), top, *size, f"{label}: {_label(value)}"))
        if place % every == 0:
            ticks.append((round(left + (0 if at_edges else pitch / 2), 2), label))
    return Chart(title, x_label, ticks, y.ticks(), bars=drawn)


def histogram(title: str, values: Sequence[float], *, x_label: str) -> Chart | None:
    """Return a chart of how often values occur; None if there is no value."""
    if not values:
        return None
    low, high = min(values), max(values)
    whole = all(float(value).is_integer() for value in values) and high - low < _BINS
    step = 1.0 if whole or high == low else _nice((high - low) / _BINS)
    found = Counter(math.floor(value / step) for value in values)
    bars = [(_label(number * step), found[number]) for number in range(min(found), max(found) + 1)]
    return bar_chart(title, bars, x_label=x_label, at_edges=not whole)


def _range(values: Sequence[float], *, is_log: bool = False) -> tuple[float, float]:
    """Return the range of an axis: that of the values, and wide enough to divide by."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if is_log:
        return low, high if high > low else low * 10
    if high > low:
        return low, high
    return (low - 0.5, low + 0.5) if low == 0 else (low - abs(low) / 2, low + abs(low) / 2)


def _steps(low: float, high: float, *, least: float) -> list[float]:
    """Return about five round numbers from `low` to `high`, which are `least` apart or more."""
    step = _nice(max((high - low) / 5, least))
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _powers(low: float, high: float) -> list[float]:
    """Return the powers of 10, and 2 and 5 times those, from `low` to `high`."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [factor * 10**power for power in powers for factor in (1, 2, 5) if low <= factor * 10**power <= high]


def _nice(step: float) -> float:
    """Return the next larger of 1, 2 and 5 times a power of 10."""
    power: float = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * (1 - 1e-9))


def _label(value: float) -> str:
    if value == 0:
        return "0"
    if abs(value) >= 10_000 or abs(value) < 0.001:
        return f"{value:.3g}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:.4g}"
