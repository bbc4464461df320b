"""Scores of predictions against the ground truth, for `clipbert eval`. Needs no model and no torch."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from clipbert_cli.errors import PredictionsError
from clipbert_cli.infer.score_folder import is_score_folder, read_scores
from clipbert_cli.task.base import Task
from clipbert_cli.text.annotations import listed, shortened
from clipbert_cli.text.record_files import read_records
from clipbert_cli.types import Example


def evaluate(
    predictions: Path, task: Task, examples: Sequence[Example], *, allow_partial: bool = False
) -> dict[str, Any]:
    """Score a predictions file, or a folder of scores, against the examples of a split.

    Args:
        allow_partial: score the examples that have a prediction, and report how many have none.

    Returns:
        The result of the task's `score`, and with `allow_partial` also `missing`, the number of examples left out.

    Raises:
        PredictionsError: there are bad lines; or keys are missing, given twice, or unknown to the split.
    """
    # Predictions are joined by key and never by position: a file may be sorted, or put together from parts.
    keys = task.keys(examples)
    fields = read_predictions(predictions, key=task.prediction_key, known=set(keys))
    if not fields:
        raise PredictionsError(
            f"{predictions}: there are no predictions in it", hint="clipbert infer --run RUN --split SPLIT -o FILE"
        )
    missing = [key for key in keys if key not in fields]
    allow_partial = allow_partial and task.scores_part_of_split
    if missing and not allow_partial:
        raise PredictionsError(
            f"{predictions}: {len(missing)} of {len(keys)} {_items(task.prediction_key)} have no prediction: "
            f"{shortened(missing)}",
            hint="predict the whole split, or score what is there with --allow-partial"
            if task.scores_part_of_split
            else "predict the whole split: ranks need all media items",
        )
    # A task that scores a part of a split compares the predicted examples only.
    left_out = set(missing)
    scored = [example for example in examples if getattr(example, task.prediction_key) not in left_out]
    metrics = task.score(fields, scored)
    return {**metrics, "missing": len(missing)} if allow_partial else metrics


def read_predictions(path: Path, *, key: str, known: Collection[str]) -> dict[str, Mapping[str, Any]]:
    """Read the fields of each prediction, by key.

    Args:
        path: JSON lines, or a folder of scores.
        key: the field that identifies a prediction, `example_id` or `media_id`.
        known: all keys of the split.

    Raises:
        PredictionsError: for all torn lines, lines without the key, and duplicate and unknown keys together.
    """
    if is_score_folder(path):
        scores = read_scores(path)
        if unknown := [media_id for media_id in scores if media_id not in known]:
            raise PredictionsError(
                f"{path}: {len(unknown)} media items do not belong to the split: {shortened(unknown)}",
                hint="are these the scores of this recipe and split?",
            )
        return scores
    # `-` is stdin. A pipe or another special file is read too, so only missing files and folders are refused.
    if path != Path("-") and (path.is_dir() or not path.exists()):
        raise PredictionsError(
            f"{path}: no such predictions file", hint="clipbert infer --run RUN --split SPLIT -o FILE"
        )
    # All mistakes are collected, so that one run names every bad line of a large file.
    fields: dict[str, Mapping[str, Any]] = {}
    mistakes: list[str] = []
    for record in read_records(path):
        if isinstance(record, str):
            mistakes.append(record)
            continue
        value = record.fields.get(key)
        where = f"{record.place}: {key} is {json.dumps(value)}"
        if not isinstance(value, str):
            mistakes.append(f"{where}, but must be text")
        elif value in fields:
            mistakes.append(f"{where}, which an earlier line has as well")
        elif value not in known:
            mistakes.append(f"{where}, which the split does not have")
        else:
            fields[value] = record.fields
    if mistakes:
        raise PredictionsError(listed(mistakes), hint="are these the predictions of this recipe and split?")
    return fields


def _items(key: str) -> str:
    return {"example_id": "examples", "media_id": "media items"}[key]
