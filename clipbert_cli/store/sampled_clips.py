"""The sampled clips of a media item as pictures for people, and drawn as one: without canvas and without torch.

K clips, T frames, h w size in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

from clipbert_cli.errors import DecodeError
from clipbert_cli.media.canvas import upright_pixels
from clipbert_cli.media.frames import decode_frames
from clipbert_cli.media.images import decode_image
from clipbert_cli.media.sampling import ClipSampling, FrameIndices, select
from clipbert_cli.store.source import MediaSource, named
from clipbert_cli.types import Rotation


@dataclass(frozen=True)
class SampledClips:
    """Clips of a media item; an image is one clip of one frame.

    Args:
        frames: (K, T, h, w, 3) uint8 RGB, upright.
        indices: which frames of the video they are.
        seconds: when each frame is shown, as the file states it; 0 for an image.
    """

    frames: np.ndarray = field(repr=False)
    indices: FrameIndices
    seconds: tuple[tuple[float, ...], ...]

    def __len__(self) -> int:
        return len(self.frames)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield each clip, (T, h, w, 3)."""
        return iter(self.frames)


def sample_clips_of(
    source: MediaSource, media_id: str, sampling: ClipSampling, *, seed: int = 0, rotation: Rotation = "apply"
) -> SampledClips:
    """Decode the clips that `sampling` takes of an item.

    Args:
        seed: of random clips.

    Raises:
        StoreError: there is no such item.
        DecodeError: the item cannot be decoded, or has too few frames for these clips; the message names it.
    """
    with named(source, media_id):
        info = source.info(media_id)
        indices = ((0,),) if info is None else select(info, sampling, np.random.default_rng(seed))
        return clips_of_frames(source, media_id, indices, rotation=rotation)


def clips_of_frames(source: MediaSource, media_id: str, indices: FrameIndices, *, rotation: Rotation) -> SampledClips:
    """Decode chosen frames of an item; an image has the frame 0.

    Raises:
        StoreError: there is no such item.
        DecodeError: the item cannot be decoded.
    """
    info = source.info(media_id)
    with source.reading(media_id) as data:
        if info is None:
            image = decode_image(data, rotation=rotation)
            frames = np.stack([np.stack([image] * len(clip)) for clip in indices])
        else:
            frames = decode_frames(data, indices, info=info, packets=source.packets(media_id))
            if rotation == "apply":
                frames = upright_pixels(frames, info.orientation)
    seconds = tuple(tuple(0.0 if info is None else info.seconds(index) for index in clip) for clip in indices)
    return SampledClips(frames, indices, seconds)


# In pixels. A column is at least as wide as the longest label, "frame 12345, 1234.56 s".
_SIDE = 224
_GAP = 6
_LABEL = 16
_MIN_COLUMN = 130


def contact_sheet(
    source: MediaSource, media_id: str, sampling: ClipSampling, *, seed: int = 0
) -> tuple[Image.Image, SampledClips]:
    """Draw the clips of `sample_clips_of`, which says what the arguments are; return the picture and the clips."""
    sampled = sample_clips_of(source, media_id, sampling, seed=seed)
    scale = _SIDE / max(sampled.frames.shape[2:4])
    height, width = (max(1, round(length * scale)) for length in sampled.frames.shape[2:4])
    return _draw(sampled, size=(width, height), is_image=source.kind == "image"), sampled


def frame_sheet(
    source: MediaSource, media_id: str, frames: Sequence[int], *, plain: bool = False
) -> tuple[Image.Image, SampledClips]:
    """Draw these frames of an item in one row, in the size in which they are coded and not turned upright.

    Args:
        frames: frame indices; an image has the frame 0.
        plain: leave out labels and the space between frames, so that frame i begins in column i * width.

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
        found = clips_of_frames(source, media_id, (tuple(frames),), rotation="ignore")
    if plain:
        return Image.fromarray(np.concatenate(list(found.frames[0]), axis=1)), found
    height, width = found.frames.shape[2:4]
    return _draw(found, size=(width, height), is_image=info is None), found


def _draw(sampled: SampledClips, *, size: tuple[int, int], is_image: bool) -> Image.Image:
    """Draw one row per clip, with frames in the (width, height) `size`, each with a label below."""
    frames = sampled.frames
    width, height = size
    pitch_x, pitch_y = max(width, _MIN_COLUMN) + _GAP, height + _LABEL + _GAP
    sheet = Image.new("RGB", (_GAP + frames.shape[1] * pitch_x, _GAP + frames.shape[0] * pitch_y), "white")
    draw = ImageDraw.Draw(sheet)
    for row, clip in enumerate(zip(sampled.indices, sampled.seconds, strict=True)):
        for column, (index, seconds) in enumerate(zip(*clip, strict=True)):
            left, top = _GAP + column * pitch_x, _GAP + row * pitch_y
            picture = Image.fromarray(frames[row, column])
            sheet.paste(picture if picture.size == size else picture.resize(size), (left, top))
            label = f"{picture.width} x {picture.height}" if is_image else f"frame {index}, {seconds:.2f} s"
            draw.text((left, top + height + 2), label, fill="black")
    return sheet
