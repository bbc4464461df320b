"""The contract of a visual encoder, which no other part of the model sees behind.

Legend: M frames, H W frame in pixels, h w grid, C channels.
"""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn


class FrameMemory(NamedTuple):
    """Numbers that one frame needs in a forward pass: all that are held at once, and those of the largest tensor."""

    held: int
    largest: int


class VisualEncoder(nn.Module):
    """Frames of any encoder to grids of features.

    An encoder owns its pixel statistics, its channel order, the sizes of frames that it takes, and the names of its
    parts. Every part is trained unless `train.freeze` names it.
    """

    @abstractmethod
    def forward(self, frames: Tensor) -> Tensor:
        """Encode RGB frames (M, 3, H, W), uint8 or float of 0..255, as grids (M, h, w, C)."""

    @abstractmethod
    def parts(self) -> dict[str, list[nn.Module]]:
        """Return the parts that `train.freeze` can name, from the input to the output; the blocks are numbered."""

    def weights_kept(self, dtype: torch.dtype = torch.float32) -> AbstractContextManager[None]:
        """Keep, within a block, what follows from weights that do not change in it, instead of computing it each time.

        Without gradients these are all weights, with gradients the frozen ones. Features and names stay the same.

        Args:
            dtype: of what is kept. Unless it is float32, the encoder may only be used under autocast in this dtype.
        """
        return nullcontext()

    def check_frame_size(self, frame_size: int) -> None:
        """Refuse square frames of a size that the encoder cannot take.

        Raises:
            RecipeError: the size, and one that it can take.
        """

    @abstractmethod
    def describe(self, frame_size: int) -> str:
        """Return the encoder in a few words, for the plan of a training."""

    @abstractmethod
    def frame_memory(self, frame_size: int) -> FrameMemory:
        """Return the numbers that a square frame needs, roughly."""


def normalise(frames: Tensor, mean: Tensor, std: Tensor, *, unit_range: bool) -> Tensor:
    """Subtract the mean from pixels and divide them by the standard deviation.

    If mean and standard deviation are for pixels of 0..1 (`unit_range`), pixels of 0..255 are divided by 255 first:
    uint8 always, floats if their largest value is above 1 (the rule of the original's `ImageNorm`).

    Args:
        frames: (..., 3, H, W) uint8 or float; channels in the order of `mean` and `std`.
        mean: (3,) on the frames' device, like `std`.

    Returns:
        A tensor of the same shape, in the frames' float dtype, or float32 for integer frames.
    """
    pixels = frames if frames.is_floating_point() else frames.float()
    if unit_range:
        pixels = pixels / (torch.where(pixels.amax() > 1, 255.0, 1.0) if frames.is_floating_point() else 255.0)
    return (pixels - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)
