"""Text-to-video retrieval (MSRVTT, DiDeMo, ActivityNet Captions): does this text belong to this media item?

Training shows each media item its own text and `num_negatives` texts of other items. Evaluation scores every text with
every item; a media item is decoded and encoded once, however many texts it meets.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from clipbert_cli.errors import AnnotationError, PredictionsError
from clipbert_cli.model.heads import HeadSpec
from clipbert_cli.task.answers import example_id
from clipbert_cli.task.base import Draw, Task
from clipbert_cli.task.metrics import recall_table, retrieval_metrics
from clipbert_cli.task.pooling import cross_entropy, match_probability, rank_margin
from clipbert_cli.text.annotations import Record
from clipbert_cli.types import Batch, Example, Group, Outputs, Prediction


def caption_example(record: Record) -> Example:
    """A text that belongs to a media item; which one it is, is the truth."""
    return Example(
        example_id=example_id(record), media_id=record.identifier("media_id"), texts=(record.text("caption"),)
    )


class Retrieval(Task):
    """Records have `media_id` and `caption`, and may have `example_id`."""

    main_metric = "recall_at_1"
    every_pair = True

    def head(self) -> HeadSpec:
        """Two classes, no match and match; one score for the margin loss."""
        return HeadSpec(kind="classifier", num_outputs=1 if self.objective.loss == "margin" else 2)

    def parse(self, record: Record) -> Example:
        """An example of any split; the truth is its media item."""
        return caption_example(record)

    def check_truth(self, example: Example) -> None:
        """A caption's truth is the media item it belongs to, so it is always there."""

    def draw(self, groups: Sequence[Group], *, training: bool) -> Draw | None:
        """Negative captions in training.

        Raises:
            AnnotationError: all captions belong to one media item.
        """
        return NegativeCaptions(groups, self.objective.num_negatives) if training else None

    def targets(self, examples: Sequence[Example]) -> Mapping[str, torch.Tensor]:
        """`labels` (N,) int64: 1 for an example's own text, which comes first, 0 for the others."""
        return {
            "labels": torch.tensor([int(number == 0) for example in examples for number in range(len(example.texts))])
        }

    def loss(self, outputs: Outputs, batch: Batch) -> Mapping[str, torch.Tensor]:
        """Cross entropy, mean over text rows; or the margin loss, mean over negatives."""
        pool = self.objective.pool
        if self.objective.loss == "margin":
            texts = 1 + self.objective.num_negatives
            margin = rank_margin(outputs.logits, pool=pool, texts_per_item=texts, margin=self.objective.margin)
            return {"loss": margin}
        return {"loss": cross_entropy(outputs.logits, batch.targets["labels"], pool=pool)}

    def predict(self, outputs: Outputs, batch: Batch) -> list[Prediction]:
        """For each media item `scores`, the probability of each text of the split to match, float32 in their order,
        and `texts`, a checksum of the texts' ids.

        Nothing is rounded: rounded scores tie, and ties decide ranks.
        """
        scores = match_probability(outputs.logits, pool=self.objective.pool)  # (B * texts,)
        rows = scores.view(len(batch.media_ids), -1).float().cpu().numpy()  # (B, texts)
        texts = checksum(batch.examples)
        return [
            Prediction(media_id, media_id, {"texts": texts, "scores": row})
            for media_id, row in zip(batch.media_ids, rows, strict=True)
        ]

    def score(self, fields: Mapping[str, Mapping[str, Any]], examples: Sequence[Example]) -> dict[str, Any]:
        """Recall at 1, 5, 10 and ranks, text to media at the top, media to text under `video_to_text`."""
        media = list(dict.fromkeys(example.media_id for example in examples))
        expected = checksum(examples)
        scores = np.empty((len(examples), len(media)), dtype=np.float32)
        for column, media_id in enumerate(media):
            if "media_error" in fields[media_id]:  # behind all others, and its own texts behind those
                scores[:, column] = [-2.0 if example.media_id == media_id else -1.0 for example in examples]
                continue
            if fields[media_id].get("texts") != expected:
                raise PredictionsError(
                    f"media item {media_id!r}: its scores are of other texts than those of the split",
                    hint="predict again with the annotations that are scored against",
                )
            scores[:, column] = _scores_of(media_id, fields[media_id].get("scores"), len(examples))
        position = {media_id: column for column, media_id in enumerate(media)}
        media_of_text = [position[example.media_id] for example in examples]
        return retrieval_metrics(scores, media_of_text, one_text_per_media=self.objective.one_text_per_media)

    def table(self, metrics: Mapping[str, Any]) -> list[tuple[str, ...]]:
        """One row a direction."""
        return recall_table(metrics)


def checksum(examples: Sequence[Example]) -> str:
    """Eight hexadecimal digits that depend on the examples' ids and their order."""
    return f"{zlib.crc32(chr(0).join(example.example_id for example in examples).encode()):08x}"


def _scores_of(media_id: str, value: Any, count: int) -> np.ndarray:
    try:
        scores = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError):
        scores = np.empty(0, dtype=np.float32)
    if scores.shape != (count,) or not np.isfinite(scores).all():
        raise PredictionsError(f"media item {media_id!r}: scores must be {count} finite numbers, one for each text")
    return scores


@dataclass(frozen=True)
class NegativeCaptions:
    """Puts captions of other media items behind each caption; never one of the same item, however many it has.

    Items are drawn uniformly over groups, as the original does, with replacement; a group's caption uniformly.

    Raises:
        AnnotationError: there is no other media item.
    """

    groups: Sequence[Group]
    count: int

    def __post_init__(self) -> None:
        if len({group.media_id for group in self.groups}) < 2:
            raise AnnotationError(
                f"all captions belong to the media item {self.groups[0].media_id!r}: retrieval learns from captions "
                "of others",
                hint="training needs at least two media items",
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
        """A caption of another media item than the group's."""
        while True:
            drawn = self.groups[int(rng.integers(len(self.groups)))]
            if drawn.media_id != group.media_id:
                return drawn.examples[int(rng.integers(len(drawn.examples)))].texts[0]
