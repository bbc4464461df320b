"""The numbers of a score as values of examples: what intervals and comparisons of two systems are computed from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clipbert_cli.task.intervals import (
    Interval,
    Resampling,
    Sample,
    mcnemar,
    mean_difference,
    mean_interval,
    median_difference,
    median_interval,
    share_interval,
)


@dataclass(frozen=True)
class Measure:
    """One number of a score.

    Args:
        name: its key in the score; a `/` leads into an inner object, as in `video_to_text/recall_at_1`.
        label: how tables name it.
        scale: what its values are multiplied by, 100 for percentages.
        is_median: the median of the values and not their mean.
        less_is_better: as for ranks.
    """

    name: str
    label: str
    sample: Sample
    scale: float = 100.0
    is_median: bool = False
    less_is_better: bool = False

    @property
    def value(self) -> float:
        """The number itself."""
        once = np.ones((1, self.sample.items), dtype=np.int64)
        statistic = self.sample.medians if self.is_median else self.sample.means
        return self.scale * float(statistic(once)[0]) if self.sample.items else 0.0

    def interval(self, resampling: Resampling) -> Interval | None:
        """Return the 95 % interval, None if the media items are too few for one."""
        of_ranks = median_interval if self.is_median else mean_interval
        found = (of_ranks if self.less_is_better else share_interval)(self.sample, resampling)
        return None if found is None else (self.scale * found[0], self.scale * found[1])


@dataclass(frozen=True)
class Comparison:
    """One number of two systems on the same examples: the difference of the first to the second.

    Args:
        p: of the paired bootstrap, two-sided.
        wins, losses, ties: examples on which the first system is better, worse, and as good.
        mcnemar: p of McNemar's exact test; None if examples can be right to a degree.
    """

    label: str
    first: float
    second: float
    difference: float
    interval: Interval | None
    p: float
    wins: int
    losses: int
    ties: int
    mcnemar: float | None


def intervals_of(measures: Sequence[Measure], resampling: Resampling) -> dict[str, Interval | None]:
    """Return the interval of each measure by its name."""
    return {measure.name: measure.interval(resampling) for measure in measures}


def compare(first: Sequence[Measure], second: Sequence[Measure], resampling: Resampling) -> dict[str, Comparison]:
    """Compare two systems by each measure; both must be of the same examples in the same order."""
    return {one.name: _compare(one, other, resampling) for one, other in zip(first, second, strict=True)}


def _compare(first: Measure, second: Measure, resampling: Resampling) -> Comparison:
    assert first.name == second.name
    scale, one, other = first.scale, first.sample, second.sample
    found = (median_difference if first.is_median else mean_difference)(one, other, resampling)
    gain = (other.values - one.values) if first.less_is_better else (one.values - other.values)
    wins, losses = int((gain > 0).sum()), int((gain < 0).sum())
    # Ranks, counts of words and answers that can be right to a degree are no hits.
    is_hit = one.sizes is None and not first.less_is_better
    is_hit = is_hit and bool(np.isin([one.values, other.values], (0.0, 1.0)).all())
    return Comparison(
        label=first.label,
        first=first.value,
        second=second.value,
        difference=scale * found.value,
        interval=None if found.interval is None else (scale * found.interval[0], scale * found.interval[1]),
        p=found.p,
        wins=wins,
        losses=losses,
        ties=len(gain) - wins - losses,
        mcnemar=mcnemar(wins, losses) if is_hit else None,
    )


# -------------------------------------------------------------------------------------------------------- tables


def interval_text(interval: Interval | None) -> str:
    """Return both ends of an interval with one decimal."""
    return "-" if interval is None else f"{interval[0]:.1f} to {interval[1]:.1f}"


def comparison_tables(comparisons: Mapping[str, Comparison]) -> list[list[tuple[str, ...]]]:
    """Return two tables as rows of text, headings first: the differences, and how many examples make them."""
    rows = comparisons.values()
    differences = [
        (
            each.label,
            f"{each.first:.1f}",
            f"{each.second:.1f}",
            f"{each.difference:+.1f}",
            interval_text(each.interval),
            _p(each.p),
        )
        for each in rows
    ]
    counts = [
        (each.label, *map(str, (each.wins, each.losses, each.ties)), "-" if each.mcnemar is None else _p(each.mcnemar))
        for each in rows
    ]
    return [
        [("measure", "score", "against", "difference", "95 % interval", "p"), *differences],
        [("measure", "wins", "losses", "ties", "McNemar p"), *counts],
    ]


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def as_json(comparisons: Mapping[str, Comparison]) -> dict[str, dict[str, Any]]:
    """Return the comparisons as JSON values."""
    names = ("difference", "interval", "p", "wins", "losses", "ties", "mcnemar")
    return {
        key: {"against": each.second, **{name: getattr(each, name) for name in names}}
        for key, each in comparisons.items()
    }
