"""Code shared by the tasks whose predictions are answers: accuracy, and answers from a vocabulary."""

from __future__ import annotations

import dataclasses
import functools
import json
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from clipbert_cli.recipe.schema import InferConfig, ObjectiveConfig
from clipbert_cli.task.base import Task
from clipbert_cli.task.intervals import Sample
from clipbert_cli.task.metrics import Measure
from clipbert_cli.text.annotations import normal_answers, normal_form
from clipbert_cli.text.fields import RecordError
from clipbert_cli.types import Batch, Example, Outputs, Prediction, PredictionKey

if TYPE_CHECKING:
    from torch import Tensor


class AnswerTask(Task):
    """A task that predicts one `answer` per example and scores it by accuracy."""

    truth_fields: ClassVar[tuple[str, ...]] = ("answer",)

    def score(self, fields: Mapping[PredictionKey, Mapping[str, Any]], examples: Sequence[Example]) -> dict[str, Any]:
        """Return the accuracy overall and by answer type; a media error counts 0."""
        accuracy, *of_types = self.measures(fields, examples)
        by_type = {
            each.name.removeprefix("by_type/"): {"accuracy": each.value, "count": len(each.sample.values)}
            for each in of_types
        }
        return {"accuracy": accuracy.value, "count": len(examples), "by_type": by_type}

    def measures(self, fields: Mapping[PredictionKey, Mapping[str, Any]], examples: Sequence[Example]) -> list[Measure]:
        """Return the accuracy overall and by answer type, in alphabetical order, as values of examples.

        Examples without a type count in the overall accuracy only.
        """

        def measure(name: str, label: str, of: Sequence[Example]) -> Measure:
            credits = [self._credit(fields[example.key], example) for example in of]
            return Measure(name, f"{label} %", Sample(credits, [example.media_id for example in of]))

        of_types: dict[str, list[Example]] = {}
        for example in examples:
            if example.answer_type is not None:
                of_types.setdefault(example.answer_type, []).append(example)
        return [
            measure("accuracy", "accuracy", examples),
            *(measure(f"by_type/{kind}", kind, of_types[kind]) for kind in sorted(of_types)),
        ]

    def judged(self, fields: Mapping[str, Any], example: Example) -> dict[str, Any]:
        """Return `truth` and `correct`, if the record has an answer."""
        if example.target is None:
            return {}
        return {"truth": example.target, "correct": self._credit(fields, example)}

    def check_prediction(self, fields: Mapping[str, Any], example: Example) -> None:
        """Raise RecordError for an `answer` of another type, and for a `score` that is no number."""
        self.check_answer(fields.get("answer"), example)
        top = fields.get("top", [])
        if not isinstance(top, list) or any(not isinstance(each, dict) for each in top):
            raise RecordError("top must be a list of objects with `answer` and `score`")
        for each in top:
            self.check_answer(each.get("answer"), example)
        for each in (fields, *top):
            if type(score := each.get("score", 0)) not in (int, float):
                raise RecordError(f"score is {json.dumps(score)}: it must be a number")

    def check_answer(self, answer: Any, example: Example) -> None:
        """Raise RecordError if a predicted answer is not such as the task predicts."""
        raise NotImplementedError

    def credit(self, answer: Any, target: Any) -> float:
        """Return what a predicted answer is worth, 0..1."""
        return float(answer == target)

    def _credit(self, fields: Mapping[str, Any], example: Example) -> float:
        return 0.0 if "media_error" in fields else self.credit(fields["answer"], example.target)

    def guess(self, trained: Sequence[Example], examples: Sequence[Example]) -> dict[str, Any]:
        """Return the score of the answer that is right most often in training."""
        right = Counter[Any]()
        for example in trained:
            right.update(self.worth_of_answers(example))
        if not right:
            return {}
        ((answer, _),) = right.most_common(1)
        fields = {example.key: {"answer": answer} for example in examples}
        return {
            "what": f"the most frequent answer, {json.dumps(answer, ensure_ascii=False)}",
            **self.score(fields, examples),
        }

    def worth_of_answers(self, example: Example) -> Mapping[Any, float]:
        """Return what each right answer of an example is worth."""
        return {} if example.target is None else {example.target: 1.0}


