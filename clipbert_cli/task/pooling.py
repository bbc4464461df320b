"""Pooling over clips: the training loss beside the inference score.

Legend: N text rows, K clips, C classes, M masked words, W vocabulary, Q questions, O options, B media items.

Every clip predicts on its own. This file alone merges the K predictions into one (ClipBERT section 3.2, equation 3, and
the appendix). Logits are (N, K, C). Losses and scores are computed in float32 or better: in 16 bits, log-sum-exp over
many classes loses the small ones.

torch is imported inside functions, because `clipbert eval` imports the tasks without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# Clips are axis 1. `lse` is the paper's choice: unlike the mean it lets one clip with clear evidence decide, and
# unlike the maximum it passes gradients to all clips.
POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda logits: logits.mean(dim=1),
    "max": lambda logits: logits.max(dim=1).values,
    "lse": lambda logits: logits.logsumexp(dim=1),
}


def pool_clips(logits: Tensor, pool: str) -> Tensor:
    """Pool logits (N, K, C) to (N, C): element-wise mean, maximum or log-sum-exp over the clips."""
    return POOLS[pool](at_least_float32(logits))


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return float32 and float64 tensors unchanged, and 16-bit ones as float32."""
    return tensor if tensor.dtype.itemsize >= 4 else tensor.float()


# ---------------------------------------- one class of several: open-ended questions, retrieval with 2 outputs


def cross_entropy(logits: Tensor, labels: Tensor, *, pool: str) -> Tensor:
    """Return the mean over rows of the cross entropy of the pooled logits (N, K, C) with labels (N,).

    With `lse` this equals a softmax over clips and classes together, where the label's probability is the sum over the
    clips (equation 3 of the paper).
    """
    from torch.nn import functional as F

    return F.cross_entropy(pool_clips(logits, pool), labels)


def class_probabilities(logits: Tensor, *, pool: str) -> Tensor:
    """Return the softmax of the pooled logits, (N, K, C) -> (N, C). Rows sum to 1."""
    return pool_clips(logits, pool).softmax(dim=-1)


# ---------------------------------------- one option of several: an option is a text row with one output


def options_as_classes(logits: Tensor, counts: Sequence[int]) -> Tensor:
    """Reorder logits of option rows, (N, K, 1) question by question -> (Q, K, O), O options at most.

    A question with fewer options than O has -inf at the places of the others, which get no probability.

    Args:
        counts: number of options of each question; their sum is N.
    """
    from torch.nn.utils.rnn import pad_sequence

    questions = logits.squeeze(-1).split(list(counts))  # Q of (options, K)
    return pad_sequence(questions, batch_first=True, padding_value=-math.inf).transpose(1, 2)  # (Q, K, O)


def multiple_choice(logits: Tensor, labels: Tensor, *, pool: str, counts: Sequence[int]) -> Tensor:
    """Return the cross entropy over each question's options; logits (N, K, 1), labels (Q,)."""
    return cross_entropy(options_as_classes(logits, counts), labels, pool=pool)


def option_probabilities(logits: Tensor, *, pool: str, counts: Sequence[int]) -> Tensor:
    """Return the share of each option, (N, K, 1) -> (Q, O). Rows sum to 1."""
    return class_probabilities(options_as_classes(logits, counts), pool=pool)


# ---------------------------------------- does the text belong to the media: one output (ranked) or two (classified)


# What a match must be better by: a difference of scores, not of logits.
MARGIN = 0.2


def rank_margin(logits: Tensor, is_own: Tensor, *, pool: str) -> Tensor:
    """Return the mean of max(0, margin + other - own) over all pairs of an item's own text and another text.

    Scores are in 0..1.

    Args:
        logits: (B*N, K, 1), item by item, N texts with each item.
        is_own: (B, N) bool, which texts are an item's own.
        pool: `mean` or `max`; the original does not define `lse` for this loss.
    """
    scores = match_probability(logits, pool=pool).view(is_own.shape)  # (B, N)
    # Every pair is computed and the others are left out of the sum: selecting them would wait for the GPU.
    margins = (MARGIN + scores[:, None] - scores[:, :, None]).relu()  # (B, N own, N others)
    is_pair = is_own[:, :, None] & ~is_own[:, None]
    return (margins * is_pair).sum() / is_pair.sum()


