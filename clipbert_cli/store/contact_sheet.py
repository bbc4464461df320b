"""The sampled clips of a media item as one picture: one row per clip, with a label under each frame."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from clipbert_cli.media.frames import decode_frames
from clipbert_cli.media.images import decode_image
from clipbert_cli.media.sampling import ClipSampling, select
from clipbert_cli.store.source import MediaSource

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
        DecodeError: the item cannot be decoded, or has too few frames for these clips.
    """
    info = source.info(media_id)
    with source.reading(media_id) as data:
        if info is None:
            frames = decode_image(data)[None, None]  # (1, 1, H, W, 3)
            clips: Clips = [[(0, 0.0)]]
            labels = [[f"{frames.shape[3]} x {frames.shape[2]}"]]
        else:
            indices = select(info, sampling, np.random.default_rng(seed))
            clips = [[(index, float(info.pts[index] * info.time_base)) for index in clip] for clip in indices]
            frames = decode_frames(data, indices, info=info, packets=source.packets(media_id))
            labels = [[f"frame {index}, {seconds:.2f} s" for index, seconds in clip] for clip in clips]
    return _draw([[Image.fromarray(frame) for frame in clip] for clip in frames], labels), clips


def _draw(rows: list[list[Image.Image]], labels: list[list[str]]) -> Image.Image:
    scale = _SIDE / max(rows[0][0].size)
    width, height = (max(1, round(length * scale)) for length in rows[0][0].size)
    pitch_x, pitch_y = max(width, _MIN_COLUMN) + _GAP, height + _LABEL + _GAP
    sheet = Image.new("RGB", (_GAP + len(rows[0]) * pitch_x, _GAP + len(rows) * pitch_y), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (pictures, texts) in enumerate(zip(rows, labels, strict=True)):
        for column, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
            left, top = _GAP + column * pitch_x, _GAP + row * pitch_y
            sheet.paste(picture.resize((width, height)), (left, top))
            draw.text((left, top + height + 2), text, fill="black")
    return sheet
