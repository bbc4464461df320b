"""Metrics of finished predictions in the units of the literature, and the values of examples that give them.

Shares are percentages. The values give intervals and comparisons of two systems. Needs no torch.

Legend: N texts, M media items.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
        values, sizes = self.sample.values, self.sample.sizes
        if self.is_median:
            return self.scale * float(np.median(values)) if len(values) else 0.0
        count = len(values) if sizes is None else float(sizes.sum())
        return self.scale * float(values.sum()) / count if count else 0.0

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


# The ranks at which papers on retrieval report recall.
RECALLS = (1, 5, 10)

# --------------------------------------------------------------------------------------------------------- accuracy


def accuracy_measures(credits: Sequence[float], types: Sequence[str | None], media: Sequence[str]) -> list[Measure]:
    """Return the mean of `credits` over all examples, and per answer type in alphabetical order, as values of examples.

    Examples without a type count in the overall accuracy only.

    Args:
        credits: 1 right, 0 wrong, or a soft score between.
        media: the media item of each example.
    """
    measures = [Measure("accuracy", "accuracy %", Sample(credits, media))]
    for kind in sorted({kind for kind in types if kind is not None}):
        own = [place for place, each in enumerate(types) if each == kind]
        sample = Sample([credits[place] for place in own], [media[place] for place in own])
        measures.append(Measure(f"by_type/{kind}", f"{kind} %", sample))
    return measures


def accuracy_table(
    heading: str, rows: Iterable[tuple[str, str, float, int]], intervals: Mapping[str, Interval | None]
) -> list[tuple[str, ...]]:
    """Return accuracies as rows of text, headings first.

    Args:
        heading: what the labels are.
        rows: (label, name of the measure, accuracy in percent, how many values it is the mean of).
        intervals: by the names of the measures.
    """
    return [
        (heading, "accuracy %", "95 % interval", "count"),
        *((label, f"{mean:.1f}", interval_text(intervals[name]), str(n)) for label, name, mean, n in rows),
    ]


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
        Measure(f"{prefix}median_rank", f"{direction}, median rank", sample, 1.0, True, True),
        Measure(f"{prefix}mean_rank", f"{direction}, mean rank", sample, 1.0, False, True),
    ]


def recall_table(metrics: Mapping[str, Any], intervals: Mapping[str, Interval | None]) -> list[tuple[str, ...]]:
    """Return the score of retrieval as rows of text, headings first.

    Args:
        intervals: by the names of `rank_measures`; each direction has a second row for them.
    """
    names = (*(f"recall_at_{k}" for k in RECALLS), "median_rank", "mean_rank")
    rows: list[tuple[str, ...]] = []
    for direction, prefix, summary in (
        ("text to video", "", metrics),
        ("video to text", "video_to_text/", metrics["video_to_text"]),
    ):
        rows.append((direction, *(f"{summary[name]:.1f}" for name in names), str(summary["count"])))
        rows.append(("  95 % interval", *(interval_text(intervals[f"{prefix}{name}"]) for name in names), ""))
    return [("direction", *(f"R@{k} %" for k in RECALLS), "median rank", "mean rank", "count"), *rows]
