"""Heads: scores from the fused sequence.

Legend: S sequences (text rows times clips), L text tokens, V visual tokens, D width, C classes, W vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clipbert_cli.model.bert_sizes import BertSizes
from clipbert_cli.model.transformer import activation, layer_norm


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """The head that a task needs.

    `classifier` gives `num_outputs` scores per text row: one per answer for open-ended questions, 1 for multiple choice
    (a row is an option), 2 or 1 for retrieval. `pretraining` predicts masked words, and whether text and media match;
    its `num_outputs` are the 2 matching classes.

    Raises:
        ValueError: no such kind, or an impossible number of outputs.
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
    """Output of the transformer: `sequence` (S, L+V, D), text first, and `pooled` (S, D) in -1..1."""

    sequence: Tensor
    pooled: Tensor


class Scores(NamedTuple):
    """Output of a head: `logits` (S, C), and from the pretraining head `mlm_logits` (S, L, W)."""

    logits: Tensor
    mlm_logits: Tensor | None = None


class ClassifierHead(nn.Module):
    """Dropout on the pooled token, then D -> 2 D -> ReLU -> C."""

    reads_words: ClassVar[bool] = False
    """Whether the head reads the outputs of all text tokens, or only the pooled first one."""

    def __init__(self, sizes: BertSizes, num_outputs: int) -> None:
        super().__init__()
        self.num_outputs = num_outputs
        width = sizes.hidden_size
        self.dropout = nn.Dropout(sizes.hidden_dropout)
        self.layers = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, num_outputs))

    def matcher(self) -> nn.Module:
        """Return the head without its scores of words, of which it has none."""
        return self

    def forward(self, fused: Fused, *, text_length: int, word_embeddings: Tensor) -> Scores:
        """Score from `pooled` alone; the other arguments are for heads that read words."""
        return Scores(self.layers(self.dropout(fused.pooled)))  # (S, C)


class Matcher(nn.Module):
    """The matching part of a pretraining head, which shares its weights."""

    reads_words: ClassVar[bool] = False

    def __init__(self, itm: nn.Linear) -> None:
        super().__init__()
        self.num_outputs = itm.out_features
        self.itm = itm

    def forward(self, fused: Fused, *, text_length: int, word_embeddings: Tensor) -> Scores:
        """Score from `pooled` alone."""
        return Scores(self.itm(fused.pooled))  # (S, 2)


class PretrainingHead(nn.Module):
    """Masked words at the text positions, and whether text and media match.

    The masked word head is BERT's: linear, GELU, layer norm, then the product with the word embeddings, whose weights
    it shares.
    """

    reads_words: ClassVar[bool] = True

    def __init__(self, sizes: BertSizes, num_outputs: int) -> None:
        super().__init__()
        self.num_outputs = num_outputs
        width = sizes.hidden_size
        self.transform = nn.Linear(width, width)
        self.activation = activation(sizes)
        self.norm = layer_norm(sizes)
        self.mlm_bias = nn.Parameter(torch.zeros(sizes.vocab_size))
        self.itm = nn.Linear(width, num_outputs)

    def matcher(self) -> nn.Module:
        """Return the part that scores whether text and media match, without the costly scores of words."""
        return Matcher(self.itm)

    def forward(self, fused: Fused, *, text_length: int, word_embeddings: Tensor) -> Scores:
        """Score the first `text_length` tokens with `word_embeddings` (W, D)."""
        words = self.norm(self.activation(self.transform(fused.sequence[:, :text_length])))  # (S, L, D)
        return Scores(self.itm(fused.pooled), F.linear(words, word_embeddings, self.mlm_bias))  # (S, 2), (S, L, W)


HEADS: dict[str, Callable[[BertSizes, int], nn.Module]] = {
    "classifier": ClassifierHead,
    "pretraining": PretrainingHead,
}
