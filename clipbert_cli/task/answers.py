"""What the tasks share whose answers come from a vocabulary: questions about videos, questions about images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clipbert_cli.errors import PredictionsError
from clipbert_cli.task.base import Task
from clipbert_cli.task.metrics import accuracy_by_type, accuracy_table
from clipbert_cli.text.annotations import Record
from clipbert_cli.types import Example, Prediction

if TYPE_CHECKING:
    from torch import Tensor

    from clipbert_cli.model.heads import HeadSpec
    from clipbert_cli.types import Batch, Outputs


class VocabularyTask(Task):
    """A task with one output per answer of `data.answers`.

    The layer may be larger than the vocabulary (`objective.num_labels`), as in published checkpoints. Labels without an
    answer are never predicted.
    """

    needs_answers = True

    def head(self) -> HeadSpec:
        """Return a classifier over the answers, or over `objective.num_labels` labels if those are more."""
        from clipbert_cli.model.heads import HeadSpec

        return HeadSpec(kind="classifier", num_outputs=max(len(self.answers), self.objective.num_labels or 0))

    def predict_answers(
        self, outputs: Outputs, batch: Batch, probabilities: Callable[[Tensor], Tensor]
    ) -> list[Prediction]:
        """Return predictions with the fields `answer`, `score` (its probability) and `top` (the `infer.top` best).

        Args:
            probabilities: logits (N, K, answers) -> probabilities (N, answers).
        """
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

    def score_answers(
        self,
        fields: Mapping[str, Mapping[str, Any]],
        examples: Sequence[Example],
        credit: Callable[[str, Any], float],
    ) -> dict[str, Any]:
        """Return the accuracy overall and by answer type.

        Args:
            credit: (answer, target) -> what the answer is worth, 0..1.
        """

        def worth(answer: Any, example: Example) -> float:
            if not isinstance(answer, str):
                raise PredictionsError(f"example {example.example_id!r}: answer is {answer!r}, but must be text")
            return credit(answer, example.target)

        return answer_accuracy(fields, examples, worth)

    def table(self, metrics: Mapping[str, Any]) -> list[tuple[str, ...]]:
        """Return one row per answer type, and one for all examples."""
        return accuracy_table(metrics)


def answer_accuracy(
    fields: Mapping[str, Mapping[str, Any]], examples: Sequence[Example], worth: Callable[[Any, Example], float]
) -> dict[str, Any]:
    """Return the accuracy of predictions with an `answer`, overall and by answer type; a media error counts 0.

    Args:
        worth: (answer, example) -> 0..1. Raises PredictionsError if the answer has the wrong type.

    Raises:
        PredictionsError: the ground truth has no answer, or `worth` raises it.
    """
    credits = []
    for example in examples:
        if example.target is None:
            raise PredictionsError(
                f"example {example.example_id!r} has no answer in the ground truth", hint="score a split with answers"
            )
        found = fields[example.example_id]
        credits.append(0.0 if "media_error" in found else worth(found.get("answer"), example))
    return accuracy_by_type(credits, [example.answer_type for example in examples])


def answer_type(record: Record) -> str | None:
    """Return the record's answer type, or None if it has none."""
    return record.text("answer_type") if record.has("answer_type") else None


def example_id(record: Record) -> str:
    """Return the record's id. A record without one is known by its number in the file, counted from 0."""
    return record.identifier("example_id") if record.has("example_id") else str(record.index)
