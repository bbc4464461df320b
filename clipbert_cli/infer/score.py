"""Scores of predictions against the ground truth, for `clipbert eval`. Needs no model and no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipbert_cli.errors import PredictionsError
from clipbert_cli.infer.prediction_lines import WRONG_LINES, Row, TextList, named, read_lines
from clipbert_cli.infer.score_folder import read_scores
from clipbert_cli.path_kinds import PathKind, look_at
from clipbert_cli.printable import listed
from clipbert_cli.task.base import Task
from clipbert_cli.task.intervals import Interval, Resampling
from clipbert_cli.task.metrics import Comparison, Measure, compare
from clipbert_cli.text.fields import RecordError
from clipbert_cli.types import Example, PredictionKey


@dataclass(frozen=True)
class Joined:
    """Predictions and the examples that they belong to.

    Attributes:
        fields: the fields of each prediction. `scores` are in the order of `examples`.
        examples: the examples with a prediction.
        missing: how many examples of the split have no prediction.
        unknown: how many predictions belong to no example of the split.
    """

    fields: Mapping[PredictionKey, Mapping[str, Any]]
    examples: Sequence[Example]
    missing: int = 0
    unknown: int = 0


@dataclass(frozen=True)
class Score:
    """The score of predictions, how sure it is, and how it compares with other predictions for the same examples.

    Args:
        metrics: the result of the task's `score`; with `allow_partial` also `missing` and `unknown`; and, if there are
            examples whose media could not be used, their number as `media_errors` or `left_out`.
        intervals: by the name of each measure.
        comparisons: the same; empty without other predictions.
    """

    metrics: Mapping[str, Any]
    measures: Sequence[Measure]
    intervals: Mapping[str, Interval | None]
    comparisons: Mapping[str, Comparison]


_USUAL = Resampling()


def evaluate(
    predictions: Path,
    task: Task,
    examples: Sequence[Example],
    *,
    resampling: Resampling = _USUAL,
    against: Path | None = None,
    allow_partial: bool = False,
    leave_out_media_errors: bool = False,
) -> Score:
    """Score a predictions file, or a folder of scores, against the examples of a split.

    Args:
        allow_partial: see `join`.
        leave_out_media_errors: leave out examples whose media could not be used, which count as wrong otherwise.
        against: other predictions. They are compared on the examples that are scored in both files.

    Raises:
        PredictionsError: see `join`; or no example is left, or both files have no example in common.
    """
    first, counts = _select(predictions, task, examples, allow_partial, leave_out_media_errors)
    metrics = {**task.score(first.fields, first.examples), **counts}
    measures = task.measures(first.fields, first.examples)
    score = Score(metrics, measures, {each.name: each.interval(resampling) for each in measures}, {})
    if against is None:
        return score
    second, _ = _select(against, task, examples, allow_partial, leave_out_media_errors)
    common = {example.key for example in first.examples} & {example.key for example in second.examples}
    if not common:
        raise PredictionsError(
            f"{predictions} and {against} have no record in common", hint="compare predictions of the same split"
        )
    one, other = (_restricted(each, lambda example: example.key in common, task) for each in (first, second))
    measures, others = (task.measures(each.fields, each.examples) for each in (one, other))
    return dataclasses.replace(score, comparisons=compare(measures, others, resampling))


def _select(
    path: Path, task: Task, examples: Sequence[Example], allow_partial: bool, leave_out_media_errors: bool
) -> tuple[Joined, dict[str, int]]:
    """Return the predictions and examples that `evaluate` scores, and what it counts besides."""
    joined = join(path, task, examples, allow_partial=allow_partial)
    counts = {"missing": joined.missing, "unknown": joined.unknown} if allow_partial else {}
    usable = _restricted(joined, lambda example: "media_error" not in _of(joined, example, task), task)
    if failed := len(joined.examples) - len(usable.examples):
        counts["left_out" if leave_out_media_errors else "media_errors"] = failed
    if leave_out_media_errors and not usable.examples:
        raise PredictionsError(
            f"{path}: the media of all {failed} records could not be used",
            hint="score them as wrong, or correct data.splits and predict again",
        )
    return usable if leave_out_media_errors else joined, counts


def _of(joined: Joined, example: Example, task: Task) -> Mapping[str, Any]:
    """Return the prediction that an example is scored by."""
    return joined.fields[PredictionKey(example.media_id) if task.ranks_media else example.key]


def _taken(own: Mapping[str, Any], places: Sequence[int]) -> Mapping[str, Any]:
    """Return the fields of a media item with the scores of some of the texts, without those of single clips."""
    return {**{name: value for name, value in own.items() if name != "clips"}, "scores": own["scores"][places]}


def _restricted(joined: Joined, keep: Callable[[Example], bool], task: Task) -> Joined:
    """Return the predictions for some of the examples.

    Where every text is scored with every media item, the other texts are left out of all scores as well.
    """
    kept = [number for number, each in enumerate(joined.examples) if keep(each)]
    if len(kept) == len(joined.examples):
        return joined
    examples = [joined.examples[number] for number in kept]
    if not task.ranks_media:
        fields = {example.key: joined.fields[example.key] for example in examples}
        return dataclasses.replace(joined, fields=fields, examples=examples)
    media = {PredictionKey(example.media_id) for example in examples}
    fields = {key: _taken(own, kept) if "scores" in own else own for key, own in joined.fields.items() if key in media}
    return dataclasses.replace(joined, fields=fields, examples=examples)


def join(path: Path, task: Task, examples: Sequence[Example], *, allow_partial: bool = False) -> Joined:
    """Read predictions and find the example of each by its media item and text.

    Args:
        allow_partial: leave out examples without a prediction, and predictions without an example. A part of a ranking
            cannot be scored.

    Raises:
        PredictionsError: predictions cannot be read or scored, or do not belong to these examples.
    """
    is_scores = look_at(path).kind is PathKind.SCORES
    if is_scores and not task.ranks_media:
        raise PredictionsError(
            f"{path} has scores of every text with every media item, which the recipe's task does not have",
            hint="name the recipe and the split that were predicted, with --recipe and --split",
        )
    found = read_scores(path) if is_scores else read_lines(path, ranks_media=task.ranks_media)
    rows = found.of_key
    if task.ranks_media:
        return _join_ranking(path, rows, found.texts, examples)
    of_key = {example.key: example for example in examples}
    known = {key: row for key, row in rows.items() if key in of_key}
    missing, unknown = of_key.keys() - rows.keys(), rows.keys() - of_key.keys()
    if not known or ((missing or unknown) and not allow_partial):
        _refuse_others(
            path,
            of_key,
            rows,
            ("records of the split have no prediction", "predictions belong to no record of the split"),
            lambda key: named(key, task.described(of_key[key])),
            lambda key: f"{rows[key].where}, for {named(key, rows[key].fields)}",
            hint="name the recipe and split that were predicted. If records have changed, predict again"
            + (f", or score the {len(known)} others with --allow-partial" if known else ""),
        )
    mistakes = []
    for key, row in known.items():
        if "media_error" not in row.fields:
            try:
                task.check_prediction(row.fields, of_key[key])
            except RecordError as exc:
                mistakes.append(f"{row.where}: {exc}")
    if mistakes:
        raise PredictionsError(listed(mistakes), hint=WRONG_LINES)
    left = [example for key, example in of_key.items() if key in known]
    return Joined({key: row.fields for key, row in known.items()}, left, len(missing), len(unknown))


def _join_ranking(
    path: Path, rows: Mapping[PredictionKey, Row], texts: TextList | None, examples: Sequence[Example]
) -> Joined:
    """Join the scores of all texts with all media items, and put them into the order of the examples."""
    _refuse_others(
        path,
        dict.fromkeys(PredictionKey(example.media_id) for example in examples),
        rows,
        ("media items of the split have no scores", "media items with scores do not belong to the split"),
        lambda key: repr(key.media_id),
        lambda key: f"{rows[key].where}, {key.media_id!r}",
        hint="are these the scores of this recipe and split? Predict the whole split: ranks need all media items",
    )
    fields = {key: row.fields for key, row in rows.items()}
    of_key = {example.key: example.texts[0] for example in examples}
    # Without any scores, because all media failed, no texts need be listed.
    if texts is None or texts.keys == tuple(of_key):
        return Joined(fields, examples)
    written = dict(zip(texts.keys, texts.texts, strict=True))
    _refuse_others(
        path,
        of_key,
        written,
        ("texts of the split have no scores", "texts with scores do not belong to the split"),
        lambda key: f"{key.media_id!r}, {of_key[key]!r}",
        lambda key: f"{key.media_id!r}, {written[key]!r}",
        hint="predict again with the annotations that are scored against",
    )
    place = {key: number for number, key in enumerate(texts.keys)}
    order = [place[key] for key in of_key]
    return Joined({key: _taken(own, order) if "scores" in own else own for key, own in fields.items()}, examples)


def _refuse_others(
    path: Path,
    wanted: Mapping[PredictionKey, object],
    given: Mapping[PredictionKey, object],
    what: tuple[str, str],
    name_wanted: Callable[[PredictionKey], str],
    name_given: Callable[[PredictionKey], str],
    *,
    hint: str,
) -> None:
    """Raise PredictionsError unless the same things are wanted and given, with the first that is not, of both."""
    lines = []
    for own, others, says, name in ((wanted, given, what[0], name_wanted), (given, wanted, what[1], name_given)):
        left = [key for key in own if key not in others]
        if left:
            lines.append(f"{path}: {len(left)} of {len(own)} {says}; the first: {name(left[0])}")
    if lines:
        # Of two things that have nothing in common, one name says enough.
        raise PredictionsError(lines if wanted.keys() & given.keys() else lines[:1], hint=hint)
