"""Which source frames make the clips of a video: pure arithmetic on a `VideoInfo`, no decoding.

A clip is `num_frames` frames at `fps`, its first and last frame included. Of a video with frames `......`, two frames
`xx` a second apart and K clips are taken like this (one row a clip):

    start, middle, end    x..x........   ....x..x....   .......x..x.     start at 0, 1/3, 2/3 of the free range
    clips, K = 3          x..x........   ...x..x.....   ......x..x..     clip i starts at i/K of the free range
    random                .x..x.......                                   anywhere in the free range, drawn per clip
    uniform               x..........x                                   spread over the whole video, fps is not used

The rule is the original's, frame for frame (ClipBERT, `src/datasets/decoder.py`; measured in golden/sampling). Its
consequences: positions are truncated, not rounded; a clip longer than the video repeats its last frame; a stream that
starts late gives its first frame again and again; a variable frame rate is treated as constant. Header values are
believed, right or wrong, except where `safeguard` corrects the duration.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import get_args

import numpy as np

from clipbert_cli.errors import DecodeError
from clipbert_cli.types import Sampling, VideoInfo

FrameIndices = tuple[tuple[int, ...], ...]
"""(K, T) source frame indices, 0 = first frame shown."""

SAFEGUARD_RATIO = 0.8
"""A header duration is kept while the last frame is shown after this part of it."""

_START_AT = {"start": (0, 3), "middle": (1, 3), "end": (2, 3)}


@dataclass(frozen=True, slots=True)
class ClipSampling:
    """How clips are taken from a video.

    Args:
        strategy: where clips start, drawn in the module's docstring.
        num_clips: K. `uniform`, `start`, `middle` and `end` name one place in the video: K is 1.
        num_frames: T, frames of a clip.
        fps: frames per second inside a clip.
        safeguard: correct a header duration that is much too long (`clips` only; evaluation uses it).
    """

    strategy: Sampling
    num_clips: int = 1
    num_frames: int = 2
    fps: float = 2.0
    safeguard: bool = False

    def __post_init__(self) -> None:
        if self.strategy not in get_args(Sampling):
            raise ValueError(f"strategy is {self.strategy!r}: it must be one of {', '.join(get_args(Sampling))}")
        if self.num_clips < 1 or self.num_frames < 1:
            raise ValueError(
                f"num_clips is {self.num_clips} and num_frames is {self.num_frames}: both must be at least 1"
            )
        if not self.fps > 0:
            raise ValueError(f"fps is {self.fps}: it must be greater than 0")
        if self.num_clips > 1 and self.strategy not in ("random", "clips"):
            raise ValueError(
                f"num_clips is {self.num_clips}: sampling {self.strategy!r} takes the same clip every time, so it must "
                "be 1 (or sampling `clips` or `random`)"
            )


def select(info: VideoInfo, sampling: ClipSampling, rng: np.random.Generator | None = None) -> FrameIndices:
    """The source frames of every clip: K tuples of T indices into `info.pts`.

    `rng` is needed for `random` alone, and gives exactly one uniform draw per clip.

    Raises:
        DecodeError: where `clip_frames` does, or, with the safeguard, where the video does not decode to its end.
    """
    duration = info.duration
    if sampling.strategy == "random":
        if rng is None:
            raise ValueError("sampling `random` needs a random generator")
        draws = rng.random(sampling.num_clips)
        return tuple(clip_frames(info, sampling, at=float(u), of=1) for u in draws)
    if sampling.strategy == "clips":
        if sampling.safeguard:
            duration = safeguard_duration(info)
        clips = range(sampling.num_clips)
        return tuple(clip_frames(info, sampling, at=i, of=sampling.num_clips, duration=duration) for i in clips)
    at, of = _START_AT.get(sampling.strategy, (0, 1))
    return (clip_frames(info, sampling, at=at, of=of),)


def safeguard_duration(info: VideoInfo) -> int | None:
    """The duration that windows are laid on: the header's, or the last frame's time where the header's is far off.

    The safeguard looks at the whole video, so one with a damaged tail fails for every clip.

    Raises:
        DecodeError: the video does not decode to its end, or its header is one that `clip_frames` refuses.
    """
    _check_header(info)
    if not info.complete:
        raise DecodeError(f"decoding fails after frame {len(info.pts)}, and the duration check needs the whole video")
    if info.duration is not None and info.pts and info.pts[-1] < SAFEGUARD_RATIO * info.duration:
        return info.pts[-1]
    return info.duration


def clip_frames(
    info: VideoInfo, sampling: ClipSampling, *, at: float, of: int, duration: int | None = None
) -> tuple[int, ...]:
    """The T source frames of the clip that starts at `at / of` of the free range.

    Args:
        at, of: (u, 1) for a random clip with the draw u in [0, 1); (i, K) for clip i of K.
        duration: stands for the header's duration, in units of `info.time_base` (see `safeguard_duration`).

    Raises:
        DecodeError: the header states a duration but no frame count, or no average rate; decoding fails inside of what
            the clip needs (up to the first frame after its window; the whole video where the header states no
            duration); or no frame is shown inside the window or after it.
    """
    _check_header(info)
    if info.duration is None:
        return _clip_of_all_frames(info, sampling, at=at, of=of)
    start, window = _window(info.num_frames, info, sampling, at=at, of=of)
    # Rule step 2: the window in time-base units, then the frames shown in it and the one after.
    units_per_frame = (info.duration if duration is None else duration) / info.num_frames
    low = int(start * units_per_frame)
    high = int((start + window - 1) * units_per_frame)
    first = bisect_left(info.pts, low)
    after = bisect_right(info.pts, high, lo=min(first, len(info.pts)))
    if after >= len(info.pts) and not info.complete:
        raise DecodeError(f"decoding fails after frame {len(info.pts)}, inside of a wanted clip")
    chosen = range(first, min(after + 1, len(info.pts)))
    if not chosen:
        raise DecodeError(f"no frame is shown in the wanted clip: the video ends before the {info.duration} stated")
    # Rule step 3.
    length = len(chosen) if sampling.strategy == "uniform" else window
    return tuple(chosen[k] for k in _positions(0.0, length - 1, sampling.num_frames, len(chosen)))


def _check_header(info: VideoInfo) -> None:
    if not info.average_rate:
        raise DecodeError("the file states no average frame rate, so clips cannot be laid on it")
    if info.duration is not None and not info.num_frames:
        raise DecodeError("the file states a duration but no frame count, so clips cannot be laid on it")


def _clip_of_all_frames(info: VideoInfo, sampling: ClipSampling, *, at: float, of: int) -> tuple[int, ...]:
    """Rule step 4: no duration is stated (WebM, Matroska), so windows are laid on the frames that decode."""
    if not info.complete:
        raise DecodeError(f"decoding fails after frame {len(info.pts)}, and a file without a duration needs all frames")
    count = len(info.pts)
    if not count:
        raise DecodeError("the video has no frames")
    start, window = _window(count, info, sampling, at=at, of=of)
    return _positions(start, start + window - 1, sampling.num_frames, count)


def _window(count: int, info: VideoInfo, sampling: ClipSampling, *, at: float, of: int) -> tuple[float, float]:
    """Rule step 1: first frame and length of the window, in source frames (floats, in this order of operations)."""
    if sampling.strategy == "uniform":
        return 0.0, float(count)
    assert info.average_rate is not None
    window = sampling.num_frames / sampling.fps * float(info.average_rate)
    return max(count - window, 0) * at / of, window


def _positions(first: float, last: float, count: int, available: int) -> tuple[int, ...]:
    """`count` evenly spaced positions in float32, clamped to the available frames and truncated.

    Spaced from both ends towards the middle, one rounding an operation, as torch.linspace does.
    """
    low, high = np.float32(first), np.float32(last)
    if count == 1:
        positions = np.array([low])
    else:
        step = (high - low) / np.float32(count - 1)
        k = np.arange(count, dtype=np.float32)
        positions = np.where(k < count // 2, low + step * k, high - step * (np.float32(count - 1) - k))
    return tuple(np.clip(positions, 0, available - 1).astype(np.int64).tolist())
