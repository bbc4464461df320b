"""Frames of a media item as one picture: its sampled clips, one row per clip, or chosen frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from clipbert_cli.errors import DecodeError
from clipbert_cli.media.frames import decode_frames
from clipbert_cli.media.images import decode_image
from clipbert_cli.media.sampling import ClipSampling, FrameIndices, select
from clipbert_cli.store.source import MediaSource, named
from clipbert_cli.types import VideoInfo

# In pixels. A column is at least as wide as the longest label, "frame 12345, 1234.56 s".
_SIDE = 224
_GAP = 6
_LABEL = 16
_MIN_COLUMN = 130

Clips = list[list[tuple[int, float]]]
"""(frame index, seconds) of each frame of each clip; for an image its only frame at 0."""


def contact_sheet(
    source: MediaSource, media_id: str, sampling: ClipSampling, *, seed: int = 0
) -> tuple[Image.Image, Clips]:
    """Draw the clips that `sampling` takes of an item.

    Args:
        seed: of random clips.

    Returns:
        the picture, and which frames it shows.

    Raises:
        StoreError: there is no such item.
        DecodeError: the item cannot be decoded, or has too few frames for these clips; the message names it.
    """
    with named(source, media_id):
        info = source.info(media_id)
        indices = ((0,),) if info is None else select(info, sampling, np.random.default_rng(seed))
        frames = _decode(source, media_id, indices)
    scale = _SIDE / max(frames.shape[2:4])
    height, width = (max(1, round(length * scale)) for length in frames.shape[2:4])
    clips = _with_seconds(info, indices)
    return _draw(frames, clips, size=(width, height), is_image=info is None), clips


def frame_sheet(
    source: MediaSource, media_id: str, frames: Sequence[int], *, plain: bool = False
) -> tuple[Image.Image, Clips]:
    """Draw these frames of an item in one row, in the size in which they are coded and not turned upright.

    Args:
        frames: frame indices; an image has the frame 0.
        plain: leave out labels and the space between frames, so that frame i begins in column i * width.

    Returns:
        the picture, and which frames it shows.

    Raises:
        StoreError: there is no such item.
        DecodeError: the item cannot be decoded, or has no such frame; the message names it.
    """
    with named(source, media_id):
        info = source.info(media_id)
        count = 1 if info is None else len(info.pts)
        outside = [index for index in frames if not 0 <= index < count]
        if outside:
            raise DecodeError(f"there is no frame {outside[0]}: its {count} frames are 0 to {count - 1}")
        indices = (tuple(frames),)
        pixels = _decode(source, media_id, indices)
    clips = _with_seconds(info, indices)
    if plain:
        return Image.fromarray(np.concatenate(list(pixels[0]), axis=1)), clips
    height, width = pixels.shape[2:4]
    return _draw(pixels, clips, size=(width, height), is_image=info is None), clips


def _decode(source: MediaSource, media_id: str, indices: FrameIndices) -> np.ndarray:
    """(K, T, h, w, 3) uint8 RGB."""
    info = source.info(media_id)
    with source.reading(media_id) as data:
        if info is None:
            image = decode_image(data)
            return np.stack([np.stack([image] * len(clip)) for clip in indices])
        return decode_frames(data, indices, info=info, packets=source.packets(media_id))


def _with_seconds(info: VideoInfo | None, indices: FrameIndices) -> Clips:
    return [
        [(index, 0.0 if info is None else float(info.pts[index] * info.time_base)) for index in clip]
        for clip in indices
    ]


def _draw(frames: np.ndarray, clips: Clips, *, size: tuple[int, int], is_image: bool) -> Image.Image:
    """Draw frames, (K, T, h, w, 3), one row per clip, in the (width, height) `size`, each with a label below."""
    width, height = size
    pitch_x, pitch_y = max(width, _MIN_COLUMN) + _GAP, height + _LABEL + _GAP
    sheet = Image.new("RGB", (_GAP + frames.shape[1] * pitch_x, _GAP + frames.shape[0] * pitch_y), "white")
    draw = ImageDraw.Draw(sheet)
    for row, clip in enumerate(clips):
        for column, (index, seconds) in enumerate(clip):
            left, top = _GAP + column * pitch_x, _GAP + row * pitch_y
            picture = Image.fromarray(frames[row, column])
            sheet.paste(picture if picture.size == size else picture.resize(size), (left, top))
            label = f"{picture.width} x {picture.height}" if is_image else f"frame {index}, {seconds:.2f} s"
            draw.text((left, top + height + 2), label, fill="black")
    return sheet
