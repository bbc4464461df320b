from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from bounds import PERCENTAGE
from goldens import golden_json

from clipbert_cli.recipe.schema import InferConfig, ObjectiveConfig
from clipbert_cli.task.base import Task
from clipbert_cli.task.image_qa import ImageQa
from clipbert_cli.task.metrics import ranks
from clipbert_cli.task.multiple_choice import MultipleChoice
from clipbert_cli.task.open_ended_qa import OpenEndedQa
from clipbert_cli.task.retrieval import Retrieval
from clipbert_cli.types import Batch, Example, Outputs, PredictionKey

NAMES = {
    "recall_at_1": "r1",
    "recall_at_5": "r5",
    "recall_at_10": "r10",
    "median_rank": "medianR",
    "mean_rank": "meanR",
}


def batch_of(examples: list[Example], media_ids: tuple[str, ...] = ()) -> Batch:
    nothing = torch.empty(0)
    return Batch(nothing, nothing, nothing, nothing, tuple(examples), media_ids=media_ids)


def scored(task: Task, logits: torch.Tensor, examples: list[Example]) -> tuple[list[Any], dict[str, Any]]:
    """Predicted answers and metrics, through the task's own predict and score."""
    predictions = task.predict(Outputs(logits), batch_of(examples))
    metrics = task.score({each.key: each.fields for each in predictions}, examples)
    return [each.fields["answer"] for each in predictions], metrics


@pytest.mark.golden
def test_question_answering_scores_are_the_originals() -> None:
    """Logits of the clips to accuracies, through the task's own predict and score."""
    cases = [case for case in golden_json("metrics/metrics.json")["question_answering"] if case["answer_of_class"]]
    assert cases
    for case in cases:
        answers = {answer: label for label, answer in enumerate(case["answer_of_class"])}
        task = OpenEndedQa(ObjectiveConfig(pool=case["pool"]), InferConfig(), answers)
        examples = [
            Example(str(number), f"v{number}", ("?",), target, kind)
            for number, (target, kind) in enumerate(zip(case["ground_truth"], case["answer_type"], strict=True))
        ]
        logits = torch.tensor(case["logits_clip_question_class"]).transpose(0, 1)  # (Q, K, C)
        predicted, metrics = scored(task, logits, examples)
        assert [answers[answer] for answer in predicted] == case["predicted_class"]
        check(metrics, case)


@pytest.mark.golden
def test_image_question_scores_are_the_originals() -> None:
    cases = golden_json("metrics/metrics.json")["vqa"]
    assert cases
    for case in cases:
        answers = {answer: label for label, answer in enumerate(case["answer_of_class"])}
        task = ImageQa(ObjectiveConfig(), InferConfig(), answers)
        examples = [
            Example(str(number), f"v{number}", ("?",), labels, kind)
            for number, (labels, kind) in enumerate(zip(case["soft_labels"], case["answer_type"], strict=True))
        ]
        predicted, metrics = scored(task, torch.tensor(case["logits"])[:, None], examples)
        assert predicted == case["predicted"]
        check(metrics, case)


@pytest.mark.golden
def test_multiple_choice_scores_of_a_retrieval_model_are_the_originals() -> None:
    cases = golden_json("metrics/metrics.json")["multiple_choice"]
    assert cases
    for case in cases:
        logits = torch.tensor(case["logits_clip_option_class"]).transpose(0, 1)  # (Q * O, K, C)
        options = len(logits) // len(case["ground_truth"])
        task = MultipleChoice(ObjectiveConfig(pool=case["pool"], num_options=options), InferConfig(), None)
        examples = [
            Example(str(number), f"v{number}", ("?",) * options, target)
            for number, target in enumerate(case["ground_truth"])
        ]
        predicted, metrics = scored(task, logits, examples)
        assert predicted == case["predicted"]
        assert f"{metrics['accuracy']:.2f}" == case["metric"]["mc_accuracy"]


