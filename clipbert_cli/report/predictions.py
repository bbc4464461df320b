"""The predictions part of a report: scores, calibration or ranks, mistakes, and examples with their clips."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clipbert_cli.infer.score import Joined
from clipbert_cli.report.charts import Chart, Series, bar_chart, line_chart
from clipbert_cli.report.media_facts import most_frequent
from clipbert_cli.report.thumbnails import Thumbnails
from clipbert_cli.task.base import Task
from clipbert_cli.task.metrics import Measure
from clipbert_cli.task.retrieval import ScoreMatrix
from clipbert_cli.text.fields import RecordError
from clipbert_cli.types import Example

# This share of the shown examples are the worst ones; the others are a fair sample.
_WORST = 0.25
# Predictions of at least this score are confident.
CONFIDENT = 0.8
_RANK_BINS = ((1, 1), (2, 5), (6, 10), (11, 50), (51, 100), (101, None))


@dataclass(frozen=True)
class Judged:
    """Predictions with what they are worth, in the order of their examples.

    Args:
        measures: the numbers of their score.
        worth: 0..1; for ranked media whether the own item is first; of counts, such as masked words and matches, the
            share that is right.
        ranks: of each example's own media item; None for questions, like `matrix`.
    """

    task: Task
    joined: Joined
    measures: Sequence[Measure]
    worth: np.ndarray
    ranks: np.ndarray | None = None
    matrix: ScoreMatrix | None = None

    @classmethod
    def of(cls, task: Task, joined: Joined) -> Judged:
        """Judge each prediction by its example."""
        measures = task.measures(joined.fields, joined.examples)
        if not task.ranks_media:
            counts = [(each.sample.values, each.sample.sizes) for each in measures if each.sample.sizes is not None]
            right, total = np.sum(counts, axis=0) if counts else (measures[0].sample.values, 1.0)
            # Nothing is counted of examples whose media failed if all have failed.
            return cls(task, joined, measures, right / np.maximum(total, 1.0))
        by_name = {measure.name: measure.sample.values for measure in measures}
        matrix = ScoreMatrix.of(joined.fields, joined.examples)
        return cls(task, joined, measures, by_name["recall_at_1"], by_name["mean_rank"], matrix)

    def fields(self, place: int) -> Mapping[str, Any]:
        """Return the prediction of an example, or of its media item."""
        return self.joined.fields[self.task.key(self.joined.examples[place])]

    def has(self, name: str) -> bool:
        """Return whether any prediction has a field."""
        return any(name in fields for fields in self.joined.fields.values())

    def answer(self, place: int) -> str:
        """Return what is predicted for an example, as text: the rank of ranked media; nothing if its media failed."""
        if self.ranks is not None:
            return f"{int(self.ranks[place]):,}"
        fields = self.fields(place)
        return "" if "media_error" in fields else self.task.answer_text(fields)


# ------------------------------------------------------------------------------------------------------ charts


def confidence_charts(judged: Judged) -> list[Chart]:
    """Return how often answers of each confidence are right, and how many there are; nothing without scores."""
    pairs = [
        (min(max(float(fields["score"]), 0.0), 1.0), worth)
        for place, worth in enumerate(judged.worth)
        if "score" in (fields := judged.fields(place))
    ]
    if not pairs:
        return []
    bins: list[list[tuple[float, float]]] = [[] for _ in range(10)]
    for pair in pairs:
        bins[min(9, int(pair[0] * 10))].append(pair)
    means = [tuple(np.mean(each, axis=0)) for each in bins if each]
    error = sum(len(each) * abs(np.mean([a - b for a, b in each])) for each in bins if each) / len(pairs)
    title = f"calibration: share right by confidence; mean difference {100 * error:.1f} %"
    ideal = Series("perfectly calibrated", (0, 1), (0, 1), colour=1, dash=1)
    own = Series("these predictions", [a for a, _ in means], [b for _, b in means])
    return [
        line_chart(title, [own, ideal], x_label="confidence", y_range=(0.0, 1.0)),
        bar_chart(
            "answers by confidence",
            [(f"{n / 10:.1f}", len(each)) for n, each in enumerate(bins)],
            x_label="confidence",
            at_edges=True,
        ),
    ]


def rank_charts(judged: Judged) -> list[Chart]:
    """Return recall curves and how ranks are distributed, for the ranks of each direction."""
    directions = {
        each.label.removesuffix(", mean rank"): each.sample.values
        for each in judged.measures
        if each.kind == "mean rank"
    }
    series = []
    for number, (name, ranks) in enumerate(directions.items()):
        ks = sorted({1, *np.unique(ranks.astype(int)).tolist()})
        series.append(Series(name, ks, [100 * float(np.mean(ranks <= k)) for k in ks], colour=number, dash=number))
    charts = [line_chart("recall at rank k in %", series, x_label="k", y_range=(0.0, 100.0), log_x=True)]
    for name, ranks in directions.items():
        bars = []
        for low, high in _RANK_BINS:
            label = f"{low}" if low == high else f"{low} to {high}" if high else f"over {low - 1}"
            bars.append((label, int(((ranks >= low) & (ranks <= (high or np.inf))).sum())))
        charts.append(bar_chart(f"ranks, {name}", bars, x_label="rank"))
    return charts


# ------------------------------------------------------------------------------------------------------ mistakes


def mistakes(judged: Judged) -> dict[str, Any] | None:
    """Count what wrong answers are and what they were taken for; None where predictions are no answers.

    Returns:
        `confused`: (right answer, predicted one, count) of each; `wrong`: (wrong answer, count).
    """
    if not judged.has("answer"):
        return None
    confused: Counter[tuple[str, str]] = Counter()
    for place, example in enumerate(judged.joined.examples):
        fields = judged.fields(place)
        if "answer" in fields and judged.worth[place] == 0:
            confused[judged.task.truth_text(example), judged.answer(place)] += 1
    wrong: Counter[str] = Counter()
    for (_, answer), count in confused.items():
        wrong[answer] += count
    rows = [(truth, answer, f"{count:,}") for (truth, answer), count in confused.most_common(15)]
    return {"confused": rows, "wrong": most_frequent(wrong, 15)}


def media_errors(joined: Joined) -> list[tuple[str, str]]:
    """Return the media items that could not be used, and why."""
    found = {key.media_id: str(own["media_error"]) for key, own in joined.fields.items() if "media_error" in own}
    return list(found.items())


# ------------------------------------------------------------------------------------------------------ examples


def choose(judged: Judged, count: int, seed: int, other: Judged | None) -> list[tuple[int, bool]]:
    """Return the places of the shown examples in order, and whether each is among the worst rather than drawn.

    The worst ones are confident and wrong; of ranked media those whose own item ranks last. With another system,
    examples on which both differ come first among the drawn ones.
    """
    total = len(judged.worth)
    if judged.ranks is not None:
        badness = judged.ranks.astype(float)
    else:
        scores = np.array([float(judged.fields(place).get("score", 0.0)) for place in range(total)])
        badness = np.where(judged.worth == 0, scores, -1.0)
    worst = [int(place) for place in np.argsort(-badness, kind="stable")[: int(count * _WORST)] if badness[place] > 0]
    rng = np.random.default_rng(seed)
    taken = set(worst)
    drawn = [int(place) for place in rng.permutation(total) if int(place) not in taken]
    if other is not None:
        drawn.sort(key=lambda place: judged.worth[place] == other.worth[place])
    chosen = [(place, True) for place in worst] + [(place, False) for place in drawn[: count - len(worst)]]
    return sorted(chosen)


def rows(
    judged: Judged, chosen: Sequence[tuple[int, bool]], thumbnails: Thumbnails, other: Judged | None
) -> Iterator[dict[str, Any]]:
    """Yield what the page shows of each example, with its pictures.

    `score` is None where there is none, `rank` for questions. `says` is what each clip says on its own. `flags` are
    what filters choose by: right, wrong, partly, confident, error, worst, better, worse.
    """
    for place, is_worst in chosen:
        example, fields = judged.joined.examples[place], judged.fields(place)
        described = judged.task.described(example)
        yield {
            "media_id": example.media_id,
            "question": str(described.get("question") or described.get("text") or ""),
            "options": described.get("options", ()),
            "truth": judged.task.truth_text(example),
            "answer": judged.answer(place),
            "error": str(fields.get("media_error", "")),
            "kind": example.answer_type or "",
            "flags": _flags(judged, place, is_worst, other),
            "strip": thumbnails.strip(example.media_id),
            "other": "" if other is None else other.answer(place) or str(other.fields(place)["media_error"]),
            **(_answers(judged, place) if judged.matrix is None else _found(judged, place, thumbnails)),
        }


def _flags(judged: Judged, place: int, is_worst: bool, other: Judged | None) -> list[str]:
    worth, own = judged.worth[place], judged.fields(place)
    flags = ["error"] if "media_error" in own else []
    flags.append("right" if worth == 1 else "wrong" if worth == 0 else "partly")
    if worth == 0 and float(own.get("score", 0.0)) >= CONFIDENT:
        flags.append("confident")
    if is_worst:
        flags.append("worst")
    if other is not None and other.worth[place] != worth:
        flags.append("better" if worth > other.worth[place] else "worse")
    return flags


def _answers(judged: Judged, place: int) -> dict[str, Any]:
    """Return the best answers to a question."""
    task, example, fields = judged.task, judged.joined.examples[place], judged.fields(place)
    top = [
        {
            "name": task.answer_text(each),
            "score": float(each.get("score", 0.0)),
            "is_right": task.judged(each, example).get("correct", 0) > 0,
            "strip": None,
        }
        for each in fields.get("top", ())[:5]
    ]
    score = float(fields["score"]) if "score" in fields else None
    return {"score": score, "rank": None, "top": top, "says": _says(task, fields.get("clips"), example)}


def _says(task: Task, clips: Any, example: Example) -> list[str]:
    """Return what each clip says on its own; nothing where a file has something else at this place."""
    try:
        for clip in clips or ():
            task.check_prediction(clip, example)
        return [f"{task.answer_text(clip)} {float(clip['score']):.2f}" for clip in clips or ()]
    except (RecordError, TypeError, KeyError, AttributeError):
        return []


def _found(judged: Judged, place: int, thumbnails: Thumbnails) -> dict[str, Any]:
    """Return the media items that a text finds first."""
    assert judged.matrix is not None
    assert judged.ranks is not None
    scores, own = judged.matrix.values[place], judged.matrix.media_of_text[place]
    top = [
        {
            "name": (name := judged.matrix.media_ids[item]),
            "score": _shown_score(scores[item]),
            "is_right": item == own,
            "strip": thumbnails.strip(name, single=True),
        }
        for item in np.argsort(-scores, kind="stable")[:5].tolist()
    ]
    clips = judged.fields(place).get("clips")
    return {
        "score": _shown_score(scores[own]),
        "rank": int(judged.ranks[place]),
        "top": top,
        "says": [_clip_match(clip, place) for clip in clips] if isinstance(clips, list) else (),
    }


def _clip_match(clip: Any, place: int) -> str:
    """Return how well a clip alone matches a text."""
    scores = clip.get("scores") if isinstance(clip, dict) else None
    found = scores[place] if isinstance(scores, list) and place < len(scores) else None
    return f"{found:.2f}" if isinstance(found, float) else ""


def _shown_score(score: np.float32) -> float | None:
    """Return the score of a media item; None for the places behind all others, which failed items have."""
    return float(score) if score >= 0 else None
