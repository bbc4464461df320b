"""A prediction that says `media_error` counts as wrong in every task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from clipbert_cli.recipe.schema import InferConfig, ObjectiveConfig
from clipbert_cli.task.multiple_choice import MultipleChoice
from clipbert_cli.task.open_ended_qa import OpenEndedQa
from clipbert_cli.task.pretraining import Pretraining
from clipbert_cli.task.retrieval import Retrieval
from clipbert_cli.types import Example, PredictionKey

FAILED: dict[str, Any] = {"media_error": "video 'b' cannot be read"}


def by_key(examples: Sequence[Example], *fields: Mapping[str, Any]) -> dict[PredictionKey, Mapping[str, Any]]:
    return {example.key: each for example, each in zip(examples, fields, strict=True)}


def test_a_media_error_is_a_wrong_answer() -> None:
    questions = [Example("1", "a", ("?",), target="cat"), Example("2", "b", ("?",), target="cat")]
    task = OpenEndedQa(ObjectiveConfig(), InferConfig(), None)
    metrics = task.score(by_key(questions, {"answer": "cat"}, FAILED), questions)
    assert (metrics["accuracy"], metrics["count"]) == (50, 2)


def test_a_media_error_is_a_wrong_choice() -> None:
    questions = [Example("1", "a", ("x", "y"), target=1), Example("2", "b", ("x", "y"), target=0)]
    task = MultipleChoice(ObjectiveConfig(), InferConfig(), None)
    assert task.score(by_key(questions, {"answer": 1}, FAILED), questions)["accuracy"] == 50


def test_a_media_error_is_as_many_wrong_words_and_pairs_as_others_have() -> None:
    examples = [Example(name, name, ("?",)) for name in "abc"]
    counts = {"words": 4, "words_right": 3, "pairs": 2, "pairs_right": 1}
    task = Pretraining(ObjectiveConfig(), InferConfig(), None)
    metrics = task.score(by_key(examples, counts, FAILED, counts), examples)
    assert metrics["mlm_accuracy"] == pytest.approx(100 * 6 / 12)
    assert metrics["itm_accuracy"] == pytest.approx(100 * 2 / 6)
    nothing = task.score(by_key(examples, FAILED, FAILED, FAILED), examples)
    assert (nothing["mlm_accuracy"], nothing["itm_accuracy"]) == (0, 0)


def test_a_media_error_ranks_last_in_both_directions() -> None:
    examples = [Example(name, name, (name,)) for name in "abc"]
    scores = {"a": [0.9, 0.1, 0.1], "c": [0.2, 0.1, 0.8]}
    fields: dict[str, Any] = {key: {"scores": np.array(row)} for key, row in scores.items()} | {"b": FAILED}
    task = Retrieval(ObjectiveConfig(), InferConfig(), None)
    metrics = task.score({PredictionKey(key): each for key, each in fields.items()}, examples)
    assert metrics["mean_rank"] == (1 + 3 + 1) / 3
    assert metrics["video_to_text"]["mean_rank"] == (1 + 3 + 1) / 3
