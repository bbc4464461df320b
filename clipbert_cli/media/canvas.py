"""Frames on a square canvas: the longer side becomes the side of the canvas, the rest is zero at the right and bottom.

A canvas is (..., 3, S, S) and lies in memory as (..., S, S, 3). Decoders produce this order and convolutions are
fastest with it, so nothing is transposed between them.

M frames, h w native size, S canvas side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from clipbert_cli.errors import DecodeError

# torch is imported inside the functions that make tensors: commands that only read stores must not wait for it.
if TYPE_CHECKING:
    import torch

MAX_ASPECT_RATIO = 5
"""Videos with a longer side of more than this many times the shorter one are refused, as the original does."""


def is_extreme_aspect_ratio(height: int, width: int) -> bool:
    """Return whether h/w is above 5 or below 1/5; exactly 5 is accepted."""
    return height > MAX_ASPECT_RATIO * width or width > MAX_ASPECT_RATIO * height


def check_aspect_ratio(height: int, width: int) -> None:
    """Raise `DecodeError` if `is_extreme_aspect_ratio`."""
    if is_extreme_aspect_ratio(height, width):
        raise DecodeError(
            f"its frames are {width} x {height}: one side is over {MAX_ASPECT_RATIO} times as long as the other"
        )


def resize_size(height: int, width: int, size: int) -> tuple[int, int]:
    """Return (height, width) after resizing: the longer side becomes `size`, the other one at least 1."""
    # The other side is truncated in float64, as in the original. That loses a pixel if the computed ratio is just below
    # the exact one (golden/transforms, `float_pitfalls`).
    if height >= width:
        return size, max(1, int(size * (width / height)))
    return max(1, int(size * (height / width))), size


def empty_canvas(*shape: int, size: int, frame: tuple[int, int], dtype: torch.dtype | None = None) -> torch.Tensor:
    """Return a canvas (*shape, 3, S, S) for frames of native size `frame` (h, w); `dtype` is uint8 unless given."""
    import torch

    # Only the padding is initialised, with zeros. `resize_into` fills the rest, which saves a pass over the memory.
    height, width = resize_size(*frame, size)
    rows = torch.empty((*shape, size, size, 3), dtype=dtype or torch.uint8)
    rows[..., height:, :, :] = 0
    rows[..., :height, width:, :] = 0
    return channels_first(rows)


def channels_first(pixels: torch.Tensor) -> torch.Tensor:
    """Return (..., h, w, 3) as (..., 3, h, w) in the same memory."""
    return pixels.movedim(-1, -3)


def channels_last(canvas: torch.Tensor) -> torch.Tensor:
    """Return (..., 3, h, w) as (..., h, w, 3) in the same memory."""
    return canvas.movedim(-3, -1)


def resize_pad(frames: np.ndarray | torch.Tensor, size: int, *, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Return frames resized with their aspect ratio kept, then padded with zeros at the right and bottom.

    The interpolation is bilinear with half-pixel centres and no antialiasing (the original's `F.interpolate` with
    `align_corners=False`).

    Args:
        frames: (M, h, w, 3) uint8.
        size: side S of the canvas in pixels.
        dtype: torch.float32 keeps the interpolated values 0..255. torch.uint8, the default, interpolates in fixed
            point, which is nine times as fast and at most one level from the rounded float32 value.

    Returns:
        (M, 3, S, S) of `dtype`, channels last in memory.
    """
    import torch

    if isinstance(frames, np.ndarray):
        frames = torch.from_numpy(np.require(frames, requirements="W"))
    _, height, width, _ = frames.shape
    canvas = empty_canvas(len(frames), size=size, frame=(height, width), dtype=dtype)
    # One frame at a time stays in the processor's cache.
    for target, frame in zip(canvas, frames, strict=True):
        resize_into(target, frame)
    return canvas


def upright(pixels: torch.Tensor, orientation: int) -> torch.Tensor:
    """Return pixels (..., h, w) turned and mirrored as an EXIF orientation says; see `VideoInfo.orientation`."""
    flips = _flips(orientation)
    pixels = pixels.flip(flips) if flips else pixels
    return pixels.transpose(-2, -1) if orientation >= 5 else pixels


def upright_pixels(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return pixels (..., h, w, 3) turned as `upright` turns them, without torch."""
    pixels = np.flip(pixels, tuple(axis - 1 for axis in _flips(orientation)))
    return pixels.swapaxes(-3, -2) if orientation >= 5 else pixels


def _flips(orientation: int) -> list[int]:
    """Return the axes of (h, w) that are mirrored before both are swapped."""
    return [axis for axis, orientations in ((-2, (3, 4, 6, 7)), (-1, (2, 3, 7, 8))) if orientation in orientations]


def resize_into(target: torch.Tensor, frame: np.ndarray | torch.Tensor, *, orientation: int = 1) -> None:
    """Write one frame, (h, w, 3) uint8, into its part of a canvas, (3, S, S), as `resize_pad` does.

    Args:
        orientation: how the frame is turned to be upright, see `upright`.
    """
    import torch
    from torch.nn.functional import interpolate

    if orientation != 1:
        # The frame is turned after resizing, which moves fewer pixels and gives the same ones.
        lying = torch.empty_like(target)
        resize_into(lying, frame)
        height, width = resize_size(frame.shape[0], frame.shape[1], target.shape[-1])
        turned = upright(lying[:, :height, :width], orientation)
        target[:, : turned.shape[1], : turned.shape[2]] = turned
        return
    if isinstance(frame, np.ndarray):
        frame = torch.from_numpy(frame)
    native_height, native_width, _ = frame.shape
    height, width = resize_size(native_height, native_width, target.shape[-1])
    # Add the batch axis before moving channels: otherwise torch does not see that they are last, and takes twice as
    # long.
    pixels = channels_first(frame[None])  # (1, 3, h, w)
    inside = target[None, :, :height, :width]  # (1, 3, height, width)
    if inside.shape == pixels.shape:
        inside.copy_(pixels)
    elif width == target.shape[-1]:
        # `interpolate` calls this operator. Called with its output, it neither allocates nor copies. The output must be
        # without gaps, because torch 2.13 writes wrong pixels into a view with gaps.
        torch.ops.aten.upsample_bilinear2d.out(pixels.to(target.dtype), [height, width], False, out=inside)
    else:
        inside.copy_(interpolate(pixels.to(target.dtype), size=(height, width), mode="bilinear", align_corners=False))
