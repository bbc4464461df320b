"""What a recipe's `train` section asks of the model itself: frozen parts, memory layout, recomputation, compilation."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from clipbert_cli.model import ClipBert
from clipbert_cli.recipe.schema import TrainConfig


def apply_options(model: ClipBert, config: TrainConfig) -> None:
    """Change `model` in place. Names of parameters and what it computes stay."""
    if config.freeze_cnn:
        model.cnn.requires_grad_(False)
    for module in model.cnn.modules():
        if isinstance(module, nn.Conv2d):  # the layout that convolutions like; frames come in it already
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
    if config.activation_checkpointing:
        for block in [*model.encoder.layer, *(block for stage in model.cnn.stages for block in stage.layers)]:
            block.forward = functools.partial(_recomputed, block.forward)
    if config.compile:
        model.compile()


def _recomputed(forward: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """A block's forward pass that keeps its inputs alone, and is done again in the backward pass."""
    if not torch.is_grad_enabled():
        return forward(*arguments, **options)
    return checkpoint(forward, *arguments, use_reentrant=False, **options)
