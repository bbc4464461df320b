"""Multiple choice: which of a few options is right (TGIF-QA action and transition, MSRVTT multiple choice).

Every option is a text row. It is read after its question if there is one. A model trained for this task has one output,
which scores an option. A retrieval model answers unchanged, by how well each option matches the media item.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from clipbert_cli.errors import UsageError
from clipbert_cli.task.answers import AnswerTask
from clipbert_cli.task.base import COMMON_FIELDS, make_example
from clipbert_cli.task.pooling import match_probability, multiple_choice, option_probabilities
from clipbert_cli.text.fields import Record, RecordError
from clipbert_cli.types import Batch, Example, Outputs, Prediction

if TYPE_CHECKING:
    from torch import Tensor


class MultipleChoice(AnswerTask):
    """The task `multiple_choice`.

    Records have `media_id` and `options` (at least two; `objective.num_options` of them, if that is set), and may have
    `question`, `answer` (the position of the right option, from 0, or its text), `answer_type` and `example_id`.
    """

    fields = (*COMMON_FIELDS, "question", "options", "answer")
    required_fields = ("media_id", "options")
    expected_fields = ("question",)
    # MSRVTT multiple choice has no training set of its own: the retrieval model ranks the options of each video, or the
    # matching head of pretraining.
    also_answers_runs_of = ("retrieval", "pretraining")
    use = 'clipbert ask --run {run} --{media} FILE "what is it?" --option "a cat" --option "a dog"'
    objective_settings = ("pool", "num_options", "as_original")

    def num_outputs(self) -> int:
        """Return 1: the score of an option."""
        return 1

    def parse(self, record: Record) -> Example:
        """Make an example of a record of any split; its texts are the options, its context is the question."""
        options = record.texts("options", count=self.objective.num_options, at_least=2)
        answer = record.choice("answer", options) if record.has("answer") else None
        question = record.text("question") if record.has("question") else None
        return make_example(record, options, target=answer, context=question)

    def truth_text(self, example: Example) -> str:
        """Return the text of the right option."""
        return "" if example.target is None else example.texts[example.target]

    def roles(self, example: Example) -> list[str]:
        """Return the position of each option, and which is right."""
        return [f"option {n}" + (", right" if n == example.target else "") for n in range(len(example.texts))]

    def targets(self, examples: Sequence[Example]) -> Mapping[str, np.ndarray]:
        """Return `labels` (Q,) int64, the position of the right option."""
        return {"labels": np.array([example.target for example in examples], dtype=np.int64)}

    def loss(self, outputs: Outputs, batch: Batch) -> Mapping[str, Tensor]:
        """Return the cross entropy over each question's options, mean over questions."""
        loss = multiple_choice(outputs.logits, batch.targets["labels"], pool=self.objective.pool, counts=_counts(batch))
        return {"loss": loss}

    def predict(self, outputs: Outputs, batch: Batch) -> list[Prediction]:
        """Return predictions with `answer` (a position), `option` (its text), `score` and `top` (all options).

        The scores are shares of 1 among the options. With a retrieval model each is the option's own probability to
        match. The first of equal scores is the answer.
        """
        pool = self.objective.pool
        counts = _counts(batch)
        # One output: a model trained for this task. Two: a retrieval model, whose class 1 is "match".
        if outputs.logits.shape[-1] == 1:
            padded = option_probabilities(outputs.logits, pool=pool, counts=counts).tolist()  # (Q, O)
            scores = [row[:count] for row, count in zip(padded, counts, strict=True)]
        else:
            scores = [row.tolist() for row in match_probability(outputs.logits, pool=pool).split(counts)]
        predictions = []
        for example, row in zip(batch.examples, scores, strict=True):
            # The sort is stable, so that of equal scores the first option is the answer.
            order = sorted(range(len(row)), key=row.__getitem__, reverse=True)
            top = [{"answer": option, "option": example.texts[option], "score": row[option]} for option in order]
            predictions.append(Prediction(example.key, {**top[0], "top": top}))
        return predictions

    def described(self, example: Example) -> dict[str, Any]:
        """Return the question, if there is one, and the options."""
        question = {} if example.context is None else {"question": example.context}
        return {**question, "options": list(example.texts)}

    def check_answer(self, answer: Any, example: Example) -> None:
        """Raise RecordError if an answer is not the position of an option."""
        # `type` and not `isinstance`: JSON's true is an int in Python, and would count as option 1.
        if type(answer) is not int or not 0 <= answer < len(example.texts):
            raise RecordError(
                f"answer is {json.dumps(answer)}: it must be an integer from 0 to {len(example.texts) - 1}"
            )

    def ask(self, media_id: str, text: str, options: Sequence[str]) -> Example:
        """Return the example of a question with its options.

        Raises:
            UsageError: there are fewer than two options.
        """
        if len(options) < 2:
            raise UsageError(
                f"--option is {'given once' if options else 'missing'}, but this run chooses between at least two",
                hint="give --option once for each option",
            )
        # Like a record: the question is the context that is read before each option.
        return Example(None, media_id, tuple(options), context=text)

    def answer_text(self, fields: Mapping[str, Any]) -> str:
        """Return the text of the chosen option."""
        return str(fields["option"])


def _counts(batch: Batch) -> list[int]:
    """Return the number of options of each question."""
    return [len(example.texts) for example in batch.examples]
