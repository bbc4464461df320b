"""The sampled clips of a media item as pictures for people: in full size, without the model's canvas and without torch.

K clips, T frames, h w size in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

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
