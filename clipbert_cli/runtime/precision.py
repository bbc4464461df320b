"""Number formats of training and inference."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def choose_kernels() -> None:
    """Exclude cuDNN's attention, which torch prefers on Hopper GPUs.

    It makes a new plan for each batch size and length, and texts are batched by length: planning would take longer
    than computing.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


@dataclass(frozen=True, slots=True)
class Precision:
    """`fp32`, or autocast with float32 weights to `bf16` or `fp16`; `fp16` also scales the loss."""

    name: str

    @classmethod
    def choose(cls, setting: str, device: torch.device) -> Precision:
        """Return the precision of a setting; `auto` is bf16 on a GPU that has it in hardware, else fp32."""
        if setting != "auto":
            return cls(setting)
        # Older GPUs emulate bf16, which is slower than fp32.
        has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return cls("bf16" if has_bf16 else "fp32")

    @property
    def dtype(self) -> torch.dtype:
        """Activation dtype under autocast."""
        return DTYPES[self.name]

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """Return the context for forward passes."""
        return torch.autocast(device.type, dtype=self.dtype, enabled=self.name != "fp32")

    def scaler(self, device: torch.device) -> torch.amp.GradScaler:
        """Return the scaler that keeps small fp16 gradients from becoming 0; it does nothing for other formats."""
        return torch.amp.GradScaler(device.type, enabled=self.name == "fp16")
