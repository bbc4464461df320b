"""What a recipe's `train` section asks of the model itself: frozen parts, memory layout, recomputation, compilation."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from clipbert_cli.model import ClipBert
from clipbert_cli.model.freezing import freeze
from clipbert_cli.recipe.schema import TrainConfig
from clipbert_cli.types import Batch, Outputs

BUCKET = 8
"""Tokens by which the lengths of texts differ for a compiled model."""


def apply_options(model: ClipBert, config: TrainConfig) -> None:
    """Change `model` in place. Names of parameters and what it computes stay."""
    freeze(model, model.freezable_parts(), config.freeze)
    for module in model.visual_encoder.modules():
        if isinstance(module, nn.Conv2d):  # the layout that convolutions like; frames come in it already
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
    if config.activation_checkpointing:
        # Of the CNN whole stages: a block's input is most of what the block keeps.
        for part in [*model.encoder.layer, *model.visual_encoder.stages]:
            part.forward = functools.partial(_recomputed, part.forward)
    if config.compile:
        longest = model.config.bert.max_position_embeddings
        compiled = _in_buckets(torch.compile(model.forward), longest=longest)
        model.forward = compiled  # type: ignore[method-assign, assignment]


def _in_buckets(forward: Callable[[Batch], Outputs], *, longest: int) -> Callable[[Batch], Outputs]:
    """Texts padded to a multiple of `BUCKET` tokens, outputs as without: compiled code is made for lengths."""

    def call(batch: Batch) -> Outputs:
        length = batch.text_ids.shape[1]
        room = (0, min(-(-length // BUCKET) * BUCKET, longest) - length)
        padded = dataclasses.replace(
            batch, text_ids=F.pad(batch.text_ids, room), text_mask=F.pad(batch.text_mask, room)
        )
        outputs = forward(padded)
        words = outputs.mlm_logits  # (N, K, L, W)
        return outputs if words is None else dataclasses.replace(outputs, mlm_logits=words[:, :, :length])

    return call


def _recomputed(forward: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """A part's forward pass that keeps its inputs alone, and is done again in the backward pass."""
    if not torch.is_grad_enabled():
        return forward(*arguments, **options)
    return checkpoint(forward, *arguments, use_reentrant=False, **options)
