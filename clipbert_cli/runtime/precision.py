"""Number formats of training and inference."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def choose_kernels() -> None:
    """Leave attention to kernels that take every shape alike.

    cuDNN's, which torch may prefer on Hopper, plans anew for each batch size and length, which takes longer than the
    work itself where texts are batched by length.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


@dataclass(frozen=True, slots=True)
class Precision:
    """`bf16` and `fp16` compute under autocast with float32 weights; `fp16` also scales the loss."""

    name: str

    @classmethod
    def choose(cls, setting: str, device: torch.device) -> Precision:
        """`auto` is bf16 on a GPU that has it in hardware, else fp32."""
        if setting != "auto":
            return cls(setting)
        return cls(
            "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
        )

    @property
    def dtype(self) -> torch.dtype:
        """Of activations."""
        return DTYPES[self.name]

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """The context in which forward passes run."""
        return torch.autocast(device.type, dtype=DTYPES[self.name], enabled=self.name != "fp32")

    def scaler(self, device: torch.device) -> torch.amp.GradScaler:
        """Scales the loss so that fp16 gradients do not vanish; does nothing for the other formats."""
        return torch.amp.GradScaler(device.type, enabled=self.name == "fp16")
