"""Open-ended question answering: an answer is one of a fixed vocabulary (MSRVTT-QA, TGIF-QA frame questions).

Each clip gives logits over the vocabulary; the clips' logits are pooled; the answer is the largest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from clipbert_cli.batch import Batch, Example, Outputs, Prediction
from clipbert_cli.data.annotations import Record, RecordError
from clipbert_cli.errors import PredictionsError
from clipbert_cli.model.heads import HeadSpec
from clipbert_cli.recipe.schema import InferConfig, ObjectiveConfig
from clipbert_cli.task.metrics import accuracy_by_type
from clipbert_cli.task.pooling import cross_entropy, pool_clips


class OpenEndedQa:
    """Records have `question`, `video_id` (or `media_id`), `answer` (may be absent where it is not known), and may
    have `answer_type` and `question_id` (or `example_id`); without an id, the record's number from 0 is its id.

    Args:
        objective: pooling and the size of the answer layer.
        infer: how many answers a prediction lists.
        answers: answer -> label. Not needed to read or to score, only to train and to predict.
    """

    main_metric = "accuracy"

    def __init__(self, objective: ObjectiveConfig, infer: InferConfig, answers: Mapping[str, int] | None) -> None:
        self.objective = objective
        self.top = infer.top
        self._answers = answers

    @property
    def answers(self) -> Mapping[str, int]:
        assert self._answers is not None, "this task was built without an answer vocabulary"
        return self._answers

    def head(self) -> HeadSpec:
        """One output per answer; `objective.num_labels` may ask for more than the vocabulary uses."""
        return HeadSpec(kind="classifier", num_outputs=max(len(self.answers), self.objective.num_labels or 0))

    def parse(self, record: Record) -> Example:
        """An example of any split; an answer outside the vocabulary is allowed and can only be wrong."""
        return Example(
            example_id=(
                record.identifier("example_id", "question_id")
                if record.has("example_id", "question_id")
                else str(record.index)
            ),
            media_id=record.identifier("video_id", "media_id"),
            texts=(record.text("question"),),
            target=record.text("answer") if record.has("answer") else None,
            answer_type=record.text("answer_type") if record.has("answer_type") else None,
        )

    def parse_training(self, record: Record) -> Example:
        """An example whose answer is in the vocabulary."""
        example = self.parse(record)
        if example.target not in self.answers:
            raise RecordError(
                f"answer is {json.dumps(example.target)}: it must be one of the {len(self.answers)} of data.answers"
            )
        return example

    def collate_targets(self, examples: Sequence[Example]) -> Mapping[str, torch.Tensor]:
        """`labels` (Q,) int64."""
        return {"labels": torch.tensor([self.answers[example.target] for example in examples])}

    def loss(self, outputs: Outputs, batch: Batch) -> Mapping[str, torch.Tensor]:
        """Cross entropy of the pooled clips, mean over examples."""
        return {"loss": cross_entropy(outputs.logits, batch.targets["labels"], pool=self.objective.pool)}

    def predict(self, outputs: Outputs, examples: Sequence[Example]) -> list[Prediction]:
        """Fields: `answer`, its probability `score`, and `top`, the most probable answers with theirs.

        Labels that no answer has take no part.
        """
        names = list(self.answers)
        pooled = pool_clips(outputs.logits.float(), self.objective.pool)[:, : len(names)]  # (Q, answers)
        scores, labels = pooled.softmax(dim=-1).topk(min(self.top, len(names)), dim=-1)
        predictions = []
        for example, row_scores, row_labels in zip(examples, scores.tolist(), labels.tolist(), strict=True):
            top = [
                {"answer": names[label], "score": score} for score, label in zip(row_scores, row_labels, strict=True)
            ]
            predictions.append(Prediction(example.example_id, example.media_id, {**top[0], "top": top}))
        return predictions

    @staticmethod
    def score(fields: Mapping[str, Mapping[str, Any]], examples: Sequence[Example]) -> dict[str, Any]:
        """Accuracy overall and by answer type. Answers are compared as text; a `media_error` is wrong."""
        correct = []
        for example in examples:
            if example.target is None:
                raise PredictionsError(
                    f"example {example.example_id!r} has no answer in the ground truth",
                    hint="score a split with answers",
                )
            answer = fields[example.example_id].get("answer")
            if answer is None and "media_error" in fields[example.example_id]:
                correct.append(0.0)
                continue
            if not isinstance(answer, str):
                raise PredictionsError(
                    f"example {example.example_id!r}: answer is {json.dumps(answer)}: it must be text"
                )
            correct.append(float(answer == example.target))
        return accuracy_by_type(correct, [example.answer_type for example in examples])