@pytest.mark.golden
def test_retrieval_scores_are_the_originals() -> None:
    """Scores to metrics through the task, one text per video as the original counts; ranks lie between its bounds."""
    cases = golden_json("metrics/metrics.json")["retrieval"]
    assert cases
    for case in cases:
        owner = case["video_of_text"]
        scores = np.array(case["scores_text_video"], dtype=np.float32)
        examples = [Example(str(number), str(media), ("?",)) for number, media in enumerate(owner)]
        task = Retrieval(ObjectiveConfig(as_original=True), InferConfig(), None)
        fields = {PredictionKey(str(media)): {"scores": scores[:, media]} for media in range(scores.shape[1])}
        metrics = task.score(fields, examples)
        for found, expected in (
            (metrics, case["metrics"]["text2video"]),
            (metrics["video_to_text"], case["metrics"]["video2text"]),
        ):
            assert {theirs: found[ours] for ours, theirs in NAMES.items()} == pytest.approx(
                {name: expected[name] for name in NAMES.values()}, abs=PERCENTAGE
            ), case["case"]
        found = ranks(scores, np.array(owner))
        assert (found >= np.array(case["text2video_rank_best"])).all()
        assert (found <= np.array(case["text2video_rank_worst"])).all()


def test_of_equal_scores_the_lower_index_ranks_first() -> None:
    scores = np.array([[0.5, 0.5, 0.5], [0.5, 0.7, 0.5]], dtype=np.float32)
    assert ranks(scores, np.array([0, 2])).tolist() == [1, 3]
    assert ranks(scores, np.array([2, 1])).tolist() == [3, 1]


def test_a_video_with_several_captions_has_the_rank_of_its_best_one() -> None:
    """Captions 0 and 1 belong to video 0; caption 0 is its best of all, caption 1 its worst."""
    scores = np.array([[0.9, 0.1], [0.2, 0.3], [0.5, 0.8]], dtype=np.float32)
    examples = [Example(None, media, (text,)) for media, text in (("0", "a"), ("0", "b"), ("1", "c"))]
    fields = {PredictionKey(str(media)): {"scores": scores[:, media]} for media in (0, 1)}
    best = Retrieval(ObjectiveConfig(), InferConfig(), None).score(fields, examples)
    assert best["recall_at_1"] == pytest.approx(100 * 2 / 3)
    assert best["video_to_text"]["recall_at_1"] == 100
    last = Retrieval(ObjectiveConfig(as_original=True), InferConfig(), None).score(fields, examples)
    assert last["video_to_text"]["mean_rank"] == 2  # ranks 3 and 1


def check(metrics: dict, case: dict) -> None:
    fractions = case["fractions"]
    assert metrics["accuracy"] == pytest.approx(100 * fractions["overall_acc"], abs=PERCENTAGE)
    for kind in case.get("answer_types") or sorted(set(case["answer_type"])):
        expected = fractions[f"{kind}_acc"]
        share, number = fractions["ratios"][f"{kind}_ratio"]
        found = metrics["by_type"].get(kind, {"accuracy": 0.0, "count": 0})
        assert found["accuracy"] == pytest.approx(100 * expected, abs=PERCENTAGE), kind
        assert found["count"] == number
        assert found["count"] / metrics["count"] == pytest.approx(share)


def test_examples_without_a_type_count_in_the_overall_accuracy_only() -> None:
    task = OpenEndedQa(ObjectiveConfig(), InferConfig(), None)
    examples = [Example(None, f"v{number}", ("?",), "yes", kind) for number, kind in enumerate(("what", None, "what"))]
    fields = {each.key: {"answer": "yes" if each.answer_type else "no"} for each in examples}
    metrics = task.score(fields, examples)
    assert metrics == {
        "accuracy": pytest.approx(200 / 3),
        "count": 3,
        "by_type": {"what": {"accuracy": 100.0, "count": 2}},
    }
    assert task.score({}, [])["accuracy"] == 0.0
