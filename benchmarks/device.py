"""What a benchmark runs on: its name and versions, how fast it multiplies, and the operations of a piece of work."""

from __future__ import annotations

import math
import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

LIBRARIES = ("torch", "transformers", "av", "lmdb", "numpy")


def processor() -> str:
    """The CPU's name."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()


def name_of(device: torch.device) -> str:
    """The GPU's or the CPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor()


def machine() -> str:
    """Processor, cores, GPU and versions."""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", no GPU"
    found = [f"{name} {each}" for name in LIBRARIES if (each := _version(name))]
    cores = len(os.sched_getaffinity(0))
    return f"{processor()}, {cores} cores{gpu}; Python {platform.python_version()}, {', '.join(found)}"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.no_grad()
def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOPs a second of the product of two large matrices, the best of twelve."""
    size = 8192 if device.type == "cuda" else 2048
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = math.inf
    for _ in range(12):
        synchronize(device)
        begin = time.perf_counter()
        left @ right
        synchronize(device)
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best


def counter() -> FlopCounterMode:
    """Counts floating-point operations of what runs within it, those of inference's own kernels too."""
    own = {
        torch.ops.mkldnn._linear_pointwise: _product,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    }
    return FlopCounterMode(display=False, custom_mapping=own)


def _product(x: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return 2 * math.prod(out_shape) * x[-1]


def _attention(query: Any, key: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return 4 * math.prod(query) * key[-2]
