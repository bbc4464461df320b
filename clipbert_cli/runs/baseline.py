"""The scores beside which others are shown: published ones, and that of a model that does not look at the media.

A model can answer many questions from their words alone. A score says something about looking only beside the score of
the same model with black frames, and beside that of a guess from the training records. Both are recorded with the last
validation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

CLOSE = 1.0
"""Percentage points by which a score must exceed the one with black frames, or the model is said not to look."""

LEAST_EXAMPLES = 20


def listed_scores(published: Mapping[str, float]) -> str:
    """Return published scores by metric as text, such as `recall_at_1 22.0, recall_at_5 46.8`."""
    return ", ".join(f"{metric} {value}" for metric, value in published.items())


def sentences(record: Mapping[str, Any]) -> list[str]:
    """Return one sentence per score of a record with the event `baseline`."""
    place = f"{record['split']}, step {record['step']}"
    return [f"{name} {value:.1f} {how} ({place})" for name, value, how in _scores(record)]


def blindness(record: Mapping[str, Any], scores: Mapping[str, Any]) -> str | None:
    """Return a warning if the scores of the same validation are hardly better than with black frames."""
    metric, black = record["metric"], record.get("black_frames", {})
    if metric not in black or scores[metric] - black[metric] >= CLOSE:
        return None
    # A few examples, or a model that is never right, cannot show whether it looks.
    if scores[metric] == 0 or scores.get("count", LEAST_EXAMPLES) < LEAST_EXAMPLES:
        return None
    both = f"{scores[metric]:.1f} with frames and {black[metric]:.1f} with black frames"
    return f"{metric} on {record['split']} is {both}: the model answers without looking"


def _scores(record: Mapping[str, Any]) -> Iterator[tuple[str, float, str]]:
    metric, guess = record["metric"], record.get("guess", {})
    if metric in record.get("black_frames", {}):
        yield metric, record["black_frames"][metric], "with black frames"
    if metric in guess:
        yield metric, guess[metric], f"by {guess['what']}"
