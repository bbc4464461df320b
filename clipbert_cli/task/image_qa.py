"""Questions about images that ten people answered, so that every answer has a soft label (VQA v2).

Each answer of the vocabulary is a separate yes-or-no decision. The most probable answer is predicted and is worth its
soft label: 0.3, 0.6, 0.9 and 1.0 if 1, 2, 3 and at least 4 people gave it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from clipbert_cli.errors import PredictionsError
from clipbert_cli.task.answers import VocabularyTask
from clipbert_cli.task.base import COMMON_FIELDS, make_example
from clipbert_cli.task.pooling import binary_cross_entropy, label_probabilities
from clipbert_cli.text.fields import Record, RecordError
from clipbert_cli.types import Batch, Example, Outputs

if TYPE_CHECKING:
    from torch import Tensor


class ImageQa(VocabularyTask):
    """The task `image_qa`.

    Records have `media_id`, `question`, and `labels` {answer: 0..1}, or the list `answers` of what several people
    answered, or one `answer` (none of them if they are not known). They may have `answer_type` and `example_id`.
    """

    fields = (*COMMON_FIELDS, "question", "labels", "answers", "answer")
    truth_fields = ("answer", "answers", "labels")

    def parse(self, record: Record) -> Example:
        """Make an example of a record of any split. Answers outside the vocabulary are allowed but never predicted."""
        target = None
        if record.has("labels"):
            # Shares of people, not one answer: several answers of a question can be right to a degree.
            target = record.shares("labels")
        elif record.has("answers"):
            target = self._votes(record.votes("answers"))
        elif record.has("answer"):
            target = {record.text("answer"): 1.0}
        if target is not None and self.objective.normalize_answers:
            target = self._merged(target)
        return make_example(record, (record.text("question"),), target=target)

    def _merged(self, labels: Mapping[str, float]) -> dict[str, float]:
        """Return the labels of answers of the same form added up, at most 1."""
        merged: dict[str, float] = {}
        for answer, worth in labels.items():
            form = self.form_of(answer)
            merged[form] = min(1.0, merged.get(form, 0.0) + worth)
        return merged

    def _votes(self, labels: dict[str, float]) -> dict[str, float]:
        """Return the labels of answers that can be predicted: what people wrote is not limited to the vocabulary."""
        if self._answers is None:
            return labels
        return {answer: worth for answer, worth in labels.items() if self.form_of(answer) in self._answers}

    def truth_text(self, example: Example) -> str:
        """Return the answers with their worth, the best first."""
        worth = sorted((example.target or {}).items(), key=lambda each: -each[1])
        return ", ".join(f"{answer} ({share:g})" for answer, share in worth)

    def check_training(self, example: Example) -> None:
        """Raise RecordError for a label whose answer is not in the vocabulary.

        A question without any label is allowed: it teaches that no answer fits.
        """
        self.check_truth(example)
        if unknown := [answer for answer in example.target if answer not in self.answers]:
            raise RecordError(
                f"labels[{json.dumps(unknown[0])}]: the answer must be one of the {len(self.answers)} of data.answers"
                + self.alike_answer(unknown[:1])
            )

    def answers_in(self, example: Example) -> Sequence[str]:
        """Return the answers that are worth anything."""
        return [answer for answer, worth in (example.target or {}).items() if worth]

    def worth_of_answers(self, example: Example) -> Mapping[Any, float]:
        """Return the labels."""
        return example.target or {}

    def learnable(self, example: Example) -> Example | None:
        """Return the example without labels that cannot be learned; None if it had some and none is left."""
        known = {answer: worth for answer, worth in example.target.items() if answer in self.answers}
        return dataclasses.replace(example, target=known) if known or not example.target else None

    def targets(self, examples: Sequence[Example]) -> Mapping[str, np.ndarray]:
        """Return `labels` (Q, outputs) float32, the soft score at each answer's label."""
        labels = np.zeros((len(examples), self.num_outputs()), dtype=np.float32)
        for row, example in enumerate(examples):
            for answer, share in example.target.items():
                labels[row, self.answers[answer]] = share
        return {"labels": labels}

    def loss(self, outputs: Outputs, batch: Batch) -> Mapping[str, Tensor]:
        """Return the binary cross entropy of the pooled clips, summed over labels, mean over examples."""
        return {"loss": binary_cross_entropy(outputs.logits, batch.targets["labels"], pool=self.objective.pool)}

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the probability of each answer on its own. They need not sum to 1."""
        return label_probabilities(logits, pool=self.objective.pool)

    def credit(self, answer: Any, target: Any) -> float:
        """Return the soft label of the answer, 0 if nobody gave it."""
        return float(target.get(answer, 0.0))

    def submission(self, lines: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return [{"question_id": integer, "answer": text}, ...]; an image that failed has the answer ""."""
        answers: dict[int, str] = {}
        for line in lines:
            own_id = line.get("example_id") or ""
            # Ids may be unique for each image only. The server could not tell such questions apart.
            if not own_id.isdecimal() or int(own_id) in answers:
                raise PredictionsError(
                    f"question_id is {json.dumps(own_id)} ({line['media_id']!r}, {line['question']!r}): the evaluation "
                    "server identifies each question by a number of its own",
                    hint="number the questions of all images together, as question_id of their records",
                )
            answers[int(own_id)] = line.get("answer", "")
        return [{"question_id": number, "answer": answer} for number, answer in answers.items()]
