"""The sampled clips of a media item as one picture: a row a clip, the time under each frame."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from clipbert_cli.media.frames import decode_frames
from clipbert_cli.media.images import decode_image
from clipbert_cli.media.sampling import ClipSampling, select
from clipbert_cli.store.source import MediaSource

_SIDE = 224
_GAP = 6
_LABEL = 16


def sampled_frames(
    source: MediaSource, media_id: str, sampling: ClipSampling, *, seed: int = 0
) -> list[list[tuple[int, float]]]:
    """(frame, seconds) of each frame of each clip that `contact_sheet` draws; of an image its one frame at 0.

    Raises:
        StoreError, DecodeError: as `contact_sheet`.
    """
    info = source.info(media_id)
    if info is None:
        return [[(0, 0.0)]]
    clips = select(info, sampling, np.random.default_rng(seed))
    return [[(index, float(info.pts[index] * info.time_base)) for index in clip] for clip in clips]


def contact_sheet(source: MediaSource, media_id: str, sampling: ClipSampling, *, seed: int = 0) -> Image.Image:
    """The clips that `sampling` takes of an item; random ones are drawn from `seed`.

    Raises:
        StoreError: no such item.
        DecodeError: it does not give these clips.
    """
    info = source.info(media_id)
    sampled = sampled_frames(source, media_id, sampling, seed=seed)
    with source.reading(media_id) as data:
        if info is None:
            frames = decode_image(data)[None, None]
            labels = [[f"{frames.shape[3]} x {frames.shape[2]}"]]
        else:
            clips = tuple(tuple(index for index, _ in clip) for clip in sampled)
            frames = decode_frames(data, clips, info=info, packets=source.packets(media_id))
            labels = [[f"frame {index}, {seconds:.2f} s" for index, seconds in clip] for clip in sampled]
    rows = [[Image.fromarray(frame) for frame in clip] for clip in frames]
    scale = _SIDE / max(rows[0][0].size)
    width, height = (max(1, round(length * scale)) for length in rows[0][0].size)
    sheet = Image.new(
        "RGB",
        (_GAP + len(rows[0]) * (max(width, 130) + _GAP), _GAP + len(rows) * (height + _LABEL + _GAP)),
        "white",
    )
    draw = ImageDraw.Draw(sheet)
    for row, (pictures, texts) in enumerate(zip(rows, labels, strict=True)):
        for column, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
            left = _GAP + column * (max(width, 130) + _GAP)
            top = _GAP + row * (height + _LABEL + _GAP)
            sheet.paste(picture.resize((width, height)), (left, top))
            draw.text((left, top + height + 2), text, fill="black")
    return sheet