def match_probability(logits: Tensor, *, pool: str) -> Tensor:
    """Return the probability to match, (N, K, C) -> (N,).

    With one output it is the sigmoid of the pooled logit, with two the softmax's share of class 1.
    """
    pooled = pool_clips(logits, pool)  # (N, 1 or 2)
    return pooled[:, 0].sigmoid() if pooled.shape[1] == 1 else pooled.softmax(dim=-1)[:, 1]


# ---------------------------------------- several answers with a soft label each: image questions


def binary_cross_entropy(logits: Tensor, targets: Tensor, *, pool: str) -> Tensor:
    """Return the binary cross entropy, summed over labels, mean over rows; logits (N, K, C), targets (N, C)."""
    from torch.nn import functional as F

    pooled = pool_clips(logits, pool)  # (N, C)
    # torch averages over rows and labels; the number of labels makes a sum of the second, as in the original.
    return F.binary_cross_entropy_with_logits(pooled, targets.to(pooled.dtype)) * pooled.shape[1]


def label_probabilities(logits: Tensor, *, pool: str) -> Tensor:
    """Return the probability of each label on its own, (N, K, C) -> (N, C)."""
    return pool_clips(logits, pool).sigmoid()


# ---------------------------------------- pretraining: nothing is pooled, every clip counts as an example


def masked_words(mlm_logits: Tensor, words: Tensor, *, positions: int) -> Tensor:
    """Return the cross entropy of the masked words, summed over words, mean over clips, divided by `positions`.

    Args:
        mlm_logits: (M, K, W).
        words: (M,) int64, the true words; without any the result is 0.
        positions: M gives the mean over the masked words (the original's validation), the number of all tokens with
            padding the original's training loss.
    """
    from torch.nn import functional as F

    clips = mlm_logits.shape[1]
    labels = words[:, None].expand(-1, clips)  # (M, K)
    # The sum is divided by hand: torch's mean over no words is NaN.
    loss = F.cross_entropy(at_least_float32(mlm_logits).flatten(0, 1), labels.flatten(), reduction="sum")
    return loss / (clips * max(positions, 1))


def count_words(mlm_logits: Tensor, words: Tensor, *, rows: Tensor, num_rows: int) -> tuple[Tensor, Tensor]:
    """Count each text row's masked words in all clips, and how often the most likely word is right: (N,) and (N,).

    Args:
        mlm_logits, words: (M, K, W) and (M,), as in `masked_words`.
        rows: (M,) int64, the text row of each word.
        num_rows: N.
    """
    right = (mlm_logits.argmax(dim=-1) == words[:, None]).sum(dim=1)  # (M,)
    none = right.new_zeros(num_rows)  # (N,)
    total = right.new_full(right.shape, mlm_logits.shape[1])  # (M,)
    return none.index_add(0, rows, total), none.index_add(0, rows, right)


def matching(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross entropy of image-text matching over rows and clips.

    Args:
        logits: (N, K, 2).
        labels: (N,), 1 if text and media belong together.
    """
    from torch.nn import functional as F

    # Every clip is an example of its own with the label of its text, as the original counts.
    labels = labels[:, None].expand(logits.shape[:2])  # (N, K)
    return F.cross_entropy(at_least_float32(logits).flatten(0, 1), labels.flatten())


def count_matches(logits: Tensor, labels: Tensor) -> Tensor:
    """Count the clips whose more likely class is the label, (N,); shapes as in `matching`."""
    return (logits.argmax(dim=-1) == labels[:, None]).sum(dim=1)
