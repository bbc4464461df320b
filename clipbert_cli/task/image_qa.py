"""Questions about images that ten people answered, so that every answer has a soft label (VQA v2).

Each answer of the vocabulary is a separate yes-or-no decision. The most probable answer is predicted and is worth its
soft label: 0.3, 0.6, 0.9 and 1.0 if 1, 2, 3 and at least 4 people gave it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clipbert_cli.errors import PredictionsError
from clipbert_cli.task.answers import VocabularyTask, answer_type, example_id
from clipbert_cli.task.pooling import binary_cross_entropy, label_probabilities
from clipbert_cli.text.annotations import Record, RecordError
from clipbert_cli.types import Example, Prediction

if TYPE_CHECKING:
    import torch

    from clipbert_cli.types import Batch, Outputs

SUBMISSION = "vqa-submission"


class ImageQa(VocabularyTask):
    """The task `image_qa`.

    Records have `media_id`, `question`, and `labels` {answer: 0..1} or one `answer` (neither if they are not known).
    They may have `answer_type` and `example_id`.
    """

    formats = ("jsonl", SUBMISSION)

    def parse(self, record: Record) -> Example:
        """Make an example of a record of any split. Answers outside the vocabulary are allowed but never predicted."""
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
        """Raise RecordError for a label whose answer is not in the vocabulary.

        A question without any label is allowed: it teaches that no answer fits.
        """
        self.check_truth(example)
        if unknown := [answer for answer in example.target if answer not in self.answers]:
            raise RecordError(
                f"labels[{json.dumps(unknown[0])}]: the answer must be one of the {len(self.answers)} of data.answers"
            )

    def targets(self, examples: Sequence[Example]) -> Mapping[str, torch.Tensor]:
        """Return `labels` (Q, outputs) float32, the soft score at each answer's label."""
        import torch

        labels = torch.zeros(len(examples), self.head().num_outputs)
        for row, example in enumerate(examples):
            for answer, share in example.target.items():
                labels[row, self.answers[answer]] = share
        return {"labels": labels}

    def loss(self, outputs: Outputs, batch: Batch) -> Mapping[str, torch.Tensor]:
        """Return the binary cross entropy of the pooled clips, summed over labels, mean over examples."""
        return {"loss": binary_cross_entropy(outputs.logits, batch.targets["labels"], pool=self.objective.pool)}

    def predict(self, outputs: Outputs, batch: Batch) -> list[Prediction]:
        """Predict the most probable answer. The probabilities of all answers need not sum to 1."""
        return self.predict_answers(
            outputs, batch, lambda logits: label_probabilities(logits, pool=self.objective.pool)
        )

    def score(self, fields: Mapping[str, Mapping[str, Any]], examples: Sequence[Example]) -> dict[str, Any]:
        """Return the mean soft score of the answers, overall and by answer type."""
        return self.score_answers(fields, examples, lambda answer, target: float(target.get(answer, 0.0)))

    def document(self, predictions: Sequence[Prediction], form: str) -> list[dict[str, Any]]:
        """Return what the evaluation server of VQA reads: [{"question_id": integer, "answer": text}, ...].

        Raises:
            PredictionsError: an example id is not a number.
        """
        assert form == SUBMISSION
        return [_submission(prediction) for prediction in predictions]


def _submission(prediction: Prediction) -> dict[str, Any]:
    if not prediction.key.isdecimal():
        raise PredictionsError(
            f"example_id is {prediction.key!r}, but the evaluation server identifies questions by number",
            hint="add a question_id with the number to each record",
        )
    return {"question_id": int(prediction.key), "answer": prediction.fields.get("answer", "")}
