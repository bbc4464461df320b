"""Number formats of training and inference."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True, slots=True)
class Precision:
    """`fp32`, or autocast with float32 weights to `bf16` or `fp16`; `fp16` also scales the loss.

    Args:
        tf32: GPUs round the inputs of float32 products and convolutions to 10 bits of mantissa, which is faster.
    """

    name: str
    tf32: bool = False

    @classmethod
    def choose(cls, setting: str, device: torch.device, *, tf32: bool = False) -> Precision:
        """Return the precision of a setting; `auto` is bf16 on a GPU that has it in hardware, else fp32."""
        if setting != "auto":
            return cls(setting, tf32)
        # Older GPUs emulate bf16, which is slower than fp32.
        has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return cls("bf16" if has_bf16 else "fp32", tf32)

    def choose_kernels(self) -> None:
        """Set torch's own switches for this process."""
        # torch prefers cuDNN's attention on Hopper GPUs. It makes a new plan for each batch size and length, and texts
        # are batched by length: planning would take longer than computing.
        torch.backends.cuda.enable_cudnn_sdp(False)
        # By default torch uses TF32 in convolutions and not in products.
        torch.backends.cuda.matmul.allow_tf32 = self.tf32
        torch.backends.cudnn.allow_tf32 = self.tf32

    def describe(self) -> str:
        """Return the format for people, such as `bf16` or `fp32 with TF32`."""
        return f"{self.name} with TF32" if self.tf32 else self.name

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
