"""The frames of sampled clips as small JPEG pictures within a page, of which all together have a limited size."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from clipbert_cli.errors import ClipbertError
from clipbert_cli.media.sampling import ClipSampling
from clipbert_cli.store.sampled_clips import SampledClips, sample_clips_of
from clipbert_cli.store.source import MediaSource
from clipbert_cli.types import Rotation

# Pages of more than 20 MB open slowly. Base64 makes 4 bytes of 3, and the text needs some as well.
PICTURE_BYTES = 13_500_000
# The sides of a frame in pixels that are tried, and about how many bytes each takes.
_SIDES = ((128, 4200), (96, 2700), (72, 1800), (48, 1100), (32, 700))


@dataclass(frozen=True)
class Picture:
    """The frames of one clip side by side.

    Args:
        source: a `data:` address.
        width, height: in pixels.
        seconds: when each frame is shown; empty for an image.
        indices: which frames of the video they are.
    """

    source: str
    width: int
    height: int
    seconds: tuple[float, ...]
    indices: tuple[int, ...]


@dataclass(frozen=True)
class Strip:
    """One picture per clip, or the reason why there is none."""

    pictures: tuple[Picture, ...] = ()
    problem: str = ""


class Thumbnails:
    """Makes the pictures of a page.

    Args:
        source: where the media are; None if they cannot be opened, with the reason as `problem`.
        items: how many media items are shown, which decides the size of their frames.
        singles: how many single frames are shown beside each item.
        seed: of random clips.
        canvas: pad frames to squares, at the right and bottom, as the model sees them.
    """

    def __init__(
        self,
        source: MediaSource | None,
        sampling: ClipSampling,
        *,
        items: int,
        singles: int = 0,
        rotation: Rotation = "apply",
        problem: str = "",
        seed: int = 0,
        canvas: bool = False,
    ) -> None:
        self.source, self.sampling, self.rotation, self.problem = source, sampling, rotation, problem
        self.seed, self.canvas = seed, canvas
        of_clips = sampling.num_clips * sampling.num_frames if source and source.kind == "video" else 1
        frames = items * (of_clips + singles)
        fitting = [side for side, size in _SIDES if size * frames <= PICTURE_BYTES]
        self.side = fitting[0] if fitting else _SIDES[-1][0]
        self.bytes = 0
        self.left_out = 0

    def strip(self, media_id: str, *, single: bool = False) -> Strip:
        """Return the pictures of the clips that sampling takes of a media item.

        Args:
            single: only the first frame of the clip in the middle.
        """
        clips = self._clips(media_id)
        if isinstance(clips, str):
            return Strip(problem=clips)
        if single:
            middle = len(clips) // 2
            frames = clips.frames[middle : middle + 1, :1]
            clips = SampledClips(frames, (clips.indices[middle][:1],), (clips.seconds[middle][:1],))
        return Strip(tuple(self._pictures(clips)))

    def _clips(self, media_id: str) -> SampledClips | str:
        if self.source is None:
            return self.problem
        if self.bytes >= PICTURE_BYTES:
            self.left_out += 1
            return "left out: the page would be too large"
        try:
            return sample_clips_of(self.source, media_id, self.sampling, rotation=self.rotation, seed=self.seed)
        except ClipbertError as exc:
            return str(exc)

    def _pictures(self, clips: SampledClips) -> Iterator[Picture]:
        assert self.source is not None
        is_video = self.source.kind == "video"
        for frames, indices, seconds in zip(clips.frames, clips.indices, clips.seconds, strict=True):
            picture = self._small(frames)
            data = io.BytesIO()
            picture.save(data, "jpeg", quality=80, optimize=True)
            self.bytes += len(data.getvalue())
            address = "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
            yield Picture(address, picture.width, picture.height, seconds if is_video else (), indices)

    def _small(self, frames: np.ndarray) -> Image.Image:
        """Return frames (T, h, w, 3) side by side; small frames are not enlarged."""
        _, height, width, _ = frames.shape
        scale = min(1.0, self.side / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        pitch, bottom = (max(size), max(size)) if self.canvas else size
        row = Image.new("RGB", (pitch * len(frames), bottom))
        for place, frame in enumerate(frames):
            row.paste(Image.fromarray(frame).resize(size, Image.Resampling.BOX), (place * pitch, 0))
        return row
