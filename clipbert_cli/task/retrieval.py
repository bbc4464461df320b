"""Text-to-video retrieval (MSRVTT, DiDeMo, ActivityNet Captions): does this text belong to this media item?

Training shows each media item its own text and `num_negatives` texts of other items. Evaluation scores every text with
every item. A media item is decoded and encoded once, however many texts it meets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clipbert_cli.errors import AnnotationError, UsageError
from clipbert_cli.task.base import COMMON_FIELDS, Draw, Task, make_example
from clipbert_cli.task.metrics import RECALLS, Measure, rank_measures, text_and_media_ranks
from clipbert_cli.task.pooling import cross_entropy, match_probability, rank_margin
from clipbert_cli.text.fields import Record
from clipbert_cli.types import Batch, Example, Group, Outputs, Prediction, PredictionKey

if TYPE_CHECKING:
    from torch import Tensor


class Retrieval(Task):
    """The task `retrieval`. Records have `media_id` and `caption` (one, or a list), and may have `example_id`."""

    fields = (*COMMON_FIELDS, "caption")
    required_fields = ("media_id", "caption")
    # A media item has one prediction: its scores with all texts.
    main_metric = "recall_at_1"
    metrics = (*(f"recall_at_{rank}" for rank in RECALLS), "median_rank", "mean_rank")
    # The matching head of pretraining has the two classes of retrieval: it scores pairs without finetuning.
    also_answers_runs_of = ("pretraining",)
    objective_settings = ("pool", "loss", "num_negatives", "as_original")
    ranks_media = True
    list_field = "caption"
    hub_task = "video-text-to-text"
    use = 'clipbert search FOLDER "a dog catches a frisbee" --run {run}'

    def num_outputs(self) -> int:
        """Return 2 for the classes no match and match; 1, a score, for the margin loss."""
        return 1 if self.objective.loss == "margin" else 2

    def parse(self, record: Record) -> Example:
        """Make an example of a record of any split."""
        return make_example(record, (record.text("caption"),))

    def check_truth(self, example: Example) -> None:
        """Accept every example: the truth is the media item, which every record names."""

    def questions(
        self, examples: Sequence[Example], *, media_ids: Sequence[str], max_examples: int
    ) -> tuple[Sequence[Group], Sequence[Example]]:
        """Return every media item of the examples and of `media_ids` once, and the examples as texts for all of them.

        An example with an empty media id is a text to search for, which belongs to no item.
        """
        # A dict keeps the order of first appearance, which decides the rows of a score folder.
        gallery = dict.fromkeys([*(example.media_id for example in examples if example.media_id), *media_ids])
        return [Group(media_id, ()) for media_id in gallery], examples

    def ask(self, media_id: str, text: str, options: Sequence[str]) -> Example:
        """Raise UsageError: a retrieval model answers no questions."""
        raise UsageError(
            "the run's task is retrieval: it finds media by text and answers no questions",
            hint=self.use.format(run="RUN"),
        )

    def draw(self, groups: Sequence[Group], *, training: bool) -> Draw | None:
        """Return a function that adds negative captions in training.

        Raises:
            AnnotationError: all captions belong to one media item.
        """
        return NegativeCaptions(groups, self.objective.num_negatives) if training else None

    def roles(self, example: Example) -> list[str]:
        """Return which text is the media item's own; training draws the others."""
        return ["own text", *["negative"] * (len(example.texts) - 1)]

    def targets(self, examples: Sequence[Example]) -> Mapping[str, np.ndarray]:
        """Return `labels` (N,) int64: 1 for an example's own text, which comes first, 0 for the others."""
        labels = [int(number == 0) for example in examples for number in range(len(example.texts))]
        return {"labels": np.array(labels, dtype=np.int64)}

    def loss(self, outputs: Outputs, batch: Batch) -> Mapping[str, Tensor]:
        """Return the cross entropy, mean over text rows; or the margin loss, mean over negatives."""
        import torch

        pool = self.objective.pool
        if self.objective.loss == "margin":
            # The rows of an item are its own text and then its negatives, as `NegativeCaptions` orders them.
            texts = 1 + self.objective.num_negatives
            first = torch.arange(texts, device=outputs.logits.device) == 0  # (texts,)
            is_own = first.expand(len(outputs.logits) // texts, -1)  # (B, texts)
            return {"loss": rank_margin(outputs.logits, is_own, pool=pool)}
        return {"loss": cross_entropy(outputs.logits, batch.targets["labels"], pool=pool)}

    def validation_losses(self, outputs: Outputs, batch: Batch) -> tuple[Mapping[str, Tensor], int]:
        """Return the expected training loss of the batch's own texts, with the texts of all other media as negatives.

        Training draws `num_negatives` of them. The mean over all of them is the same number without chance.
        """
        import torch

        owners = [example.media_id for example in batch.examples]
        own = [[owner == media_id for owner in owners] for media_id in batch.media_ids]
        is_own = torch.tensor(own, device=outputs.logits.device)  # (B, texts)
        count = int(is_own.sum())
        if count == 0 or bool(is_own.all()):
            return {}, 0
        pool, negatives = self.objective.pool, self.objective.num_negatives
        if self.objective.loss == "margin":
            return {"loss": rank_margin(outputs.logits, is_own, pool=pool)}, count
        labels = is_own.flatten().long()
        of_others, of_own = (
            cross_entropy(outputs.logits[labels == label], labels[labels == label], pool=pool) for label in (0, 1)
        )
        return {"loss": (of_own + negatives * of_others) / (1 + negatives)}, count

    def predict(self, outputs: Outputs, batch: Batch) -> list[Prediction]:
        """Return one prediction per media item.

        Its field `scores`, float32 (texts,), has the probability of each text of the split to match, in their order.
        """
        scores = match_probability(outputs.logits, pool=self.objective.pool)  # (B * texts,)
        # Nothing is rounded: rounded scores tie, and ties decide ranks.
        rows = scores.view(len(batch.media_ids), -1).float().cpu().numpy()  # (B, texts)
        return [
            Prediction(PredictionKey(media_id), {"scores": row})
            for media_id, row in zip(batch.media_ids, rows, strict=True)
        ]

    def score(self, fields: Mapping[PredictionKey, Mapping[str, Any]], examples: Sequence[Example]) -> dict[str, Any]:
        """Return recall at 1, 5 and 10 and ranks: text to media at the top, media to text under `video_to_text`."""
        of_texts: dict[str, Any] = {}
        of_media: dict[str, Any] = {}
        for measure in self.measures(fields, examples):
            prefix, _, name = measure.name.rpartition("/")
            (of_media if prefix else of_texts)[name] = measure.value
        media = {example.media_id for example in examples}
        return {**of_texts, "count": len(examples), "video_to_text": {**of_media, "count": len(media)}}

    def measures(self, fields: Mapping[PredictionKey, Mapping[str, Any]], examples: Sequence[Example]) -> list[Measure]:
        """Return recalls and ranks in both directions as values of texts and of media items."""
        scores = ScoreMatrix.of(fields, examples)
        of_texts, of_media = text_and_media_ranks(
            scores.values, scores.media_of_text, one_text_per_media=self.objective.as_original
        )
        own = [example.media_id for example in examples]
        return [
            *rank_measures(of_texts, own, prefix="", direction="text to video"),
            *rank_measures(of_media, scores.media_ids, prefix="video_to_text/", direction="video to text"),
        ]

    def guess(self, trained: Sequence[Example], examples: Sequence[Example]) -> dict[str, Any]:
        """Return the recall and ranks of a random order of the media."""
        media = len({example.media_id for example in examples})
        recalls = {f"recall_at_{rank}": 100 * min(rank, media) / media for rank in RECALLS}
        middle = (media + 1) / 2
        return {"what": "chance", **recalls, "median_rank": middle, "mean_rank": middle, "count": len(examples)}


@dataclass(frozen=True)
class ScoreMatrix:
    """The scores of every text of a split with every media item.

    Args:
        values: (N, M) float32.
        media_ids: the M media items in the order of their first text.
        media_of_text: the place of each text's own item in `media_ids`.
    """

    values: np.ndarray
    media_ids: list[str]
    media_of_text: list[int]

    @classmethod
    def of(cls, fields: Mapping[PredictionKey, Mapping[str, Any]], examples: Sequence[Example]) -> ScoreMatrix:
        """Put the predictions of all media items together."""
        media = list(dict.fromkeys(example.media_id for example in examples))
        scores = np.empty((len(examples), len(media)), dtype=np.float32)
        for column, media_id in enumerate(media):
            own = fields[PredictionKey(media_id)]
            if "media_error" in own:
                # Probabilities are at least 0. A failed item ranks behind all others (-1), and its own texts rank
                # behind all other texts (-2), so that it counts as wrong in both directions.
                scores[:, column] = [-2.0 if example.media_id == media_id else -1.0 for example in examples]
            else:
                scores[:, column] = own["scores"]
        position = {media_id: column for column, media_id in enumerate(media)}
        return cls(scores, media, [position[example.media_id] for example in examples])


@dataclass(frozen=True)
class NegativeCaptions:
    """Adds `count` captions of other media items behind each caption, never one of the same item.

    As in the original, a group is drawn uniformly and with replacement, and then one of its captions uniformly. An item
    with many captions has several groups and is drawn more often.

    Raises:
        AnnotationError: there is no other media item, or no other caption.
    """

    groups: Sequence[Group]
    count: int

    def __post_init__(self) -> None:
        # Without this check, `other` would draw for ever.
        if len({group.media_id for group in self.groups}) < 2:
            raise AnnotationError(
                f"all captions belong to the media item {self.groups[0].media_id!r}: retrieval learns from captions "
                "of others",
                hint="training needs at least two media items",
            )
        text = self.groups[0].examples[0].texts
        if all(example.texts == text for group in self.groups for example in group.examples):
            raise AnnotationError(
                f"all captions are {text[0]!r}: retrieval learns from captions that differ",
                hint="name the field that has the captions with data.fields.caption",
            )

    def __call__(self, group: Group, rng: np.random.Generator) -> Group:
        return Group(
            group.media_id,
            tuple(
                dataclasses.replace(
                    example, texts=(*example.texts, *(self.other(group, rng) for _ in range(self.count)))
                )
                for example in group.examples
            ),
        )

    def other(self, group: Group, rng: np.random.Generator) -> str:
        """Draw a caption of another media item than the group's."""
        while True:
            # Rejection is fast: the item's own groups are a small part of all.
            drawn = self.groups[int(rng.integers(len(self.groups)))]
            if drawn.media_id != group.media_id:
                return drawn.examples[int(rng.integers(len(drawn.examples)))].texts[0]
