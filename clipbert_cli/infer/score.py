"""Scores of predictions against the ground truth, for `clipbert eval`. Needs no model and no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipbert_cli.errors import PredictionsError
from clipbert_cli.infer.prediction_lines import WRONG_LINES, TextList, named, read_lines
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
    usable = _restricted(joined, lambda example: "media_error" not in joined.fields[task.key(example)], task)
    if failed := len(joined.examples) - len(usable.examples):
        counts["left_out" if leave_out_media_errors else "media_errors"] = failed
    if leave_out_media_errors and not usable.examples:
        raise PredictionsError(
            f"{path}: the media of all {failed} records could not be used",
            hint="score them as wrong, or correct data.splits and predict again",
        )
    return usable if leave_out_media_errors else joined, counts


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
    fields = {key: joined.fields[key] for key in map(task.key, examples)}
    if task.ranks_media:
        fields = {key: _taken(own, kept) if "scores" in own else own for key, own in fields.items()}
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
    rows, wanted = found.of_key, {task.key(example): example for example in examples}
    known = {key: row for key, row in rows.items() if key in wanted}
    missing, unknown = len(wanted) - len(known), len(rows) - len(known)
    if not known or ((missing or unknown) and not (allow_partial and not task.ranks_media)):
        hint = "name the recipe and split that were predicted. If records have changed, predict again"
        raise _other_things(
            path,
            "media items" if task.ranks_media else "records",
            {key: named(key, {} if task.ranks_media else task.described(each)) for key, each in wanted.items()},
            {key: f"{row.where}, for {named(key, row.fields)}" for key, row in rows.items()},
            hint
            + (f", or score the {len(known)} others with --allow-partial" if known and not task.ranks_media else ""),
        )
    mistakes = []
    for key, row in known.items():
        if "media_error" not in row.fields:
            try:
                task.check_prediction(row.fields, wanted[key])
            except RecordError as exc:
                mistakes.append(f"{row.where}: {exc}")
    if mistakes:
        raise PredictionsError(listed(mistakes), hint=WRONG_LINES)
    fields = {key: row.fields for key, row in known.items()}
    # Without any scores, because all media failed, no texts need be listed.
    if found.texts:
        fields = _in_order(path, fields, found.texts, examples)
    left = [example for example in examples if task.key(example) in known]
    return Joined(fields, left, missing, unknown)


def _in_order(
    path: Path, fields: dict[PredictionKey, Mapping[str, Any]], texts: TextList, examples: Sequence[Example]
) -> dict[PredictionKey, Mapping[str, Any]]:
    """Return the scores of all texts with all media items in the order of the examples."""
    place = {key: number for number, key in enumerate(texts.keys)}
    keys = [example.key for example in examples]
    if list(place) == keys:
        return fields
    if place.keys() != set(keys):
        raise _other_things(
            path,
            "texts",
            {example.key: f"{example.media_id!r}, {example.texts[0]!r}" for example in examples},
            {key: f"{key.media_id!r}, {text!r}" for key, text in zip(texts.keys, texts.texts, strict=True)},
            "predict again with the annotations that are scored against",
        )
    order = [place[key] for key in keys]
    return {key: _taken(own, order) if "scores" in own else own for key, own in fields.items()}


def _other_things(
    path: Path, things: str, wanted: Mapping[PredictionKey, str], given: Mapping[PredictionKey, str], hint: str
) -> PredictionsError:
    """Return the error about things that are wanted and not given, and the other way round, each by its key."""
    lines = []
    for own, others, form in (
        (wanted, given, "{} of {} {} of the split have no prediction; the first: {}"),
        (given, wanted, "{} of {} predicted {} are not of the split; the first: {}"),
    ):
        if left := [name for key, name in own.items() if key not in others]:
            lines.append(f"{path}: {form.format(len(left), len(own), things, left[0])}")
    # Of two lists that have nothing in common, one name says enough.
    return PredictionsError(lines if wanted.keys() & given.keys() else lines[:1], hint=hint)
