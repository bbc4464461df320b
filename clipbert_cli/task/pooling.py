"""Pooling over clips: the training loss beside the inference score.

Legend: N text rows, K clips, C classes, L text tokens, W vocabulary, Q questions, O options, B media items.

Every clip predicts on its own; here, and nowhere else, the K predictions become one (ClipBERT section 3.2, equation 3
and appendix). Logits are (N, K, C); losses and scores are computed in float32 or better.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

NO_LABEL = -100
"""A position of `masked_words` without a label."""

POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda logits: logits.mean(dim=1),
    "max": lambda logits: logits.max(dim=1).values,
    "lse": lambda logits: logits.logsumexp(dim=1),
}


def pool_clips(logits: Tensor, pool: str) -> Tensor:
    """(N, K, C) -> (N, C): element-wise mean, maximum or log-sum-exp over the clips.

    Raises:
        ValueError: `pool` is none of `POOLS`.
    """
    if pool not in POOLS:
        raise ValueError(f"objective.pool is {pool!r}: it must be one of {', '.join(POOLS)}")
    return POOLS[pool](at_least_float32(logits))


def at_least_float32(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


# One class of several: retrieval with 2 outputs, open-ended questions.


def cross_entropy(logits: Tensor, labels: Tensor, *, pool: str) -> Tensor:
    """Mean over rows of the cross entropy of the pooled logits (N, K, C) with labels (N,).

    With `lse` this is the log-sum-exp over all clips and classes minus the one over the clips of the label's class:
    softmax over clips and classes together, the label's probability summed over clips.
    """
    return F.cross_entropy(pool_clips(logits, pool), labels)


def class_probabilities(logits: Tensor, *, pool: str) -> Tensor:
    """(N, K, C) -> (N, C), rows sum to 1: softmax of the pooled logits."""
    return pool_clips(logits, pool).softmax(dim=-1)


# One option of several: every option is a text row with one output.


def options_as_classes(logits: Tensor, num_options: int) -> Tensor:
    """(Q*O, K, 1), question by question -> (Q, K, O)."""
    rows, clips, _ = logits.shape
    return logits.view(rows // num_options, num_options, clips).transpose(1, 2)  # (Q, K, O)


def multiple_choice(logits: Tensor, labels: Tensor, *, pool: str, num_options: int) -> Tensor:
    """Cross entropy over each question's options; logits (Q*O, K, 1), labels (Q,)."""
    return cross_entropy(options_as_classes(logits, num_options), labels, pool=pool)


def option_probabilities(logits: Tensor, *, pool: str, num_options: int) -> Tensor:
    """(Q*O, K, 1) -> (Q, O), rows sum to 1."""
    return class_probabilities(options_as_classes(logits, num_options), pool=pool)


# Does the text belong to the media: one output (ranked) or two (classified).


def rank_margin(logits: Tensor, *, pool: str, texts_per_item: int, margin: float = 0.2) -> Tensor:
    """Mean over items and negatives of max(0, margin + negative - positive), scores in 0..1.

    Args:
        logits: (B*texts_per_item, K, 1), item by item, the item's own text first.

    Raises:
        ValueError: `pool` is `lse`, which the original does not define for this loss, or there are no negatives.
    """
    if pool == "lse":
        raise ValueError("objective.pool is 'lse': the margin loss knows 'mean' and 'max'")
    if texts_per_item < 2:
        raise ValueError(f"texts_per_item is {texts_per_item}: the margin loss needs at least one negative text")
    scores = match_probability(logits, pool=pool).view(-1, texts_per_item)  # (B, texts)
    return (margin + scores[:, 1:] - scores[:, :1]).relu().mean()


def match_probability(logits: Tensor, *, pool: str) -> Tensor:
    """(N, K, 1 or 2) -> (N,) in 0..1: the sigmoid of one pooled output, the softmax's class 1 of two."""
    pooled = pool_clips(logits, pool)  # (N, 1 or 2)
    return pooled[:, 0].sigmoid() if pooled.shape[1] == 1 else pooled.softmax(dim=-1)[:, 1]


# Several answers with a soft label each: image questions.


def binary_cross_entropy(logits: Tensor, targets: Tensor, *, pool: str) -> Tensor:
    """Sum over labels, mean over rows, of the binary cross entropy; logits (N, K, C), targets (N, C) in 0..1."""
    pooled = pool_clips(logits, pool)  # (N, C)
    return F.binary_cross_entropy_with_logits(pooled, targets.to(pooled.dtype)) * pooled.shape[1]


def label_probabilities(logits: Tensor, *, pool: str) -> Tensor:
    """(N, K, C) -> (N, C), each label on its own in 0..1."""
    return pool_clips(logits, pool).sigmoid()


# Pretraining: nothing is pooled, every clip counts as an example.


def masked_words(mlm_logits: Tensor, labels: Tensor, *, average: Literal["all", "labelled"] = "all") -> Tensor:
    """Cross entropy of the masked words.

    Args:
        mlm_logits: (N, K, L, W).
        labels: (N, L) int64, `NO_LABEL` where nothing is to be predicted.
        average: `all` divides by all positions, padding and unlabelled ones included (the original's training loss);
            `labelled` by the labelled ones (its validation), 0 where there are none.
    """
    labels = labels[:, None].expand(mlm_logits.shape[:3])  # (N, K, L)
    loss = F.cross_entropy(
        at_least_float32(mlm_logits).flatten(0, 2), labels.flatten(), ignore_index=NO_LABEL, reduction="sum"
    )
    counted = labels.numel() if average == "all" else (labels != NO_LABEL).sum().clamp(min=1)
    return loss / counted


def masked_word_accuracy(mlm_logits: Tensor, labels: Tensor) -> Tensor:
    """Share of the labelled positions whose most likely word is the label; shapes as in `masked_words`."""
    labels = labels[:, None].expand(mlm_logits.shape[:3])  # (N, K, L)
    labelled = labels != NO_LABEL
    return ((mlm_logits.argmax(dim=-1) == labels) & labelled).sum() / labelled.sum().clamp(min=1)


def matching(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy of image-text matching, clips apart; logits (N, K, 2), labels (N,), 1 = they match."""
    labels = labels[:, None].expand(logits.shape[:2])  # (N, K)
    return F.cross_entropy(at_least_float32(logits).flatten(0, 1), labels.flatten())


def matching_accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of clips whose more likely class is the label; shapes as in `matching`."""
    return (logits.argmax(dim=-1) == labels[:, None]).float().mean()
