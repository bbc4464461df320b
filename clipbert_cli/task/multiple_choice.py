"""Multiple choice: which of a few options is right (TGIF-QA action and transition, MSRVTT multiple choice).

Every option is a text row, read after its question where there is one. A model trained for it scores each option with
one output; a retrieval model answers as it is, by how well each option matches the media.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from clipbert_cli.errors import PredictionsError, UsageError
from clipbert_cli.model.heads import HeadSpec
from clipbert_cli.task.answers import answer_accuracy, answer_type, example_id
from clipbert_cli.task.base import Task
from clipbert_cli.task.metrics import accuracy_table
from clipbert_cli.task.pooling import match_probability, multiple_choice, option_probabilities
from clipbert_cli.text.annotations import Record
from clipbert_cli.text.tokenizer import Tokenizer
from clipbert_cli.types import Batch, Example, Outputs, Prediction, Texts


class MultipleChoice(Task):
    """Records have `media_id`, `options` (`objective.num_options` of them), and may have `question`, `answer` (the
    right option's position from 0), `answer_type` and `example_id`."""

    also_answers_runs_of = ("retrieval",)

    def head(self) -> HeadSpec:
        """One output per option."""
        return HeadSpec(kind="classifier", num_outputs=1)

    def parse(self, record: Record) -> Example:
        """An example of any split."""
        count = self.objective.num_options
        return Example(
            example_id=example_id(record),
            media_id=record.identifier("media_id"),
            texts=record.texts("options", count=count),
            target=record.integer("answer", below=count) if record.has("answer") else None,
            answer_type=answer_type(record),
            context=record.text("question") if record.has("question") else None,
        )

    def collate(self, examples: Sequence[Example], tokenizer: Tokenizer, *, labelled: bool) -> Texts:
        """Option by option, question by question; what is cut from a long row is `objective.cut_options`' to say."""
        ids, mask = tokenizer(
            [text for example in examples for text in example.texts],
            contexts=[example.context for example in examples for _ in example.texts],
            cut="end" if self.objective.cut_options else "context",
        )
        return Texts(torch.from_numpy(ids), torch.from_numpy(mask), self.targets(examples) if labelled else {})

    def targets(self, examples: Sequence[Example]) -> Mapping[str, torch.Tensor]:
        """`labels` (Q,) int64, the right option."""
        return {"labels": torch.tensor([example.target for example in examples])}

    def loss(self, outputs: Outputs, batch: Batch) -> Mapping[str, torch.Tensor]:
        """Cross entropy over each question's options, mean over questions."""
        loss = multiple_choice(
            outputs.logits, batch.targets["labels"], pool=self.objective.pool, num_options=self.objective.num_options
        )
        return {"loss": loss}

    def predict(self, outputs: Outputs, batch: Batch) -> list[Prediction]:
        """Fields: `answer`, the option's position; `option`, its text; `score`; and `scores` of all options.

        Scores are shares of 1 among the options, or with a retrieval model each option's own probability to match.
        """
        pool, count = self.objective.pool, self.objective.num_options
        if outputs.logits.shape[-1] == 1:
            scores = option_probabilities(outputs.logits, pool=pool, num_options=count)  # (Q, O)
        else:
            scores = match_probability(outputs.logits, pool=pool).view(-1, count)  # (Q, O)
        predictions = []
        for example, row in zip(batch.examples, scores.tolist(), strict=True):
            answer = row.index(max(row))
            fields = {"answer": answer, "option": example.texts[answer], "score": row[answer], "scores": row}
            predictions.append(Prediction(example.example_id, example.media_id, fields))
        return predictions

    def score(self, fields: Mapping[str, Mapping[str, Any]], examples: Sequence[Example]) -> dict[str, Any]:
        """Accuracy overall and by answer type."""

        def worth(answer: Any, example: Example) -> float:
            if type(answer) is not int or not 0 <= answer < len(example.texts):
                raise PredictionsError(
                    f"example {example.example_id!r}: answer is {answer!r}: it must be an integer from 0 to "
                    f"{len(example.texts) - 1}"
                )
            return float(answer == example.target)

        return answer_accuracy(fields, examples, worth)

    def table(self, metrics: Mapping[str, Any]) -> list[tuple[str, ...]]:
        """One row an answer type, and all together."""
        return accuracy_table(metrics)

    def ask(self, example_id: str, media_id: str, text: str, options: Sequence[str]) -> Example:
        """Raises UsageError without options; how many there are is `objective.num_options`."""
        if len(options) != self.objective.num_options:
            raise UsageError(
                f"{len(options)} options: objective.num_options is {self.objective.num_options}",
                hint="give each with --option",
            )
        return Example(example_id, media_id, tuple(options), context=text)

    def answer_text(self, fields: Mapping[str, Any]) -> str:
        return str(fields["option"])
