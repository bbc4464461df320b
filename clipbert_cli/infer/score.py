"""Scores of predictions against the ground truth, for `clipbert eval`. Needs no model and no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clipbert_cli.errors import PredictionsError, UsageError
from clipbert_cli.infer.prediction_lines import Row, TextList, bad_lines, named, read_lines
from clipbert_cli.infer.score_folder import read_scores
from clipbert_cli.path_kinds import PathKind, look_at
from clipbert_cli.task.base import Task
from clipbert_cli.task.intervals import Interval, Resampling
from clipbert_cli.task.metrics import Comparison, compare, intervals_of
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
    intervals = intervals_of(task.measures(first.fields, first.examples), resampling)
    if against is None:
        return Score(metrics, intervals, {})
    second, _ = _select(against, task, examples, allow_partial, leave_out_media_errors)
    common = {example.key for example in first.examples} & {example.key for example in second.examples}
    if not common:
        raise PredictionsError(
            f"{predictions} and {against} have no record in common", hint="compare predictions of the same split"
        )
    one, other = (_restricted(each, lambda example: example.key in common, task) for each in (first, second))
    measures = task.measures(one.fields, one.examples), task.measures(other.fields, other.examples)
    return Score(metrics, intervals, compare(measures[0], measures[1], resampling))


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


def _taken(own: Mapping[str, Any], places: Sequence[int] | np.ndarray) -> Mapping[str, Any]:
    """Return the fields of a media item with the scores of some of the texts, those of its clips included."""
    taken = {**own, "scores": own["scores"][places]}
    if isinstance(clips := own.get("clips"), list):
        # They are there to be looked at. A clip that has not one score per text is left out.
        count = len(own["scores"])
        sound = [each["scores"] for each in clips if isinstance(each, dict) and len(each.get("scores") or ()) == count]
        taken["clips"] = [{"scores": [scores[place] for place in places]} for scores in sound]
    return taken


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
        allow_partial: leave out examples without a prediction, and predictions without an example.

    Raises:
        PredictionsError: predictions cannot be read or scored, or do not belong to these examples.
    """
    ranks = task.ranks_media
    is_scores = look_at(path).kind is PathKind.SCORES
    if is_scores and not ranks:
        raise UsageError(
            f"{path} has scores of every text with every media item, which the recipe's task does not have",
            hint="name the recipe and the split that were predicted, with --recipe and --split",
        )
    rows = read_scores(path) if is_scores else read_lines(path, ranks_media=ranks)
    if ranks:
        return _join_ranking(path, rows, examples)
    of_key = {example.key: example for example in examples}
    known = {key: row for key, row in rows.items() if key in of_key}
    missing = [example for key, example in of_key.items() if key not in rows]
    unknown = [(key, row) for key, row in rows.items() if key not in of_key]
    if rows and not known:
        (key, row), example = unknown[0], missing[0]
        raise PredictionsError(
            f"{path}: none of its {len(rows)} predictions belongs to this split; the first is for "
            f"{named(key, row.fields)}, the first record is {named(example.key, task.described(example))}",
            hint="name the split and the recipe that were predicted. If records have changed, predict again",
        )
    if not known or ((missing or unknown) and not allow_partial):
        raise PredictionsError(
            _differences(
                path,
                f"{len(missing)} of {len(examples)} records of the split have no prediction",
                [named(example.key, task.described(example)) for example in missing],
                f"{len(unknown)} of {len(rows)} predictions belong to no record of the split",
                [f"{row.where}, for {named(key, row.fields)}" for key, row in unknown],
            ),
            hint="are these the predictions of this recipe and split? If records have changed, predict again"
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
        raise bad_lines(mistakes, some_fit=len(mistakes) < len(known))
    left = [example for key, example in of_key.items() if key in known]
    return Joined({key: row.fields for key, row in known.items()}, left, len(missing), len(unknown))


def _join_ranking(path: Path, rows: Mapping[PredictionKey, Row], examples: Sequence[Example]) -> Joined:
    """Join the scores of all texts with all media items. A part of them cannot be ranked."""
    wanted = dict.fromkeys(PredictionKey(example.media_id) for example in examples)
    missing = [key for key in wanted if key not in rows]
    unknown = [row for key, row in rows.items() if key not in wanted]
    if missing or unknown:
        raise PredictionsError(
            _differences(
                path,
                f"{len(missing)} of {len(wanted)} media items of the split have no scores",
                [repr(key.media_id) for key in missing],
                f"{len(unknown)} of {len(rows)} media items with scores do not belong to the split",
                [f"{row.where}, {row.fields['media_id']!r}" for row in unknown],
            ),
            hint="are these the scores of this recipe and split? Predict the whole split: ranks need all media items",
        )
    fields: dict[PredictionKey, Mapping[str, Any]] = {}
    orders: dict[int, np.ndarray | None] = {}
    for key, row in rows.items():
        fields[key] = row.fields
        if row.texts is not None:
            if id(row.texts) not in orders:
                orders[id(row.texts)] = _order(path, row.texts, examples)
            if (order := orders[id(row.texts)]) is not None:
                fields[key] = _taken(row.fields, order)
    return Joined(fields, examples)


def _order(path: Path, texts: TextList, examples: Sequence[Example]) -> np.ndarray | None:
    """Return the position of each example's text in a list of texts; None where it is the example's own position.

    Raises:
        PredictionsError: the list holds other texts.
    """
    place = {key: number for number, key in enumerate(texts.keys)}
    keys = [example.key for example in examples]
    if tuple(keys) == texts.keys:
        return None
    missing = [example for key, example in zip(keys, examples, strict=True) if key not in place]
    wanted = set(keys)
    unknown = [number for key, number in place.items() if key not in wanted]
    if missing or unknown:
        raise PredictionsError(
            _differences(
                path,
                f"{len(missing)} of {len(examples)} texts of the split have no scores",
                [f"{example.media_id!r}, {example.texts[0]!r}" for example in missing],
                f"{len(unknown)} of {len(place)} texts with scores do not belong to the split",
                [f"{texts.keys[number].media_id!r}, {texts.texts[number]!r}" for number in unknown],
            ),
            hint="predict again with the annotations that are scored against",
        )
    return np.array([place[key] for key in keys])


def _differences(path: Path, lacking: str, lacks: Sequence[str], surplus: str, extra: Sequence[str]) -> list[str]:
    """Return one line for what is missing and one for what is there beyond, each with its first member."""
    return [f"{path}: {what}; the first: {names[0]}" for what, names in ((lacking, lacks), (surplus, extra)) if names]