class VocabularyTask(AnswerTask):
    """A task that answers questions, with one output per answer of `data.answers`.

    The layer may be larger than the vocabulary (`objective.num_labels`), as in published checkpoints. Labels without an
    answer are never predicted.
    """

    required_fields = ("media_id", "question")
    needs_answers = True
    objective_settings = ("pool", "num_labels", "normalize_answers")

    def __init__(self, objective: ObjectiveConfig, infer: InferConfig, answers: Mapping[str, int] | None) -> None:
        if answers is not None and objective.normalize_answers:
            answers = normal_answers(answers)
        super().__init__(objective, infer, answers)

    def form_of(self, answer: str) -> str:
        """Return an answer as it is compared with others."""
        return normal_form(answer) if self.objective.normalize_answers else answer

    def _credit(self, fields: Mapping[str, Any], example: Example) -> float:
        # Predictions may come from elsewhere, with answers as people write them.
        form = fields if "media_error" in fields else {**fields, "answer": self.form_of(fields["answer"])}
        return super()._credit(form, example)

    def learnable(self, example: Example) -> Example | None:
        """Return the example, or None if its answer is not in the vocabulary."""
        return example if all(answer in self.answers for answer in self.answers_in(example)) else None

    def unknown_answer(self, example: Example) -> str | None:
        """Return an answer of the example if none of its answers can be predicted."""
        answers = self.answers_in(example)
        return answers[0] if answers and not any(answer in self.answers for answer in answers) else None

    @functools.cached_property
    def _of_form(self) -> Mapping[str, str]:
        """Normal form -> answer of the vocabulary."""
        return {normal_form(answer): answer for answer in self.answers}

    def alike_answer(self, answers: Iterable[str]) -> str:
        """Return the end of a message about answers outside the vocabulary, if it has one of them in another form."""
        alike = next(filter(None, (self._of_form.get(normal_form(answer)) for answer in answers)), None)
        return "" if alike is None else f"; it has {alike!r}, which objective.normalize_answers: true makes equal"

    def num_outputs(self) -> int:
        """Return `objective.num_labels`, or the number of answers if it is null."""
        return self.objective.num_labels or len(self.answers)

    def validation_losses(self, outputs: Outputs, batch: Batch) -> tuple[Mapping[str, Tensor], int]:
        """Return the losses of the examples with an answer in the vocabulary."""
        learnable = {row: known for row, each in enumerate(batch.examples) if (known := self.learnable(each))}
        if not learnable:
            return {}, 0
        rows = Outputs(outputs.logits[list(learnable)])
        return super().validation_losses(rows, dataclasses.replace(batch, examples=tuple(learnable.values())))

    @abstractmethod
    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the probabilities (N, answers) of logits (N, K, answers)."""

    def predict(self, outputs: Outputs, batch: Batch) -> list[Prediction]:
        """Return predictions with the fields `answer`, `score` (its probability) and `top` (the `infer.top` best)."""
        # The vocabulary is in the order of its labels, so that label i is the answer at position i.
        names = list(self.answers)
        # Labels that no answer has are cut off before the softmax, so that they take no share of the probability.
        shares = self.probabilities(outputs.logits[..., : len(names)].float())  # (N, answers)
        scores, labels = shares.topk(min(self.infer.top, len(names)), dim=-1)  # (N, top)
        predictions = []
        for example, row_scores, row_labels in zip(batch.examples, scores.tolist(), labels.tolist(), strict=True):
            top = [
                {"answer": names[label], "score": score} for score, label in zip(row_scores, row_labels, strict=True)
            ]
            predictions.append(Prediction(example.key, {**top[0], "top": top}))
        return predictions

    def described(self, example: Example) -> dict[str, Any]:
        """Return the question."""
        return {"question": example.texts[0]}

    def check_answer(self, answer: Any, example: Example) -> None:
        """Raise RecordError if an answer is not text."""
        if not isinstance(answer, str):
            raise RecordError(f"answer is {json.dumps(answer)}: it must be text")
