from __future__ import annotations

import pytest
import torch
from goldens import golden_json

from clipbert_cli.batch import Example, Outputs
from clipbert_cli.recipe.schema import InferConfig, ObjectiveConfig
from clipbert_cli.task.metrics import accuracy_by_type
from clipbert_cli.task.video_qa import OpenEndedQa


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
        predictions = task.predict(Outputs(logits), examples)
        assert [answers[each.fields["answer"]] for each in predictions] == case["predicted_class"]
        metrics = task.score({each.example_id: each.fields for each in predictions}, examples)
        check(metrics, case)


def check(metrics: dict, case: dict) -> None:
    fractions = case["fractions"]
    assert metrics["accuracy"] == pytest.approx(fractions["overall_acc"], abs=1e-9)
    for kind in case["answer_types"]:
        expected = fractions[f"{kind}_acc"]
        share, number = fractions["ratios"][f"{kind}_ratio"]
        found = metrics["by_type"].get(kind, {"accuracy": 0.0, "count": 0})
        assert found["accuracy"] == pytest.approx(expected, abs=1e-9), kind
        assert found["count"] == number
        assert found["count"] / metrics["count"] == pytest.approx(share)


def test_examples_without_a_type_count_in_the_overall_accuracy_alone() -> None:
    metrics = accuracy_by_type([1, 0, 1], ["what", None, "what"])
    assert metrics == {
        "accuracy": pytest.approx(2 / 3),
        "count": 3,
        "by_type": {"what": {"accuracy": 1.0, "count": 2}},
    }
    assert accuracy_by_type([], [])["accuracy"] == 0.0
