"""The floating point operations that the machine does per second, measured.

A multiplication and an addition count as two.
"""

from __future__ import annotations

import time

import torch

# Side of matrices whose product is bound by arithmetic, not by memory.
MATRIX_SIDE = {"cuda": 8192, "cpu": 2048}

# Products of which the fastest counts. A GPU needs more: each takes milliseconds, and its clock settles slowly.
REPEATS = {"cuda": 50, "cpu": 5}

# Seconds that a product may take. Where it takes longer (fp16 on most CPUs), smaller matrices are used.
LONGEST = 1.0


def matrix_product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Return the FLOPs per second of a product of two large square matrices: the most that a step could reach.

    The fastest of several products counts, so that other load does not lower the rate for a moment. The machine is
    measured as it is set up: threads, TF32, clocks. On a GPU this needs up to 800 MiB, which are freed.

    Args:
        dtype: of the matrices; under autocast the activation dtype.
    """
    largest = MATRIX_SIDE.get(device.type, MATRIX_SIDE["cpu"])
    side = largest // 8
    # Doubling the side takes eight times as long.
    while side < largest and 8 * min(_product_seconds(device, dtype, side, repeats=1)) < LONGEST:
        side *= 2
    seconds = _product_seconds(device, dtype, side, repeats=REPEATS.get(device.type, REPEATS["cpu"]))
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return float(2 * side**3 / min(seconds))


def _product_seconds(device: torch.device, dtype: torch.dtype, side: int, *, repeats: int) -> list[float]:
    """Return the seconds of each of several products, after one that is not counted."""
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
    """Wait until a GPU has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
