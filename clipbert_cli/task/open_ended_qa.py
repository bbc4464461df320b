"""Open-ended question answering: the answer is one of a fixed vocabulary (MSRVTT-QA, TGIF-QA frame questions).

Each clip gives logits over the vocabulary. They are pooled over the clips, and the largest one is the answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clipbert_cli.task.answers import VocabularyTask, answer_type, example_id
from clipbert_cli.task.pooling import class_probabilities, cross_entropy
from clipbert_cli.text.annotations import Record, RecordError
from clipbert_cli.types import Example, Prediction

if TYPE_CHECKING:
    import torch

    from clipbert_cli.types import Batch, Outputs


class OpenEndedQa(VocabularyTask):
    """The task `open_ended_qa`.

    Records have `media_id`, `question` and `answer` (absent if it is not known), and may have `answer_type` and
    `example_id`.
    """

    def parse(self, record: Record) -> Example:
        """Make an example of a record of any split. An answer outside the vocabulary is allowed but never predicted."""
        return Example(
            example_id=example_id(record),
            media_id=record.identifier("media_id"),
            texts=(record.text("question"),),
            target=record.text("answer") if record.has("answer") else None,
            answer_type=answer_type(record),
        )

    def check_training(self, example: Example) -> None:
        """Raise RecordError if the answer is not in the vocabulary."""
        if example.target not in self.answers:
            raise RecordError(
                f"answer is {json.dumps(example.target)}: it must be one of the {len(self.answers)} of data.answers"
            )

    def targets(self, examples: Sequence[Example]) -> Mapping[str, torch.Tensor]:
        """Return `labels` (Q,) int64."""
        import torch

        return {"labels": torch.tensor([self.answers[example.target] for example in examples])}

    def loss(self, outputs: Outputs, batch: Batch) -> Mapping[str, torch.Tensor]:
        """Return the cross entropy of the pooled clips, mean over examples."""
        return {"loss": cross_entropy(outputs.logits, batch.targets["labels"], pool=self.objective.pool)}

    def predict(self, outputs: Outputs, batch: Batch) -> list[Prediction]:
        """Predict the answer with the largest pooled logit."""
        return self.predict_answers(
            outputs, batch, lambda logits: class_probabilities(logits, pool=self.objective.pool)
        )

    def score(self, fields: Mapping[str, Mapping[str, Any]], examples: Sequence[Example]) -> dict[str, Any]:
        """Return the accuracy overall and by answer type. Answers are compared as text."""
        return self.score_answers(fields, examples, lambda answer, target: float(answer == target))
