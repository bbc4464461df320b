"""What tasks share whose answers come from a vocabulary: questions about videos, questions about images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from clipbert_cli.errors import PredictionsError
from clipbert_cli.model.heads import HeadSpec
from clipbert_cli.task.base import Task
from clipbert_cli.task.metrics import accuracy_by_type, accuracy_table
from clipbert_cli.text.annotations import Record
from clipbert_cli.types import Batch, Example, Outputs, Prediction


class VocabularyTask(Task):
    """One output per answer of `data.answers`; `objective.num_labels` may ask for more than the vocabulary uses."""

    needs_answers = True

    def head(self) -> HeadSpec:
        """One output per answer, `objective.num_labels` where that is more."""
        return HeadSpec(kind="classifier", num_outputs=max(len(self.answers), self.objective.num_labels or 0))

    def predict_answers(
        self, outputs: Outputs, batch: Batch, probabilities: Callable[[Tensor], Tensor]
    ) -> list[Prediction]:
        """Fields: `answer`, its probability `score`, and `top`, the most probable answers with theirs.

        Labels that no answer has take no part.

        Args:
            probabilities: of logits (N, K, answers), (N, answers).
        """
        names = list(self.answers)
        shares = probabilities(outputs.logits[..., : len(names)].float())  # (N, answers)
        scores, labels = shares.topk(min(self.infer.top, len(names)), dim=-1)
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
        """Accuracy overall and by answer type; `credit` is what an answer, as text, is worth against a target."""

        def worth(answer: Any, example: Example) -> float:
            if not isinstance(answer, str):
                raise PredictionsError(f"example {example.example_id!r}: answer is {answer!r}: it must be text")
            return credit(answer, example.target)

        return answer_accuracy(fields, examples, worth)

    def table(self, metrics: Mapping[str, Any]) -> list[tuple[str, ...]]:
        """One row an answer type, and all together."""
        return accuracy_table(metrics)


def answer_accuracy(
    fields: Mapping[str, Mapping[str, Any]], examples: Sequence[Example], worth: Callable[[Any, Example], float]
) -> dict[str, Any]:
    """Accuracy overall and by answer type of predictions with an `answer`; a media error is worth nothing.

    Args:
        worth: of an answer, 0..1; raises PredictionsError where it is none.

    Raises:
        PredictionsError: the ground truth has no answer, or `worth` does.
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
    """The record's answer type, where it has one."""
    return record.text("answer_type") if record.has("answer_type") else None


def example_id(record: Record) -> str:
    """The record's id; without one, its number from 0."""
    return record.identifier("example_id") if record.has("example_id") else str(record.index)
