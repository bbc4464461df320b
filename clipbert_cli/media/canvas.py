"""Frames on a square canvas: the longer side becomes the canvas side, the rest is zero at the right and bottom.

A canvas is (..., 3, S, S) and lies in memory as (..., S, S, 3): so frames come out of decoders, and so convolutions
like them. On the way from one to the other nothing is transposed.

M frames, h w native size, S canvas side.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import interpolate

from clipbert_cli.errors import DecodeError

MAX_ASPECT_RATIO = 5
"""Video frames longer than this many times their other side are refused, as the original does; exactly 5 is kept."""


def is_extreme_aspect_ratio(height: int, width: int) -> bool:
    """Whether a video frame is too long for the canvas: h/w above 5 or below 0.2."""
    return height > MAX_ASPECT_RATIO * width or width > MAX_ASPECT_RATIO * height


def check_aspect_ratio(height: int, width: int) -> None:
    """Refuses extreme video frames.

    Raises:
        DecodeError: see `is_extreme_aspect_ratio`.
    """
    if is_extreme_aspect_ratio(height, width):
        raise DecodeError(f"its frames are {width} x {height}: one side is over {MAX_ASPECT_RATIO} times the other")


def resize_size(height: int, width: int, size: int) -> tuple[int, int]:
    """(height, width) after resizing: the longer side becomes `size`, the other is truncated in float64.

    Truncating may lose a pixel to a ratio just below the exact one (golden/transforms, `float_pitfalls`). A side that
    would vanish keeps one pixel.
    """
    if height >= width:
        return size, max(1, int(size * (width / height)))
    return max(1, int(size * (height / width))), size


def empty_canvas(*shape: int, size: int, frame: tuple[int, int], dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    """Memory for frames of native size `frame` (h, w): (*shape, 3, S, S), channels last.

    It is zero where they are padded, and anything where `resize_into` will put them.
    """
    height, width = resize_size(*frame, size)
    rows = torch.empty((*shape, size, size, 3), dtype=dtype)
    rows[..., height:, :, :] = 0
    rows[..., :height, width:, :] = 0
    return channels_first(rows)


def channels_first(pixels: torch.Tensor) -> torch.Tensor:
    """(..., h, w, 3) -> (..., 3, h, w), the same memory."""
    return pixels.movedim(-1, -3)


def channels_last(canvas: torch.Tensor) -> torch.Tensor:
    """(..., 3, h, w) -> (..., h, w, 3), the same memory."""
    return canvas.movedim(-3, -1)


def resize_pad(frames: np.ndarray | torch.Tensor, size: int, *, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    """Frames resized with their aspect ratio kept, then padded with zeros at the right and bottom.

    Bilinear, half-pixel centres, no antialiasing (the original's `F.interpolate`, `align_corners=False`).

    Args:
        frames: (M, h, w, 3) uint8.
        size: side S of the canvas, in pixels.
        dtype: float32 keeps the interpolated values 0..255; uint8 interpolates in fixed point, nine times as fast, and
            is at most one level off their rounding.

    Returns:
        (M, 3, S, S) of `dtype`, channels last in memory.
    """
    if dtype not in (torch.uint8, torch.float32):
        raise ValueError(f"dtype is {dtype}: it must be torch.uint8 or torch.float32")
    if isinstance(frames, np.ndarray):
        frames = torch.from_numpy(np.require(frames, requirements="W"))
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != torch.uint8:
        raise ValueError(f"frames are {frames.dtype} {tuple(frames.shape)}: they must be uint8 (M, h, w, 3)")
    _, height, width, _ = frames.shape
    canvas = empty_canvas(len(frames), size=size, frame=(height, width), dtype=dtype)
    for place, frame in zip(canvas, frames, strict=True):  # one frame stays in the CPU's cache
        resize_into(place, frame)
    return canvas


def resize_into(place: torch.Tensor, frame: np.ndarray | torch.Tensor) -> None:
    """`resize_pad` of one frame, (h, w, 3) uint8, into its place on a canvas, (3, S, S), which is zero around it."""
    if isinstance(frame, np.ndarray):
        frame = torch.from_numpy(frame)
    native_height, native_width, _ = frame.shape
    height, width = resize_size(native_height, native_width, place.shape[-1])
    # Of a batch of one torch sees that channels are last only if it was one before they moved: twice as fast.
    pixels = channels_first(frame[None])  # (1, 3, h, w)
    inside = place[None, :, :height, :width]
    if inside.shape == pixels.shape:
        inside.copy_(pixels)
    elif width == place.shape[-1]:
        # What `interpolate` calls: with the target named, nothing is allocated and copied. It has to be one without
        # gaps; torch 2.13 writes nonsense into others.
        torch.ops.aten.upsample_bilinear2d.out(pixels.to(place.dtype), [height, width], False, out=inside)
    else:
        inside.copy_(interpolate(pixels.to(place.dtype), size=(height, width), mode="bilinear", align_corners=False))
