"""Floating point operations: those of a step, counted, and those that the machine does in a second, measured.

A multiplication and an addition count as two.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode

MATRIX_SIDE = {"cuda": 8192, "cpu": 2048}
"""Large enough that a product of two such matrices is bound by arithmetic."""

REPEATS = {"cuda": 50, "cpu": 5}
"""Products of which the best counts; a GPU does one within milliseconds, and takes longer to settle on a clock."""

LONGEST = 1.0
"""Seconds that a product may take; where it takes longer (fp16 on most CPUs), smaller ones tell as much."""


def flop_counter() -> FlopCounterMode:
    """Within it, operations of matrix products, convolutions and attention are counted, forward and backward:
    `get_total_flops()`. What a compiled model does must be run uncompiled.

    Recomputation counts where it is done (`activation_checkpointing`). Element-wise work and the optimiser are left
    out.
    """
    aten, mkldnn = torch.ops.aten, torch.ops.mkldnn
    own = {  # torch itself counts none of the CPU's attention, nor the linear layers of `model/answering.py`
        aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    }
    if hasattr(mkldnn, "_linear_pointwise"):
        own[mkldnn._linear_pointwise] = _linear
    return FlopCounterMode(display=False, custom_mapping=own)


def _linear(x: Sequence[int], *_: object, out_shape: Sequence[int], **__: object) -> int:
    return 2 * math.prod(out_shape) * x[-1]


def _attention(query: Sequence[int], key: Sequence[int], *_: object, **__: object) -> int:
    """Shapes (..., L, D) and (..., S, D): the products of query and key, and of scores and values."""
    return 4 * math.prod(query) * key[-2]


def _attention_backward(_gradient: object, query: Sequence[int], key: Sequence[int], *_: object, **__: object) -> int:
    """Two products for each of the forward pass's."""
    return 2 * _attention(query, key)


def matrix_product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOPs a second of the product of two large square matrices: what a training step could reach at most.

    The best of some after one that is not counted, so that a moment's other load does not lower the rate. It is
    the machine as it is set up: threads, TF32, clocks. On a GPU it needs up to 800 MiB, which go back to it.

    Args:
        dtype: of the matrices; under autocast, that of activations.
    """
    largest = MATRIX_SIDE.get(device.type, MATRIX_SIDE["cpu"])
    side = largest // 8
    while side < largest and 8 * min(_product_seconds(device, dtype, side, repeats=1)) < LONGEST:
        side *= 2
    seconds = _product_seconds(device, dtype, side, repeats=REPEATS.get(device.type, REPEATS["cpu"]))
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return float(2 * side**3 / min(seconds))


def _product_seconds(device: torch.device, dtype: torch.dtype, side: int, *, repeats: int) -> list[float]:
    """Seconds of each of some products, after one that is not counted."""
    left, right = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(repeats + 1):
        synchronize(device)
        begin = time.perf_counter()
        left @ right
        synchronize(device)
        seconds.append(time.perf_counter() - begin)
    return seconds[1:]


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
