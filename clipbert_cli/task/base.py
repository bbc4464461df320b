"""What a task is. One file, one line of the registry (`registry.py`) and one recipe add a task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from clipbert_cli.errors import UsageError
from clipbert_cli.model.heads import HeadSpec
from clipbert_cli.recipe.schema import InferConfig, ObjectiveConfig
from clipbert_cli.text.annotations import Record, RecordError
from clipbert_cli.text.tokenizer import Tokenizer
from clipbert_cli.types import Batch, Example, Group, Outputs, Prediction, Texts

Draw = Callable[[Group, np.random.Generator], Group]
"""What is drawn anew of a group's texts each time it is read; a function of the group and the generator alone."""


class Task(ABC):
    """Owns a record's meaning, the head, the loss, the prediction and the score. No other room asks which task it is.

    Args:
        objective: the recipe's section of this name.
        infer: the recipe's section of this name.
        answers: answer -> label. Only where `needs_answers`, and there only to train and to predict.
    """

    main_metric: ClassVar[str] = "accuracy"
    """The score, a key of what `score` returns, that decides the best checkpoint; larger is better."""
    needs_answers: ClassVar[bool] = False
    """Whether answers come from a vocabulary (`data.answers`)."""
    every_pair: ClassVar[bool] = False
    """Whether every text is scored with every media item; then `predict` speaks of items, not of examples."""
    also_answers_runs_of: ClassVar[tuple[str, ...]] = ()
    """Other tasks whose trained models this one can use as they are."""

    def __init__(self, objective: ObjectiveConfig, infer: InferConfig, answers: Mapping[str, int] | None) -> None:
        self.objective = objective
        self.infer = infer
        self._answers = answers

    @property
    def answers(self) -> Mapping[str, int]:
        assert self._answers is not None, "this task was built without an answer vocabulary"
        return self._answers

    @abstractmethod
    def head(self) -> HeadSpec:
        """The head that the model needs."""

    @abstractmethod
    def parse(self, record: Record) -> Example:
        """Make an example of a record of any split; raises RecordError naming field, value and requirement."""

    def check_truth(self, example: Example) -> None:
        """Raise RecordError if the example cannot be scored."""
        if example.target is None:
            raise RecordError("the record has no answer: scoring needs one in every record")

    def check_training(self, example: Example) -> None:
        """Raise RecordError if training cannot learn from the example."""
        self.check_truth(example)

    def draw(self, groups: Sequence[Group], *, training: bool) -> Draw | None:
        """What is drawn of a group's texts; `groups` are all of the split. None: they are read as they are.

        Raises:
            AnnotationError: the split does not allow it.
        """
        return None

    def collate(self, examples: Sequence[Example], tokenizer: Tokenizer, *, labelled: bool) -> Texts:
        """The examples' text rows in order, and with `labelled` what `loss` needs of them."""
        ids, mask = tokenizer(
            [text for example in examples for text in example.texts],
            contexts=[example.context for example in examples for _ in example.texts],
        )
        return Texts(torch.from_numpy(ids), torch.from_numpy(mask), self.targets(examples) if labelled else {})

    def targets(self, examples: Sequence[Example]) -> Mapping[str, torch.Tensor]:
        """What `loss` needs of the examples, tensors by name."""
        return {}

    @abstractmethod
    def loss(self, outputs: Outputs, batch: Batch) -> Mapping[str, torch.Tensor]:
        """Scalars by name; `loss` is the one that is back-propagated, a mean over the batch's examples."""

    @abstractmethod
    def predict(self, outputs: Outputs, batch: Batch) -> list[Prediction]:
        """One prediction per example, in their order; with `every_pair` one per media item.

        `outputs` has a row for every text row of the batch; with `every_pair`, media item by media item, one for every
        text of the split.
        """

    def keys(self, examples: Sequence[Example]) -> list[str]:
        """What the examples' predictions are known by: their ids; with `every_pair` those of their media items."""
        names = (example.media_id if self.every_pair else example.example_id for example in examples)
        return list(dict.fromkeys(names))

    def ask(self, example_id: str, media_id: str, text: str, options: Sequence[str]) -> Example:
        """A single question about a single media item, without annotations.

        Raises:
            UsageError: the task takes no such questions, or options where it has none.
        """
        if options:
            raise UsageError("--option: the run's task has no options", hint="leave --option out")
        return Example(example_id, media_id, (text,))

    @abstractmethod
    def score(self, fields: Mapping[str, Mapping[str, Any]], examples: Sequence[Example]) -> dict[str, Any]:
        """Metrics of predictions against ground truth; loads no model. Shares are percentages. What has `media_error`
        in place of a prediction counts as wrong.

        Args:
            fields: the predictions' fields by example id (by media id with `every_pair`), for all of `examples`.
            examples: the ground truth.

        Raises:
            PredictionsError: a prediction lacks what the score needs.
        """

    @abstractmethod
    def table(self, metrics: Mapping[str, Any]) -> list[tuple[str, ...]]:
        """What `score` returned for a person: a row of headings, then rows; shares in percent with one decimal."""

    def answer_text(self, fields: Mapping[str, Any]) -> str:
        """The answer of one prediction for a person."""
        return str(fields["answer"])

    def formats(self) -> Mapping[str, Callable[[Prediction], Any]]:
        """Other forms of a split's predictions: name -> what a prediction becomes, in one JSON list."""
        return {}
