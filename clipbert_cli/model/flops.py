"""Floating point operations of a model, counted, and those that the machine does per second, measured.

A multiplication and an addition count as two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.printable import plural


@dataclass(frozen=True)
class ForwardCost:
    """The operations of one clip in a forward pass.

    Attributes:
        visual_tokens: tokens of a clip that the transformer reads.
        clip: operations of the visual encoder for a clip.
        pair: operations of the transformer and the head for a text with one clip.
    """

    visual_tokens: int
    clip: int
    pair: int

    def describe(self) -> str:
        return (
            f"{plural(self.visual_tokens, 'visual token')} per clip, {self.clip / 1e9:,.2f} GFLOP per clip, "
            f"{self.pair / 1e9:,.2f} GFLOP per pair of text and clip"
        )


class _Counting(nn.Module):
    """A model whose forward pass returns what it costs."""

    def __init__(self, model: ClipBert) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor, text_ids: Tensor, text_mask: Tensor) -> ForwardCost:
        with flop_counter() as clip:
            visual = self.model.encode_visual(frames)  # (1, 1, V, D)
        with flop_counter() as pair:
            self.model.score(self.model.embed_text(text_ids), text_mask, visual)
        return ForwardCost(visual.shape[2], clip.get_total_flops(), pair.get_total_flops())


def forward_cost(model: ClipBert, *, num_frames: int, frame_size: int, text_length: int) -> ForwardCost:
    """Count the operations for a clip of square frames and a text of `text_length` tokens, without computing."""
    # Tensors on this device have shapes and no numbers, so that even a large model costs no time and no memory.
    meta = torch.device("meta")
    counting, was_training = _Counting(model), model.training
    counting.eval()
    state = {name: tensor.to(meta) for name, tensor in [*counting.named_parameters(), *counting.named_buffers()]}
    frames = torch.empty(1, 1, num_frames, 3, frame_size, frame_size, dtype=torch.uint8, device=meta)
    text_ids = torch.empty(1, text_length, dtype=torch.int64, device=meta)
    text_mask = torch.empty(1, text_length, dtype=torch.bool, device=meta)
    try:
        with torch.no_grad():
            cost: ForwardCost = functional_call(counting, state, (frames, text_ids, text_mask))
    finally:
        model.train(was_training)
    return cost


def flop_counter() -> FlopCounterMode:
    """Return a context that counts matrix products, convolutions and attention, forward and backward.

    `get_total_flops()` gives the sum. Recomputation (`activation_checkpointing`) counts, element-wise operations and
    the optimiser do not. A compiled model must be run uncompiled.
    """
    aten = torch.ops.aten
    # torch does not count the CPU's attention.
    own = {
        aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    }
    return FlopCounterMode(display=False, custom_mapping=own)


def _attention(query: Sequence[int], key: Sequence[int], *_: object, **__: object) -> int:
    """Count two products, query with key and scores with values; the shapes are (..., L, D) and (..., S, D)."""
    return 4 * math.prod(query) * key[-2]


def _attention_backward(_gradient: object, query: Sequence[int], key: Sequence[int], *_: object, **__: object) -> int:
    """Count two products for each one of the forward pass."""
    return 2 * _attention(query, key)


# Side of matrices whose product is bound by arithmetic, not by memory.
MATRIX_SIDE = {"cuda": 8192, "cpu": 2048}


def matrix_product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Return the FLOPs per second of a product of two large square matrices: the most that a step could reach.

    The fastest of several products counts, so that other load does not lower the rate for a moment. The machine is
    measured as it is set up: threads, TF32, clocks. On a GPU this needs up to 800 MiB, which are freed.

    Args:
        dtype: of the matrices; under autocast the activation dtype.
    """
    # Only a profile needs this import, which takes a third of a second.
    from torch.utils.benchmark import Timer

    side = MATRIX_SIDE[device.type]
    if device.type == "cpu" and dtype == torch.float16:
        side //= 8  # Most CPUs compute such products a hundred times more slowly.
    matrices = {name: torch.rand(side, side, device=device).to(dtype) for name in ("left", "right")}
    timer = Timer("left @ right", globals=matrices, num_threads=torch.get_num_threads())
    # Long enough for a GPU, whose clock settles slowly.
    seconds = min(timer.blocked_autorange(min_run_time=0.5).times)
    del timer, matrices
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return float(2 * side**3 / seconds)
