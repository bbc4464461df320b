"""Code shared by the tasks whose predictions are answers: accuracy, and answers from a vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clipbert_cli.errors import PredictionsError
from clipbert_cli.task.base import Task
from clipbert_cli.task.metrics import accuracy_by_type, accuracy_table
from clipbert_cli.types import Batch, Example, Outputs, Prediction

if TYPE_CHECKING:
    from torch import Tensor


class AnswerTask(Task):
    """A task that predicts one `answer` per example and scores it by accuracy."""

    def score(self, fields: Mapping[str, Mapping[str, Any]], examples: Sequence[Example]) -> dict[str, Any]:
        """Return the accuracy overall and by answer type; a media error counts 0."""
        credits = []
        for example in examples:
            if example.target is None:
                raise PredictionsError(
                    f"example {example.example_id!r} has no answer in the ground truth",
                    hint="score a split with answers",
                )
            found = fields[example.example_id]
            credits.append(0.0 if "media_error" in found else self.credit(found.get("answer"), example))
        return accuracy_by_type(credits, [example.answer_type for example in examples])

    def credit(self, answer: Any, example: Example) -> float:
        """Return what a predicted answer is worth, 0..1; raise PredictionsError if it has the wrong type."""
        raise NotImplementedError

    def table(self, metrics: Mapping[str, Any]) -> list[tuple[str, ...]]:
        """Return one row per answer type, and one for all examples."""
        return accuracy_table(metrics)


class VocabularyTask(AnswerTask):
    """A task with one output per answer of `data.answers`.

    The layer may be larger than the vocabulary (`objective.num_labels`), as in published checkpoints. Labels without an
    answer are never predicted.
    """

    needs_answers = True
    objective_settings = ("pool", "num_labels")

    def num_outputs(self) -> int:
        """Return `objective.num_labels`, or the number of answers if it is null."""
        return self.objective.num_labels or len(self.answers)

    def predict_answers(
        self, outputs: Outputs, batch: Batch, probabilities: Callable[[Tensor], Tensor]
    ) -> list[Prediction]:
        """Return predictions with the fields `answer`, `score` (its probability) and `top` (the `infer.top` best).

        Args:
            probabilities: logits (N, K, answers) -> probabilities (N, answers).
        """
        # The vocabulary is in the order of its labels, so that label i is the answer at position i.
        names = list(self.answers)
        # Labels that no answer has are cut off before the softmax, so that they take no share of the probability.
        shares = probabilities(outputs.logits[..., : len(names)].float())  # (N, answers)
        scores, labels = shares.topk(min(self.infer.top, len(names)), dim=-1)  # (N, top)
        predictions = []
        for example, row_scores, row_labels in zip(batch.examples, scores.tolist(), labels.tolist(), strict=True):
            top = [
                {"answer": names[label], "score": score} for score, label in zip(row_scores, row_labels, strict=True)
            ]
            predictions.append(Prediction(example.example_id, example.media_id, {**top[0], "top": top}))
        return predictions

    def credit(self, answer: Any, example: Example) -> float:
        """Return what the target says the answer is worth."""
        if not isinstance(answer, str):
            raise PredictionsError(f"example {example.example_id!r}: answer is {answer!r}, but must be text")
        return self.worth(answer, example.target)

    def worth(self, answer: str, target: Any) -> float:
        """Return 1 if the answer is the target, else 0."""
        return float(answer == target)
