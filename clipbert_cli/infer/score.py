"""Predictions against ground truth: `clipbert eval`. No model is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipbert_cli.build import build_task, read_split
from clipbert_cli.errors import PredictionsError
from clipbert_cli.infer.score_folder import is_score_folder, read_scores
from clipbert_cli.recipe.schema import Recipe
from clipbert_cli.text.annotations import listed, read_records, shortened


def evaluate(predictions: Path, recipe: Recipe, split: str, *, allow_partial: bool = False) -> dict[str, Any]:
    """Score a predictions file, or a folder of scores, against a split's ground truth. No model is loaded.

    Args:
        allow_partial: score the examples that have a prediction, and say how many have none.

    Returns:
        what the task's `score` returns, and with `allow_partial` also `missing`, the number of examples left out.

    Raises:
        PredictionsError: bad lines, and example ids that are missing, there twice, or unknown to the split.
    """
    task = build_task(recipe)
    examples = read_split(recipe, split, task, task.check_truth)
    keys = task.keys(examples)
    fields = read_predictions(predictions, known=set(keys))
    if not fields:
        raise PredictionsError(f"{predictions}: no predictions in it")
    missing = [key for key in keys if key not in fields]
    if missing and (task.every_pair or not allow_partial):
        what = "media items" if task.every_pair else "examples"
        raise PredictionsError(
            f"{predictions}: {len(missing)} of {len(keys)} {what} have no prediction: {shortened(missing)}",
            hint="ranks need them all: predict the whole split"
            if task.every_pair
            else "predict the whole split, or score what is there with --allow-partial",
        )
    scored = [example for example in examples if task.every_pair or example.example_id in fields]
    metrics = task.score(fields, scored)
    return {**metrics, "missing": len(missing)} if allow_partial else metrics


def read_predictions(path: Path, *, known: set[str]) -> dict[str, Mapping[str, Any]]:
    """Prediction fields by example id.

    Args:
        path: JSON lines, or a folder of scores.

    Raises:
        PredictionsError: all torn lines, lines without an id, duplicate and unknown ids together.
    """
    if is_score_folder(path):
        fields = read_scores(path)
        if unknown := [media_id for media_id in fields if media_id not in known]:
            raise PredictionsError(
                f"{path}: {len(unknown)} media items are not the split's: {shortened(unknown)}",
                hint="are these the scores of this recipe and split?",
            )
        return fields
    if path != Path("-") and (path.is_dir() or not path.exists()):
        raise PredictionsError(
            f"{path}: no such predictions file", hint="clipbert infer --run RUN --split SPLIT -o FILE"
        )
    fields = {}
    mistakes: list[str] = []
    for record in read_records(path):
        if isinstance(record, str):
            mistakes.append(record)
            continue
        example_id = record.fields.get("example_id")
        where = f"{path}:{record.line}: example_id is {json.dumps(example_id)}"
        if not isinstance(example_id, str):
            mistakes.append(f"{where}: it must be text")
        elif example_id in fields:
            mistakes.append(f"{where}: it stands twice")
        elif example_id not in known:
            mistakes.append(f"{where}: no example of the split has it")
        else:
            fields[example_id] = record.fields
    if mistakes:
        raise PredictionsError(listed(mistakes), hint="are these the predictions of this recipe and split?")
    return fields
