"""Pooling over clips: losses, their gradients and the inference scores are the original's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference
import torch
from bounds import POOLED
from goldens import golden_json
from torch import Tensor

from clipbert_cli.task import pooling


def golden_train() -> list[Any]:
    rows = golden_json("losses/losses.json")["train"]
    return [pytest.param(row, id=f"{number}-{row['task']}-{row.get('pool')}") for number, row in enumerate(rows)]


def golden_inference() -> list[Any]:
    rows = golden_json("losses/losses.json")["inference"]
    return [pytest.param(row, id=f"{number}-{row['task']}-{row['pool']}") for number, row in enumerate(rows)]


def as_clip_logits(values: list) -> Tensor:
    """(clips, n, C) as stored -> (n, clips, C), a leaf; (n, C) is one clip."""
    stored = torch.tensor(values)
    logits = stored[:, None] if stored.dim() == 2 else stored.transpose(0, 1)
    return logits.contiguous().requires_grad_()


def tolerance(loss: float, logits: Tensor) -> float:
    """Absolute for losses of ordinary size, relative above."""
    return POOLED * max(1.0, abs(loss), logits.abs().max().item() / 10)


LOSSES = {
    "retrieval_ce": lambda row, logits: pooling.cross_entropy(logits, torch.tensor(row["labels"]), pool=row["pool"]),
    "open_ended_qa": lambda row, logits: pooling.cross_entropy(logits, torch.tensor(row["labels"]), pool=row["pool"]),
    "multiple_choice": lambda row, logits: pooling.multiple_choice(
        logits,
        torch.tensor(row["labels"]),
        pool=row["pool"],
        counts=[len(logits) // len(row["labels"])] * len(row["labels"]),
    ),
    "retrieval_rank": lambda row, logits: pooling.rank_margin(
        logits, reference.own_first(len(logits), row["texts_per_video"]), pool=row["pool"]
    ),
    "vqa": lambda row, logits: pooling.binary_cross_entropy(logits, torch.tensor(row["labels"]), pool="mean"),
}


@pytest.mark.golden
@pytest.mark.parametrize("row", golden_train())
def test_training_losses_and_gradients_agree(row: dict[str, Any]) -> None:
    if row["task"] == "pretrain":
        check_pretraining(row)
        return
    logits = as_clip_logits(row["logits"])
    loss = LOSSES[row["task"]](row, logits)
    loss.backward()
    allowed = tolerance(row["loss"], logits.detach())
    assert abs(loss.item() - row["loss"]) <= allowed
    assert np.abs(logits.grad.numpy() - as_clip_logits(row["grad"]).detach().numpy()).max() <= allowed


def check_pretraining(row: dict[str, Any]) -> None:
    words = torch.tensor(row["mlm_scores"])[:, None].requires_grad_()  # (N, 1, L, W)
    matches = torch.tensor(row["itm_scores"])[:, None].requires_grad_()  # (N, 1, 2)
    labels, itm_labels = torch.tensor(row["mlm_labels"]), torch.tensor(row["itm_labels"])
    scores = words.transpose(1, 2).flatten(0, 1)  # (N*L, 1, W)
    mlm, itm = reference.masked_words(scores, labels), pooling.matching(matches, itm_labels)
    (mlm + itm).backward()
    assert mlm.item() == pytest.approx(row["mlm_loss"], abs=POOLED)
    assert itm.item() == pytest.approx(row["itm_loss"], abs=POOLED)
    assert (mlm + itm).item() == pytest.approx(row["loss"], abs=POOLED)
    assert np.abs(words.grad[:, 0].numpy() - np.array(row["grad_mlm"])).max() <= POOLED
    assert np.abs(matches.grad[:, 0].numpy() - np.array(row["grad_itm"])).max() <= POOLED
    rows, tokens = reference.labelled(labels)
    total, right = pooling.count_words(words[rows, :, tokens], labels[rows, tokens], rows=rows, num_rows=len(labels))
    validation = {
        "valid/mlm_loss": reference.masked_words(scores, labels, average="labelled"),
        "valid/mlm_acc": right.sum() / total.sum().clamp(min=1),
        "valid/itm_loss": itm,
        "valid/itm_acc": pooling.count_matches(matches, itm_labels).float().mean(),
    }
    for name, expected in row["validation"].items():
        assert validation[name].item() == pytest.approx(expected, abs=POOLED, rel=POOLED), name


@pytest.mark.golden
@pytest.mark.parametrize("row", golden_inference())
def test_retrieval_scores_agree(row: dict[str, Any]) -> None:
    if row["error"] is not None:
        pytest.skip(f"the original fails here: {row['error']}")
    stored = torch.tensor(row["logits_video_clip_text_class"])  # (videos, clips, texts, C)
    logits = stored.transpose(1, 2).flatten(0, 1)  # (videos*texts, clips, C)
    scores = pooling.match_probability(logits, pool=row["pool"]).view(stored.shape[0], stored.shape[2])
    assert np.abs(scores.numpy() - np.array(row["scores_unrounded"])).max() <= POOLED
    assert np.abs(scores.numpy().round(4) - np.array(row["scores_rounded_video_text"])).max() <= 1e-4 + POOLED


@pytest.mark.parametrize("pool", pooling.POOLS)
def test_one_clip_is_not_changed(pool: str) -> None:
    logits = torch.randn(5, 1, 7)
    assert torch.allclose(pooling.pool_clips(logits, pool), logits[:, 0])


@pytest.mark.parametrize("pool", pooling.POOLS)
def test_the_loss_is_minus_the_logarithm_of_the_score(pool: str) -> None:
    logits, labels = torch.randn(6, 4, 5), torch.tensor([0, 4, 2, 2, 1, 3])
    probabilities = pooling.class_probabilities(logits, pool=pool)
    assert torch.allclose(probabilities.sum(-1), torch.ones(6))
    loss = -probabilities.gather(1, labels[:, None]).log().mean()
    assert torch.allclose(loss, pooling.cross_entropy(logits, labels, pool=pool))


def test_lse_is_one_softmax_over_clips_and_classes() -> None:
    logits = torch.randn(3, 4, 5)
    together = logits.flatten(1).softmax(-1).view(3, 4, 5).sum(1)
    assert torch.allclose(pooling.class_probabilities(logits, pool="lse"), together)


def test_the_order_of_clips_does_not_matter() -> None:
    logits = torch.randn(3, 4, 5)
    for pool in pooling.POOLS:
        assert torch.allclose(pooling.pool_clips(logits, pool), pooling.pool_clips(logits.flip(1), pool))


def test_options_keep_their_question_and_clip() -> None:
    logits = torch.arange(2 * 3 * 4.0).view(6, 4, 1)  # 2 questions of 3 options, 4 clips
    options = pooling.options_as_classes(logits, [3, 3])
    assert options.shape == (2, 4, 3)
    assert options[1, 2].tolist() == [logits[3, 2, 0], logits[4, 2, 0], logits[5, 2, 0]]
    assert pooling.option_probabilities(logits, pool="mean", counts=[3, 3]).argmax(-1).tolist() == [2, 2]


@pytest.mark.parametrize("pool", pooling.POOLS)
def test_questions_with_different_numbers_of_options_are_scored_as_if_alone(pool: str) -> None:
    counts, labels = [3, 1, 5, 2], torch.tensor([2, 0, 4, 1])
    logits = torch.randn(11, 4, 1, requires_grad=True)
    together = pooling.option_probabilities(logits, pool=pool, counts=counts)
    alone = [
        pooling.option_probabilities(rows, pool=pool, counts=[len(rows)])[0] for rows in logits.detach().split(counts)
    ]
    for row, own in zip(together, alone, strict=True):
        assert torch.allclose(row[: len(own)], own)
        assert not row[len(own) :].any()
    loss = pooling.multiple_choice(logits, labels, pool=pool, counts=counts)
    losses = [-own[label].log() for own, label in zip(alone, labels.tolist(), strict=True)]
    assert torch.allclose(loss, torch.stack(losses).mean())
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_scores_of_labels_are_independent() -> None:
    scores = pooling.label_probabilities(torch.tensor([[[0.0, 100.0]]]), pool="mean")
    assert scores.tolist() == [[0.5, 1.0]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_pooled_in_float32(dtype: torch.dtype) -> None:
    logits = torch.full((1, 8, 2), 300.0, dtype=dtype)
    for pool in pooling.POOLS:
        pooled = pooling.pool_clips(logits, pool)
        assert pooled.dtype == torch.float32
        assert pooled.isfinite().all()


def test_the_loss_of_texts_without_masked_words_is_zero() -> None:
    scores, none = torch.randn(0, 1, 11, requires_grad=True), torch.zeros(0, dtype=torch.int64)
    for positions in (0, 6):
        assert pooling.masked_words(scores, none, positions=positions).item() == 0
    total, right = pooling.count_words(scores, none, rows=none, num_rows=2)
    assert total.tolist() == right.tolist() == [0, 0]
