"""Metrics of finished predictions in the units of the literature: shares are percentages. Needs no torch.

Legend: N texts, M media items.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from clipbert_cli.task.intervals import Interval, Sample
from clipbert_cli.task.measures import Measure, interval_text

# The ranks at which papers on retrieval report recall.
RECALLS = (1, 5, 10)

# --------------------------------------------------------------------------------------------------------- accuracy


def accuracy_by_type(credits: Sequence[float], types: Sequence[str | None]) -> dict[str, Any]:
    """Return the mean of `credits` (1 right, 0 wrong, or a soft score between) over all examples and per answer type.

    Returns:
        {"accuracy": percent, "count": examples, "by_type": {type: {"accuracy": percent, "count": examples}}}.
        The types are in alphabetical order. Examples without a type count in the overall accuracy only. Percentages are
        not rounded, and 0.0 if there is nothing to average.
    """
    of_type: dict[str, list[float]] = {}
    for value, kind in zip(credits, types, strict=True):
        if kind is not None:
            of_type.setdefault(kind, []).append(value)
    return {
        "accuracy": _mean_percent(credits),
        "count": len(credits),
        "by_type": {
            kind: {"accuracy": _mean_percent(of_type[kind]), "count": len(of_type[kind])} for kind in sorted(of_type)
        },
    }


def _mean_percent(values: Sequence[float]) -> float:
    return 100 * sum(values) / len(values) if values else 0.0


def accuracy_measures(credits: Sequence[float], types: Sequence[str | None], media: Sequence[str]) -> list[Measure]:
    """Return the numbers of `accuracy_by_type` as values of examples.

    Args:
        media: the media item of each example.
    """
    measures = [Measure("accuracy", "accuracy %", Sample(credits, media))]
    for kind in sorted({kind for kind in types if kind is not None}):
        own = [place for place, each in enumerate(types) if each == kind]
        sample = Sample([credits[place] for place in own], [media[place] for place in own])
        measures.append(Measure(f"by_type/{kind}", f"{kind} %", sample))
    return measures


def accuracy_table(
    heading: str, rows: Iterable[tuple[str, str, float, int]], intervals: Mapping[str, Interval | None] | None
) -> list[tuple[str, ...]]:
    """Return accuracies as rows of text, headings first.

    Args:
        heading: what the labels are.
        rows: (label, name of the measure, accuracy in percent, how many values it is the mean of).
        intervals: by the names of the measures; without them there is no such column.
    """
    if intervals is None:
        return [(heading, "accuracy %", "count"), *((label, f"{mean:.1f}", str(n)) for label, _, mean, n in rows)]
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


def rank_summary(found: np.ndarray) -> dict[str, Any]:
    """Summarise ranks, counted from 1: recall in percent at 1, 5 and 10, median and mean rank, and their count.

    The median of an even number of ranks is the mean of the two in the middle.
    """
    recalls = {f"recall_at_{k}": 100 * float(np.mean(found <= k)) for k in RECALLS}
    return {
        **recalls,
        "median_rank": float(np.median(found)),
        "mean_rank": float(np.mean(found)),
        "count": len(found),
    }


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


def retrieval_metrics(
    scores: np.ndarray, media_of_text: Sequence[int], *, one_text_per_media: bool = False
) -> dict[str, Any]:
    """Return the retrieval metrics from text to media and from media to text.

    Args:
        as `text_and_media_ranks`.

    Returns:
        The `rank_summary` from text to media, and under `video_to_text` the one from media to text.
    """
    of_texts, of_media = text_and_media_ranks(scores, media_of_text, one_text_per_media=one_text_per_media)
    return {**rank_summary(of_texts), "video_to_text": rank_summary(of_media)}


def rank_measures(found: np.ndarray, media: Sequence[str], *, prefix: str, direction: str) -> list[Measure]:
    """Return the numbers of `rank_summary` as values of texts or media items.

    Args:
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


def recall_table(
    metrics: Mapping[str, Any], intervals: Mapping[str, Interval | None] | None = None
) -> list[tuple[str, ...]]:
    """Return the result of `retrieval_metrics` as rows of text, headings first.

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
        if intervals is not None:
            rows.append(("  95 % interval", *(interval_text(intervals[f"{prefix}{name}"]) for name in names), ""))
    return [("direction", *(f"R@{k} %" for k in RECALLS), "median rank", "mean rank", "count"), *rows]
