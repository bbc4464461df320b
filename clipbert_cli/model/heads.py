"""Heads: scores from the fused sequence.

Legend: S sequences (text rows times clips), L text tokens, V visual tokens, D width, C classes, M words to predict,
W vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

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

    Args:
        task: the task that the outputs belong to; None if it is not known.
        answers: the answers of the first outputs, in order; None if the task has no vocabulary of answers.

    Raises:
        ValueError: an impossible number of outputs, or answers that do not fit them.
    """

    kind: Literal["classifier", "pretraining"]
    num_outputs: int
    task: str | None = None
    answers: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.num_outputs < 1:
            raise ValueError(f"head.num_outputs is {self.num_outputs}: it must be at least 1")
        if self.kind == "pretraining" and self.num_outputs != 2:
            raise ValueError(f"head.num_outputs is {self.num_outputs}: the pretraining head has 2, match and no match")
        if self.answers is not None and not len({*self.answers}) == len(self.answers) <= self.num_outputs:
            raise ValueError(
                f"head.answers has {len(self.answers)} answers for {self.num_outputs} outputs: each needs an output of "
                "its own"
            )


class Fused(NamedTuple):
    """Output of the transformer: `sequence` (S, L+V, D), text first, and `pooled` (S, D) in -1..1."""

    sequence: Tensor
    pooled: Tensor


class Scores(NamedTuple):
    """Output of a head: `logits` (S, C), and from the pretraining head `mlm_logits` (M, W) of the wanted words."""

    logits: Tensor
    mlm_logits: Tensor | None = None


OUTPUT_LAYERS = ("head.layers.2.", "head.itm.")
"""The starts of the names of the layers that have one row per output: a classifier's, and that of pretraining."""


WIDTH_MULTIPLE = 8
"""Scores of words are computed for a vocabulary that is padded to a multiple of this."""


class ClassifierHead(nn.Module):
    """A classifier of the pooled token: dropout, D to 2 D channels, ReLU, 2 D to C channels."""

    def __init__(self, sizes: BertSizes, num_outputs: int) -> None:
        super().__init__()
        self.num_outputs = num_outputs
        width = sizes.hidden_size
        self.dropout = nn.Dropout(sizes.hidden_dropout)
        self.layers = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, num_outputs))

    def forward(self, fused: Fused, *, words: Tensor | None = None, word_embeddings: Tensor | None = None) -> Scores:
        """Score from `pooled` alone; the other arguments are for the head that predicts words."""
        return Scores(self.layers(self.dropout(fused.pooled)))  # (S, C)


class PretrainingHead(nn.Module):
    """The head of pretraining: predicts masked words, and whether text and media match.

    The masked word head is BERT's: linear, GELU, layer norm, then the product with the word embeddings, whose weights
    it shares.
    """

    def __init__(self, sizes: BertSizes, num_outputs: int) -> None:
        super().__init__()
        self.num_outputs = num_outputs
        width = sizes.hidden_size
        self.transform = nn.Linear(width, width)
        self.activation = activation(sizes)
        self.norm = layer_norm(sizes)
        self.mlm_bias = nn.Parameter(torch.zeros(sizes.vocab_size))
        self.itm = nn.Linear(width, num_outputs)

    def forward(self, fused: Fused, *, words: Tensor | None = None, word_embeddings: Tensor | None = None) -> Scores:
        """Score whether text and media match, and the wanted words.

        Args:
            words: (2, M) int64, sequence and token of each word to predict; None predicts none.
            word_embeddings: (W, D), needed for them.
        """
        matches = self.itm(fused.pooled)  # (S, 2)
        if words is None:
            return Scores(matches)
        assert word_embeddings is not None
        sequences, tokens = words
        # Some 15 % of the tokens are predicted. They are gathered first, because the product with the vocabulary is the
        # most costly operation of the head.
        wanted = self.norm(self.activation(self.transform(fused.sequence[sequences, tokens])))  # (M, D)
        return Scores(matches, self._word_scores(wanted, word_embeddings))  # (S, 2), (M, W)

    def _word_scores(self, wanted: Tensor, word_embeddings: Tensor) -> Tensor:
        """Score tokens (M, D) against the words of the vocabulary, whose embeddings are (W, D): (M, W)."""
        # Tensor cores are fast for widths that are multiples of 8, but BERT's vocabulary has 30,522 words.
        padding = -len(word_embeddings) % WIDTH_MULTIPLE
        weight, bias = F.pad(word_embeddings, (0, 0, 0, padding)), F.pad(self.mlm_bias, (0, padding))
        return F.linear(wanted, weight, bias)[:, : len(word_embeddings)]


def in_every_clip(words: Tensor, clips: int) -> Tensor:
    """Return sequence and token (2, M*K) of each word in each clip, from text row and token (2, M) of M words."""
    rows, tokens = words[:, :, None]  # (M, 1) each
    sequences = rows * clips + torch.arange(clips, device=words.device)  # (M, K)
    return torch.stack([sequences, tokens.expand_as(sequences)]).flatten(1)


HEADS: dict[str, Callable[[BertSizes, int], nn.Module]] = {
    "classifier": ClassifierHead,
    "pretraining": PretrainingHead,
}
