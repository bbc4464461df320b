"""Options of a recipe's `train` section for the model: frozen parts, memory layout, recomputation, compilation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.model.freezing import freeze
from clipbert_cli.recipe.schema import TrainConfig
from clipbert_cli.types import Batch, Outputs

BUCKET = 8
"""A compiled model sees texts whose lengths are multiples of this."""


def apply_options(model: ClipBert, config: TrainConfig) -> None:
    """Change `model` in place; the names of its parameters and its outputs stay the same.

    Raises:
        RecipeError: `train.freeze` names no part of this model, or leaves nothing to train.
    """
    freeze(model, model.freezable_parts(), config.freeze)
    for module in model.visual_encoder.modules():
        if isinstance(module, nn.Conv2d):
            # Frames come in this layout. With weights in another, convolutions would reorder them in every step.
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
    if config.activation_checkpointing:
        recompute_activations(model.freezable_parts())
    if config.compile:
        if config.activation_checkpointing:
            # Some versions of torch (2.7) cannot divide a graph with recomputation where the gradients of several
            # processes are sent in parts.
            torch._dynamo.config.optimize_ddp = False
        longest = model.sizes.max_position_embeddings
        compiled = _in_buckets(torch.compile(model.forward), longest=longest)
        # Compiling the method instead of wrapping the model keeps the names in its state.
        model.forward = compiled  # type: ignore[method-assign, assignment]


def recompute_activations(parts: Mapping[str, Sequence[nn.Module]]) -> None:
    """Save memory: the backward pass computes the activations of each numbered part (stage, block, layer) anew."""
    for name, modules in parts.items():
        for module in modules if name.rpartition(".")[2].isdigit() else ():
            module.forward = _recomputed(module.forward)


def _recomputed(forward: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled():
            return checkpoint(forward, *args, use_reentrant=False, **kwargs)
        return forward(*args, **kwargs)

    return call


def _in_buckets(forward: Callable[[Batch], Outputs], *, longest: int) -> Callable[[Batch], Outputs]:
    """Pad texts to a multiple of `BUCKET` tokens: code is compiled anew for each length."""

    def call(batch: Batch) -> Outputs:
        length = batch.text_ids.shape[1]
        padding = (0, min(-(-length // BUCKET) * BUCKET, longest) - length)
        padded = dataclasses.replace(
            batch, text_ids=F.pad(batch.text_ids, padding), text_mask=F.pad(batch.text_mask, padding)
        )
        return forward(padded)

    return call
