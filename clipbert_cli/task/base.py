"""The interface of a task: everything that differs between question answering, retrieval and pretraining.

    record ─► parse ─► Example ─► draw (training: negatives, masks) ─► collate ─► Texts ─► model ─► Outputs
                                                                                                       │
                  metrics ◄─ score ◄─ Prediction ◄─ predict ◄──────────────────────────────────────────┤
                                                                                       loss ◄──────────┘

One file in this package, one line in `registry.py` and one recipe add a task. No other package asks which task it is:
what a task needs from the predict path is declared here, as a class attribute or a method.

torch is imported inside functions only. `clipbert eval` parses records and scores predictions without it.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from clipbert_cli.errors import UsageError
from clipbert_cli.recipe.schema import InferConfig, ObjectiveConfig
from clipbert_cli.task.metrics import Measure
from clipbert_cli.text.annotations import group_by_media
from clipbert_cli.text.fields import Record, RecordError
from clipbert_cli.types import Batch, Example, Group, Outputs, Prediction, PredictionKey, Texts

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from clipbert_cli.model.heads import HeadSpec
    from clipbert_cli.text.tokenizer import Tokenizer

# Draws the random part of a group's texts each time the group is read. It depends on its two arguments only.
Draw = Callable[[Group, np.random.Generator], Group]


COMMON_FIELDS = ("example_id", "media_id", "start", "end", "answer_type")
"""The fields that every task reads (`make_example`)."""


class Task(ABC):
    """Owns the meaning of a record, the head, the loss, the prediction and the score.

    Args:
        objective: the recipe's `objective` section.
        infer: the recipe's `infer` section.
        answers: answer -> label. Needed only if `needs_answers`, and then only for training and prediction.
    """

    # The key of `score`'s result that decides the best checkpoint. Larger is better.
    main_metric: ClassVar[str] = "accuracy"
    # The scores at the top of `score`'s result, from which `train.best_metric` may choose, and which papers publish.
    metrics: ClassVar[tuple[str, ...]] = ("accuracy",)
    # The settings of `objective` that the task reads.
    objective_settings: ClassVar[tuple[str, ...]] = ("pool",)
    # The fields of a record that the task reads, by their neutral names.
    fields: ClassVar[tuple[str, ...]] = COMMON_FIELDS
    # Those of them that every record needs, whatever it is read for.
    required_fields: ClassVar[tuple[str, ...]] = ("media_id",)
    # Those of them that are optional, and yet missed if no record has them.
    expected_fields: ClassVar[tuple[str, ...]] = ()
    # The kind of head that the model needs; `num_outputs` is its size.
    head_kind: ClassVar[Literal["classifier", "pretraining"]] = "classifier"
    # Whether the answers come from a vocabulary (`data.answers`).
    needs_answers: ClassVar[bool] = False
    # Whether every text is scored with every media item. Predictions then belong to media items, not to examples, and a
    # part of a split cannot be scored: ranks need all of them.
    ranks_media: ClassVar[bool] = False
    # The field that may hold a list of texts, each of which is an example.
    list_field: ClassVar[str | None] = None
    # The fields of a record that training and scoring learn the truth from.
    truth_fields: ClassVar[tuple[str, ...]] = ()
    # The command that trains the task.
    trained_by: ClassVar[Literal["finetune", "pretrain"]] = "finetune"
    # The Hub's name of the task.
    hub_task: ClassVar[str] = "visual-question-answering"
    # A command that uses the trained model {run}, with data of the kind {media}.
    use: ClassVar[str] = 'clipbert ask --run {run} --{media} FILE "what is it?"'
    # Other tasks whose trained models this task can use unchanged.
    also_answers_runs_of: ClassVar[tuple[str, ...]] = ()

    def __init__(self, objective: ObjectiveConfig, infer: InferConfig, answers: Mapping[str, int] | None) -> None:
        # `clipbert eval` builds a task without its vocabulary: truth and predictions hold answers as text.
        self.objective = objective
        self.infer = infer
        self._answers = answers

    @property
    def answers(self) -> Mapping[str, int]:
        """The answer vocabulary: answer -> label."""
        assert self._answers is not None, "this task was built without an answer vocabulary"
        return self._answers

    # ------------------------------------------------------------------------------------------ records to texts

    @abstractmethod
    def parse(self, record: Record) -> Example:
        """Make an example of a record of any split.

        Raises:
            RecordError: names the field, its value and what was expected.
        """

    def check_truth(self, example: Example) -> None:
        """Raise RecordError if predictions for the example cannot be scored."""
        if example.target is None:
            raise RecordError("the record has no answer: scoring needs one in every record")

    def check_training(self, example: Example) -> None:
        """Raise RecordError if training cannot learn from the example."""
        self.check_truth(example)

    def answers_in(self, example: Example) -> Sequence[str]:
        """Return the right answers of an example as texts, for tasks that choose from a vocabulary."""
        return ()

    def learnable(self, example: Example) -> Example | None:
        """Return what training can learn of an example, or None if that is nothing: see `data.on_unknown_answer`."""
        return example

    def unknown_answer(self, example: Example) -> str | None:
        """Return a right answer of the example if no prediction can be right: none of them is in the vocabulary."""
        return None

    def alike_answer(self, answers: Iterable[str]) -> str:
        """Return the end of a message about answers outside the vocabulary, if it has one of them in another form."""
        return ""

    def unneeded_fields(self, check: Callable[[Example], None] | None) -> tuple[str, ...]:
        """Return the fields that need not be readable where `check` is all that examples are checked by."""
        if check is None:
            return (*self.truth_fields, "answer_type")
        return ("answer_type",) if check == self.check_training else ()

    def draw(self, groups: Sequence[Group], *, training: bool) -> Draw | None:
        """Return the function that draws the random part of a group's texts, or None if nothing is random.

        Args:
            groups: all groups of the split.

        Raises:
            AnnotationError: the split does not allow it.
        """
        return None

    def collate(self, examples: Sequence[Example], tokenizer: Tokenizer, *, labelled: bool) -> Texts:
        """Return the text rows of the examples in order, and with `labelled` the targets that `loss` needs."""
        ids, mask = tokenizer(
            [text for example in examples for text in example.texts],
            contexts=[example.context for example in examples for _ in example.texts],
            # Where a question and an option are too long together: the original cuts the end, which can be the option.
            cut="end" if self.objective.as_original else "context",
        )
        return as_texts(ids, mask, self.targets(examples) if labelled else {})

    def targets(self, examples: Sequence[Example]) -> Mapping[str, np.ndarray]:
        """Return the arrays by name that `loss` compares the outputs with."""
        return {}

    # ------------------------------------------------------------------------------------------ for people

    def truth_text(self, example: Example) -> str:
        """Return the right answer as a person reads it; nothing if there is none."""
        return "" if example.target is None else str(example.target)

    def roles(self, example: Example) -> list[str]:
        """Return what each of `example.texts` is for the media item, such as `negative`; empty if it is clear."""
        return [""] * len(example.texts)

    # ------------------------------------------------------------------------------------------ outputs to scores

    @abstractmethod
    def num_outputs(self) -> int:
        """Return the number of outputs that the head has for each text row."""

    def head(self) -> HeadSpec:
        """Return the head that the model needs."""
        from clipbert_cli.model.heads import HeadSpec

        return HeadSpec(self.head_kind, self.num_outputs(), answers=tuple(self.answers) if self.needs_answers else None)

    @abstractmethod
    def loss(self, outputs: Outputs, batch: Batch) -> Mapping[str, Tensor]:
        """Return scalars by name. `loss` is back-propagated; it is a mean over the batch's examples."""

    def validation_losses(self, outputs: Outputs, batch: Batch) -> tuple[Mapping[str, Tensor], int]:
        """Return the losses of a batch without targets, and the number of examples that they are the means of.

        `outputs` and `batch` are those of `predict`. Examples that training cannot learn count neither way.
        """
        targets = {**batch.targets, **_as_tensors(self.targets(batch.examples), outputs.logits.device)}
        return self.loss(outputs, dataclasses.replace(batch, targets=targets)), len(batch.examples)

    @abstractmethod
    def predict(self, outputs: Outputs, batch: Batch) -> list[Prediction]:
        """Return one prediction per example in order; with `ranks_media` one per media item.

        `outputs` has one row per text row of the batch. With `ranks_media` it has, media item by media item, one row
        per text of the split, and `batch.examples` are those texts.
        """

    def key(self, example: Example) -> PredictionKey:
        """Return the key of the prediction that an example is scored by."""
        return PredictionKey(example.media_id) if self.ranks_media else example.key

    def described(self, example: Example) -> dict[str, Any]:
        """Return the texts of an example by the names of their fields, for people who read predictions."""
        return {"text": example.texts[0]}

    def judged(self, fields: Mapping[str, Any], example: Example) -> dict[str, Any]:
        """Return `truth` and `correct` (0 to 1) of a prediction; nothing if they are unknown or do not exist."""
        return {}

    def check_prediction(self, fields: Mapping[str, Any], example: Example) -> None:
        """Raise RecordError if the fields of a prediction, read from a file, are not such that `score` can use them."""
        return

    @abstractmethod
    def score(self, fields: Mapping[PredictionKey, Mapping[str, Any]], examples: Sequence[Example]) -> dict[str, Any]:
        """Compute the metrics of predictions against the ground truth. Shares are percentages.

        A prediction with `media_error` in place of its fields counts as wrong.

        Args:
            fields: the fields of the predictions by key, for all of `examples`; they fit `check_prediction`. With
                `ranks_media` the `scores` of each media item are in the order of `examples`.
            examples: the ground truth.
        """

    def guess(self, trained: Sequence[Example], examples: Sequence[Example]) -> dict[str, Any]:
        """Return what a guess scores that knows the training examples and neither media nor texts.

        Returns:
            `what`, a description of the guess, and some of the metrics of `score`; nothing if there is no such guess.
        """
        return {}

    @abstractmethod
    def measures(self, fields: Mapping[PredictionKey, Mapping[str, Any]], examples: Sequence[Example]) -> list[Measure]:
        """Return the numbers of `score`, for the same arguments, as values of examples; the main metric first."""

    def submission(self, lines: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return lines of predictions as the evaluation server of VQA reads them.

        Raises:
            UsageError: the server takes no predictions of this task.
            PredictionsError: a record has no number of its own.
        """
        raise UsageError(
            "--format is vqa-submission, but the run's task is not image_qa", hint="leave --format out for JSON lines"
        )

    # ------------------------------------------------------------------------------------------ questions

    def questions(
        self, examples: Sequence[Example], *, media_ids: Sequence[str], max_examples: int
    ) -> tuple[Sequence[Group], Sequence[Example]]:
        """Return the media items to predict for, and the examples whose texts all of them are scored with.

        Each group has its own examples where there are none for all.

        Args:
            media_ids: further media items, where every text is scored with every item.
            max_examples: the largest number of examples in a group. It changes speed and memory, never a prediction.
        """
        return group_by_media(examples, max_examples=max_examples), ()

    def ask(self, media_id: str, text: str, options: Sequence[str]) -> Example:
        """Return the example of a single question about a single media item, without annotations.

        Raises:
            UsageError: the task answers no such questions, or has no options to choose from.
        """
        if options:
            raise UsageError("--option: the run's task does not choose between options", hint="leave --option out")
        return Example(None, media_id, (text,))

    def require_ranking(self, purpose: str) -> None:
        """Raise UsageError unless the task scores every text with every media item; `purpose` needs that."""
        if not self.ranks_media:
            raise UsageError(
                f"{purpose} needs a retrieval run: this run's task does not score every text with every media item",
                hint="name the folder of a retrieval run with --run",
            )

    def answer_text(self, fields: Mapping[str, Any]) -> str:
        """Return the answer of one prediction as a person reads it."""
        return str(fields["answer"])


def make_example(record: Record, texts: tuple[str, ...], *, target: Any = None, context: str | None = None) -> Example:
    """Make an example of a record with the fields that all tasks share."""
    example_id = record.identifier("example_id") if record.has("example_id") else None
    return Example(
        example_id=example_id if example_id is None or record.part is None else f"{example_id}.{record.part}",
        media_id=record.item(),
        texts=texts,
        target=target,
        answer_type=record.text("answer_type") if record.has("answer_type") else None,
        context=context,
    )


def as_texts(
    ids: np.ndarray, mask: np.ndarray, targets: Mapping[str, np.ndarray], *, word_positions: np.ndarray | None = None
) -> Texts:
    """Return text rows as tensors that share the arrays' memory; ids and mask are (N, L)."""
    import torch

    words = None if word_positions is None else torch.from_numpy(word_positions)
    return Texts(torch.from_numpy(ids), torch.from_numpy(mask), _as_tensors(targets, "cpu"), words)


def _as_tensors(arrays: Mapping[str, np.ndarray], device: torch.device | str) -> dict[str, Tensor]:
    import torch

    return {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
