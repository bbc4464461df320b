"""Heads: what is made of the fused sequence.

Legend: M text rows times clips, L text tokens, D width, C classes, W vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertPredictionHeadTransform

from clipbert_cli.recipe.schema import ModelConfig


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """Which head a task needs.

    `classifier` gives `num_outputs` scores per text row: the answers of open-ended questions, 1 for multiple choice
    (a row is an option), 2 or 1 for retrieval. `pretraining` predicts masked words and whether text and media match;
    its `num_outputs` are the 2 matching classes.
    """

    kind: Literal["classifier", "pretraining"]
    num_outputs: int

    def __post_init__(self) -> None:
        if self.kind not in HEADS:
            raise ValueError(f"head.kind is {self.kind!r}: it must be one of {', '.join(HEADS)}")
        if self.num_outputs < 1:
            raise ValueError(f"head.num_outputs is {self.num_outputs}: it must be at least 1")
        if self.kind == "pretraining" and self.num_outputs != 2:
            raise ValueError(f"head.num_outputs is {self.num_outputs}: the pretraining head has 2, match and no match")


class Fused(NamedTuple):
    """What the transformer makes of text and visual tokens: `sequence` (M, L+V, D), `pooled` (M, D) in -1..1."""

    sequence: Tensor
    pooled: Tensor


class Scores(NamedTuple):
    """What a head makes of it: `logits` (M, C), and (M, L, W) `mlm_logits` from the pretraining head."""

    logits: Tensor
    mlm_logits: Tensor | None = None


class ClassifierHead(nn.Module):
    """Dropout on the pooled first token, then D -> scale * D -> ReLU -> C, or D -> C where `kind` is linear."""

    reads_words: ClassVar[bool] = False
    """Whether other tokens than the first are looked at: the text's."""

    def __init__(self, config: ModelConfig, bert: BertConfig, num_outputs: int) -> None:
        super().__init__()
        width, hidden = config.bert.hidden_size, config.head.hidden_scale * config.bert.hidden_size
        self.dropout = nn.Dropout(config.bert.hidden_dropout)
        if config.head.kind == "linear":
            self.layers = nn.Sequential(nn.Linear(width, num_outputs))
        else:
            self.layers = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, num_outputs))

    def forward(self, fused: Fused, *, text_length: int, word_embeddings: Tensor) -> Scores:
        return Scores(self.layers(self.dropout(fused.pooled)))  # (M, C)


class PretrainingHead(nn.Module):
    """Masked words at the text positions (BERT's head, its output weights are the word embeddings), and matching."""

    reads_words: ClassVar[bool] = True

    def __init__(self, config: ModelConfig, bert: BertConfig, num_outputs: int) -> None:
        super().__init__()
        self.transform = BertPredictionHeadTransform(bert)
        self.mlm_bias = nn.Parameter(torch.zeros(config.bert.vocab_size))
        self.itm = nn.Linear(config.bert.hidden_size, num_outputs)

    def forward(self, fused: Fused, *, text_length: int, word_embeddings: Tensor) -> Scores:
        words = self.transform(fused.sequence[:, :text_length])  # (M, L, D)
        return Scores(self.itm(fused.pooled), F.linear(words, word_embeddings, self.mlm_bias))  # (M, 2), (M, L, W)


HEADS: dict[str, Callable[[ModelConfig, BertConfig, int], nn.Module]] = {
    "classifier": ClassifierHead,
    "pretraining": PretrainingHead,
}
