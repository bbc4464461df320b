"""Open-ended question answering: the answer is one of a fixed vocabulary (MSRVTT-QA, TGIF-QA frame questions).

Each clip gives logits over the vocabulary. They are pooled over the clips, and the largest one is the answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from clipbert_cli.task.answers import VocabularyTask
from clipbert_cli.task.base import COMMON_FIELDS, make_example
from clipbert_cli.task.pooling import class_probabilities, cross_entropy
from clipbert_cli.text.fields import Record, RecordError
from clipbert_cli.types import Batch, Example, Outputs

if TYPE_CHECKING:
    from torch import Tensor


class OpenEndedQa(VocabularyTask):
    """The task `open_ended_qa`.

    Records have `media_id`, `question` and `answer` (absent if it is not known), and may have `answer_type` and
    `example_id`.
    """

    fields = (*COMMON_FIELDS, "question", "answer")

    def parse(self, record: Record) -> Example:
        """Make an example of a record of any split. An answer outside the vocabulary is allowed but never predicted."""
        answer = self.form_of(record.text("answer")) if record.has("answer") else None
        return make_example(record, (record.text("question"),), target=answer)

    def check_training(self, example: Example) -> None:
        """Raise RecordError if the answer is not in the vocabulary."""
        # There is no output that could learn such an answer: annotations and vocabulary do not belong together.
        if example.target not in self.answers:
            raise RecordError(
                f"answer is {json.dumps(example.target)}: it must be one of the {len(self.answers)} of data.answers"
                + self.alike_answer(self.answers_in(example))
            )

    def answers_in(self, example: Example) -> Sequence[str]:
        """Return the answer, if it is known."""
        return () if example.target is None else (example.target,)

    def targets(self, examples: Sequence[Example]) -> Mapping[str, np.ndarray]:
        """Return `labels` (Q,) int64."""
        return {"labels": np.array([self.answers[example.target] for example in examples], dtype=np.int64)}

    def loss(self, outputs: Outputs, batch: Batch) -> Mapping[str, Tensor]:
        """Return the cross entropy of the pooled clips, mean over examples."""
        return {"loss": cross_entropy(outputs.logits, batch.targets["labels"], pool=self.objective.pool)}

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the softmax of the pooled logits."""
        return class_probabilities(logits, pool=self.objective.pool)
