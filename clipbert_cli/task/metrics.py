"""Metrics of finished predictions in the units of the literature, and the values of examples that give them.

Shares are percentages. The values give intervals and comparisons of two systems. Needs no torch.

Legend: N texts, M media items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from clipbert_cli.task.intervals import (
    Interval,
    Resampling,
    Sample,
    Statistic,
    difference,
    mcnemar,
    percentile_interval,
    share_interval,
)


@dataclass(frozen=True)
class Measure:
    """One number of a score: the mean or median rank of its values, or the percentage of them that is right.

    Args:
        name: its key in the score; a `/` leads into an inner object, as in `video_to_text/recall_at_1`.
        label: how tables name it.
    """

    name: str
    label: str
    sample: Sample
    kind: Literal["share", "mean rank", "median rank"] = "share"

    @property
    def scale(self) -> float:
        """The factor from values to the number."""
        return 100.0 if self.kind == "share" else 1.0

    @property
    def statistic(self) -> Statistic:
        return Sample.medians if self.kind == "median rank" else Sample.means

    @property
    def value(self) -> float:
        """The number itself; 0 if nothing is counted."""
        values, sizes = self.sample.values, self.sample.sizes
        count = len(values) if sizes is None else float(sizes.sum())
        if not count:
            return 0.0
        return float(np.median(values)) if self.kind == "median rank" else self.scale * float(values.sum()) / count

    def interval(self, resampling: Resampling) -> Interval | None:
        """Return the 95 % interval, None if the media items are too few for one."""
        if self.kind == "share":
            return self._scaled(share_interval(self.sample, resampling))
        return percentile_interval(self.sample, self.statistic, resampling)

    def compare(self, other: Measure, resampling: Resampling) -> Comparison:
        """Compare this number with the same one of another system, on the same examples in the same order."""
        assert self.name == other.name
        one, two = self.sample, other.sample
        found = difference(one, two, self.statistic, resampling)
        gain = one.values - two.values if self.kind == "share" else two.values - one.values
        wins, losses = int((gain > 0).sum()), int((gain < 0).sum())
        # Ranks, counts of words and answers that can be right to a degree are no hits.
        are_hits = self.kind == "share" and one.sizes is None
        are_hits = are_hits and bool(np.isin([one.values, two.values], (0.0, 1.0)).all())
        return Comparison(
            label=self.label,
            score=self.value,
            against=other.value,
            difference=self.scale * found.value,
            interval=self._scaled(found.interval),
            p=found.p,
            wins=wins,
            losses=losses,
            ties=len(gain) - wins - losses,
            mcnemar=mcnemar(wins, losses) if are_hits else None,
        )

    def _scaled(self, interval: Interval | None) -> Interval | None:
        return None if interval is None else (self.scale * interval[0], self.scale * interval[1])


@dataclass(frozen=True)
class Comparison:
    """One number of two systems on the same examples: the difference of the first to the second.

    Args:
        score, against: of the first and of the second system.
        p: of the paired bootstrap, two-sided.
        wins, losses, ties: examples on which the first system is better, worse, and as good.
        mcnemar: p of McNemar's exact test; None if examples can be right to a degree.
    """

    label: str
    score: float
    against: float
    difference: float
    interval: Interval | None
    p: float
    wins: int
    losses: int
    ties: int
    mcnemar: float | None


def compare(first: Sequence[Measure], second: Sequence[Measure], resampling: Resampling) -> dict[str, Comparison]:
    """Compare two systems by each measure; both must be of the same examples in the same order."""
    return {one.name: one.compare(other, resampling) for one, other in zip(first, second, strict=True)}


# -------------------------------------------------------------------------------------------------------- tables


Table = list[tuple[str, ...]]
"""Rows of text, headings first."""


def score_table(measures: Sequence[Measure], intervals: Mapping[str, Interval | None]) -> Table:
    """Return one row per measure, with the number of examples that it is of."""
    return [
        ("measure", "score", "95 % interval", "count"),
        *(
            (each.label, f"{each.value:.1f}", _ends(intervals[each.name]), f"{len(each.sample.values):,}")
            for each in measures
        ),
    ]


def comparison_tables(comparisons: Mapping[str, Comparison]) -> list[Table]:
    """Return two tables: the differences, and how many examples make them."""
    differences: Table = [("measure", "score", "against", "difference", "95 % interval", "p")]
    counts: Table = [("measure", "wins", "losses", "ties", "McNemar p")]
    for each in comparisons.values():
        numbers = (f"{each.score:.1f}", f"{each.against:.1f}", f"{each.difference:+.1f}")
        differences.append((each.label, *numbers, _ends(each.interval), _p(each.p)))
        exact = "-" if each.mcnemar is None else _p(each.mcnemar)
        counts.append((each.label, str(each.wins), str(each.losses), str(each.ties), exact))
    return [differences, counts]


def _ends(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval[0]:.1f} to {interval[1]:.1f}"


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


# The ranks at which papers on retrieval report recall.
RECALLS = (1, 5, 10)

# -------------------------------------------------------------------------------------------------------- retrieval


def ranks(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the rank of each row's right entry when the row is sorted from the largest score; the best rank is 1.

    The lower index ranks first among equal scores, as in a stable sort. Counting the larger scores gives the
    rank without sorting the row.

    Args:
        scores: (rows, entries) of finite numbers.
        right: (rows,) indices of the right entries.

    Returns:
        (rows,) int64.
    """
    # One pass over the scores is cheaper than sorting each row.
    own = scores[np.arange(len(scores)), right][:, None]  # (rows, 1)
    before = np.arange(scores.shape[1])[None] < right[:, None]  # (rows, entries)
    result: np.ndarray = 1 + (scores > own).sum(axis=1) + ((scores == own) & before).sum(axis=1)
    return result


def text_and_media_ranks(
    scores: np.ndarray, media_of_text: Sequence[int], *, one_text_per_media: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rank of each text's media item (N,), and the rank of each media item's text (M,).

    A text is right for the media item that it belongs to. A media item with several texts counts with the rank of its
    best text; with `one_text_per_media` with that of its last text, as in the original.

    Args:
        scores: (N, M).
        media_of_text: the media item, 0..M-1, of each text; every item has at least one.
    """
    owner = np.asarray(media_of_text)
    texts_of: list[list[int]] = [[] for _ in range(scores.shape[1])]
    for text, media in enumerate(media_of_text):
        texts_of[media].append(text)
    # From media to text each item counts once, by one text: the original takes the last one that it read.
    counted = [
        texts[-1] if one_text_per_media else texts[int(np.argmax(scores[texts, media]))]
        for media, texts in enumerate(texts_of)
    ]
    return ranks(scores, owner), ranks(scores.T, np.asarray(counted))


def rank_measures(found: np.ndarray, media: Sequence[str], *, prefix: str, direction: str) -> list[Measure]:
    """Return recall in percent at 1, 5 and 10, median and mean of ranks as values of texts or media items.

    The median of an even number of ranks is the mean of the two in the middle.

    Args:
        found: ranks, counted from 1.
        media: the media item that each rank belongs to.
        prefix: what comes before the names.
        direction: such as `text to video`, for tables.
    """
    hits = [Measure(f"{prefix}recall_at_{k}", f"{direction}, R@{k} %", Sample(found <= k, media)) for k in RECALLS]
    sample = Sample(found, media)
    return [
        *hits,
        Measure(f"{prefix}median_rank", f"{direction}, median rank", sample, "median rank"),
        Measure(f"{prefix}mean_rank", f"{direction}, mean rank", sample, "mean rank"),
    ]
