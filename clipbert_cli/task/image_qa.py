"""Questions about images whose answers ten people gave: every answer has a soft label (VQA v2).

Each answer of the vocabulary is a yes-or-no decision of its own; the predicted answer is the most probable one, and is
worth its soft label: 0.3, 0.6, 0.9, 1.0 where 1, 2, 3, 4 or more people gave it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from clipbert_cli.errors import PredictionsError
from clipbert_cli.task.answers import VocabularyTask, answer_type, example_id
from clipbert_cli.task.pooling import binary_cross_entropy, label_probabilities
from clipbert_cli.text.annotations import Record, RecordError
from clipbert_cli.types import Batch, Example, Outputs, Prediction


class ImageQa(VocabularyTask):
    """Records have `media_id`, `question`, and `labels` {answer: 0..1} or one `answer` (neither where they are not
    known); they may have `answer_type` and `example_id`."""

    def parse(self, record: Record) -> Example:
        """An example of any split; answers outside the vocabulary are allowed and cannot be met."""
        target = None
        if record.has("labels"):
            target = record.shares("labels")
        elif record.has("answer"):
            target = {record.text("answer"): 1.0}
        return Example(
            example_id=example_id(record),
            media_id=record.identifier("media_id"),
            texts=(record.text("question"),),
            target=target,
            answer_type=answer_type(record),
        )

    def check_training(self, example: Example) -> None:
        """Every label's answer must be in the vocabulary; a question without any label teaches that none fits."""
        self.check_truth(example)
        if unknown := [answer for answer in example.target if answer not in self.answers]:
            raise RecordError(
                f"labels[{json.dumps(unknown[0])}]: the answer must be one of the {len(self.answers)} of data.answers"
            )

    def targets(self, examples: Sequence[Example]) -> Mapping[str, torch.Tensor]:
        """`labels` (Q, outputs) float32, the soft score at each answer's label."""
        labels = torch.zeros(len(examples), self.head().num_outputs)
        for row, example in enumerate(examples):
            for answer, share in example.target.items():
                labels[row, self.answers[answer]] = share
        return {"labels": labels}

    def loss(self, outputs: Outputs, batch: Batch) -> Mapping[str, torch.Tensor]:
        """Binary cross entropy of the pooled clips, summed over labels, mean over examples."""
        return {"loss": binary_cross_entropy(outputs.logits, batch.targets["labels"], pool=self.objective.pool)}

    def predict(self, outputs: Outputs, batch: Batch) -> list[Prediction]:
        """The most probable answer; probabilities of several answers need not sum to 1."""
        return self.predict_answers(
            outputs, batch, lambda logits: label_probabilities(logits, pool=self.objective.pool)
        )

    def score(self, fields: Mapping[str, Mapping[str, Any]], examples: Sequence[Example]) -> dict[str, Any]:
        """Mean soft score of the answers, overall and by answer type."""
        return self.score_answers(fields, examples, lambda answer, target: float(target.get(answer, 0.0)))

    def formats(self) -> Mapping[str, Callable[[Prediction], Any]]:
        """The evaluation server's: [{"question_id": integer, "answer": text}, ...]."""
        return {"vqa-submission": _submission}


def _submission(prediction: Prediction) -> dict[str, Any]:
    if not prediction.example_id.isdecimal():
        raise PredictionsError(
            f"example {prediction.example_id!r}: the evaluation server knows questions by number",
            hint="give the records a question_id",
        )
    return {"question_id": int(prediction.example_id), "answer": prediction.fields.get("answer", "")}
