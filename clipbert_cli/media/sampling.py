"""Sampling: the frame indices of each clip of a video, computed from a `VideoInfo` without decoding.

A clip is `num_frames` frames at `fps`, its first and last frame included. It is taken from a window of
`num_frames / fps` seconds. The free range is what the window leaves of the video. Drawn for a video of 12 frames, clips
of 2 frames and a window of 4 frames, one row per clip (f = frame of the clip, x = rest of its window):

    start       fxxf........    the window begins at 0 of the free range
    middle      ..fxxf......    at 1/3
    end         .....fxxf...    at 2/3, so the last frames of a video are never reached
    clips       fxxf........    clip i of K begins at i/K; here K = 4
                ..fxxf......
                ....fxxf....
                ......fxxf..
    random      ...fxxf.....    anywhere, drawn for each clip
    uniform     fxxxxxxxxxxf    the window is the whole video, and `fps` is not used

The paper trains with `random` and evaluates with `clips` (ClipBERT, arXiv 2102.06183, section 3).

There are two rules for the time of a frame. They differ where times are uneven. Drawn for a window of 2 seconds at the
start, clips of 3 frames, and a video that is shown from second 2 on and stands still from second 3 to 5 (each digit is
a frame, placed when it is shown, four columns per second):

    second                 2   3   4   5   6
    frames                 0123        456789
    presentation           0  3    3                positions are times: the frame that is shown then
    header                 0                        the window lies before the first frame, so it is taken three times

- `presentation` counts from the first frame, and ends when the last frame ends. The clip's positions are spaced evenly
  in time from the first frame that appears in the window to one frame before its end. At each position it takes the
  frame that is shown. For a constant rate these are the frames of `header`, up to one frame of rounding.
- `header` computes times from the container's frame count, duration and average rate, as the original does. It is
  taken frame for frame from the original's `src/datasets/decoder.py`; tests/golden/README.md, section 5, states it in
  steps that the comments below refer to. Positions are truncated, not rounded. Windows are counted from time 0, so a
  stream that starts late gives its first frame repeatedly. A variable rate is treated as constant. Header values are
  believed unless `safeguard` corrects the duration. Where the header lacks a value, `select` uses `presentation`.

In both, a clip that is longer than the video repeats the last frame.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import get_args

import numpy as np

from clipbert_cli.errors import DecodeError
from clipbert_cli.types import ClipTimes, Sampling, Segment, VideoInfo

FrameIndices = tuple[tuple[int, ...], ...]
"""Frame indices of K clips of T frames; 0 is the first frame that is shown."""

SAFEGUARD_RATIO = 0.8
"""The header's duration is accepted if the last frame is shown after this part of it. The original's value."""

# Strategies of one clip: (at, of), the clip begins at `at / of` of the free range.
_SINGLE_CLIP = {"uniform": (0, 1), "start": (0, 3), "middle": (1, 3), "end": (2, 3)}


@dataclass(frozen=True, slots=True)
class ClipSampling:
    """The policy that takes clips from a video.

    Args:
        strategy: where clips begin, see the module's docstring.
        num_clips: K; must be 1 for `uniform`, `start`, `middle` and `end`.
        num_frames: T, frames per clip.
        fps: frames per second inside a clip.
        safeguard: correct a header duration that is much too long (only with `clips` and header times, in evaluation).
        times: the rule for the time of a frame, see the module's docstring.
    """

    strategy: Sampling
    num_clips: int = 1
    num_frames: int = 2
    fps: float = 2.0
    safeguard: bool = False
    times: ClipTimes = "presentation"

    def __post_init__(self) -> None:
        if self.strategy not in get_args(Sampling):
            raise ValueError(f"strategy is {self.strategy!r}, but must be one of {', '.join(get_args(Sampling))}")
        if self.num_clips < 1 or self.num_frames < 1:
            raise ValueError(
                f"num_clips is {self.num_clips} and num_frames is {self.num_frames}, but both must be at least 1"
            )
        if not self.fps > 0:
            raise ValueError(f"fps is {self.fps}, but must be greater than 0")
        if self.num_clips > 1 and self.strategy in _SINGLE_CLIP:
            raise ValueError(
                f"num_clips is {self.num_clips}: sampling {self.strategy!r} takes the same clip every time, so it must "
                "be 1 (or use sampling `clips` or `random`)"
            )


def select(info: VideoInfo, sampling: ClipSampling, rng: np.random.Generator | None = None) -> FrameIndices:
    """Return the frame indices of every clip: K tuples of T indices into `info.pts`.

    Args:
        rng: required by `random`, which takes exactly one uniform draw per clip from it.

    Raises:
        DecodeError: see `header_frames`, `presentation_frames` and `segment_info`; with the safeguard also if the video
            does not decode to its end.
    """
    if info.segment is not None:
        first, part = segment_info(info, info.segment)
        return tuple(tuple(first + frame for frame in clip) for clip in select(part, sampling, rng))
    clip_frames: Callable[..., tuple[int, ...]]
    if sampling.times == "header" and states_times(info):
        safe = sampling.strategy == "clips" and sampling.safeguard
        duration = safeguard_duration(info) if safe else info.duration
        clip_frames = partial(header_frames, info, sampling, duration=duration)
    else:
        clip_frames = partial(presentation_frames, Timeline.of(info), info, sampling)
    if sampling.strategy == "random":
        if rng is None:
            raise ValueError("sampling `random` needs a random generator")
        return tuple(clip_frames(at=float(draw), of=1) for draw in rng.random(sampling.num_clips))
    if sampling.strategy == "clips":
        return tuple(clip_frames(at=i, of=sampling.num_clips) for i in range(sampling.num_clips))
    at, of = _SINGLE_CLIP[sampling.strategy]
    return (clip_frames(at=at, of=of),)


def states_times(info: VideoInfo) -> bool:
    """Return whether the header states what the rule `header` needs: a rate, and a frame count beside a duration."""
    return bool(info.average_rate) and (info.duration is None or bool(info.num_frames))


def safeguard_duration(info: VideoInfo) -> int | None:
    """Return the duration on which windows are laid, in units of `info.time_base`.

    This is the header's duration, or the last frame's time if that is below `SAFEGUARD_RATIO` of it (rule step 5).

    Raises:
        DecodeError: the video does not decode to its end, because the safeguard looks at all frames; or the header is
            one that `header_frames` refuses.
    """
    _check_header(info)
    if not info.complete:
        raise DecodeError(f"{info.failure}; the duration check needs the whole video")
    if info.duration is not None and info.pts and info.pts[-1] < SAFEGUARD_RATIO * info.duration:
        return info.pts[-1]
    return info.duration


@dataclass(frozen=True, slots=True)
class Timeline:
    """The true times of a video's frames.

    Args:
        times: (F,) float64, when each frame is first shown, in units of the video's time base.
        step: duration of one frame in the same units.
        tolerance: a position that lies before a frame by less than this means that frame.
    """

    times: np.ndarray
    step: float
    tolerance: float

    @classmethod
    def of(cls, info: VideoInfo) -> Timeline:
        """Return the times of all frames that decode.

        Frames that state the same time are spread evenly up to the next time. AVI files with B frames repeat times, and
        the frames of a second video, joined to the first one, all have the time at which the first one ends. The
        duration of a frame is the mean of the usual steps between two frames: those near the median, so that a long
        pause does not count. A single frame lasts 1 / rate.

        Raises:
            DecodeError: the video has no frames.
        """
        if not info.pts:
            raise DecodeError("the video has no frames")
        distinct, first, counts = np.unique(np.array(info.pts, dtype=np.int64), return_index=True, return_counts=True)
        gaps = np.diff(distinct) / counts[:-1]
        if len(gaps):
            median = np.median(gaps)
            usual = gaps[np.abs(gaps - median) <= max(1, median / 4)]
            # With an even number of gaps, the median lies between the two in the middle and may be near neither.
            step = float(usual.mean() if len(usual) else np.percentile(gaps, 50, method="lower"))
        else:
            step = float(1 / (info.average_rate * info.time_base)) if info.average_rate else 1.0
        # Containers round times to their unit, by half a unit at most. Equal steps are not rounded, and need only what
        # covers the rounding of floating point numbers.
        is_rounded = len(gaps) > 0 and gaps.min() != gaps.max()
        tolerance = min(0.51, step / 8) if is_rounded else step * 1e-6
        places = np.arange(len(info.pts)) - np.repeat(first, counts)
        times = np.repeat(distinct, counts) + places * np.repeat(np.append(gaps, step), counts)
        return cls(times, step, tolerance)


def segment_info(info: VideoInfo, segment: Segment) -> tuple[int, VideoInfo]:
    """Return the first frame of a segment, and the segment as a video of its own.

    It begins with the frame that is shown at its start and ends with the last one that is shown before its end. An end
    behind the end of the video means the end of the video.

    Raises:
        DecodeError: the video ends before the segment begins, or decoding fails before.
    """
    timeline = Timeline.of(info)
    unit = float(info.time_base)
    begin = timeline.times[0] + segment.start / unit
    end = np.inf if segment.end is None else timeline.times[0] + segment.end / unit
    decoded_to = timeline.times[-1] + timeline.step
    if begin >= decoded_to - timeline.tolerance:
        if not info.complete:
            raise DecodeError(f"{info.failure}; the segment lies behind it")
        lasts = (decoded_to - timeline.times[0]) * unit
        raise DecodeError(f"the segment begins at {segment.start:g} s, but the video lasts {lasts:.2f} s")
    first = int(np.searchsorted(timeline.times, begin + timeline.tolerance, side="right")) - 1
    after = max(int(np.searchsorted(timeline.times, end - timeline.tolerance)), first + 1)
    # The frame that is shown at the start may have been shown for long. Its time in the segment is the segment's.
    times = (max(info.pts[first], round(begin)), *info.pts[first + 1 : after])
    stops = min(end, decoded_to if info.complete or info.duration is None else timeline.times[0] + info.duration)
    return first, dataclasses.replace(
        info,
        pts=tuple(time - times[0] for time in times),
        num_frames=len(times) if info.num_frames else 0,
        duration=None if info.duration is None else max(round(stops - times[0]), 1),
        # What lies behind the segment does not matter.
        complete=info.complete or after < len(info.pts),
        segment=None,
    )


def presentation_frames(
    timeline: Timeline, info: VideoInfo, sampling: ClipSampling, *, at: float, of: int
) -> tuple[int, ...]:
    """Return the T frame indices of the clip that begins at `at / of` of the free range, by true times.

    Args:
        at, of: as in `header_frames`.

    Raises:
        DecodeError: decoding fails in a part that the clip needs (anywhere, if the header states no duration, because
            the length of the video is then unknown).
    """
    times, step = timeline.times, timeline.step
    begin, end = times[0], times[-1] + step
    if not info.complete:
        if info.duration is None:
            raise DecodeError(f"{info.failure}, and the file does not state how long the whole video is")
        # Clips keep their places in the whole video, so those before the damage are the ones that it would give.
        end = max(end, begin + info.duration)
    tolerance = timeline.tolerance
    if sampling.strategy == "uniform":
        first, last = begin, end - step
    else:
        window = sampling.num_frames / sampling.fps / float(info.time_base)
        first = begin + max(end - begin - window, 0) * at / of
        # The clip begins with the first frame that appears in its window, as the rule `header` does, unless a frame
        # stands still there for longer than usual.
        appears = np.searchsorted(times, first - tolerance)
        if appears < len(times) and times[appears] - first < step:
            first = times[appears]
        last = first + max(window - step, 0)
    positions = np.linspace(first, last, sampling.num_frames) + tolerance  # (T,)
    if not info.complete and positions[-1] >= times[-1] + step:
        raise DecodeError(f"{info.failure}; a wanted clip lies there")
    return tuple((np.searchsorted(times, positions, side="right") - 1).tolist())


def header_frames(
    info: VideoInfo, sampling: ClipSampling, *, at: float, of: int, duration: int | None = None
) -> tuple[int, ...]:
    """Return the T frame indices of the clip that begins at `at / of` of the free range, by header values.

    Args:
        at, of: (u, 1) for a random clip with the draw u in [0, 1); (i, K) for clip i of K.
        duration: replaces the header's duration, see `safeguard_duration`.

    Raises:
        DecodeError: the header states a duration but no frame count, or no average rate; decoding fails in a part that
            the clip needs (up to the first frame after its window, or the whole video if the header states no
            duration); or no frame is shown in the window or after it.
    """
    _check_header(info)
    if info.duration is None:
        return _clip_of_all_frames(info, sampling, at=at, of=of)
    start, window = _window(info.num_frames, info, sampling, at=at, of=of)
    # Rule step 2: the window in units of the time base, then the frames shown in it and the first one after it.
    units_per_frame = (info.duration if duration is None else duration) / info.num_frames
    low = int(start * units_per_frame)
    high = int((start + window - 1) * units_per_frame)
    first = bisect_left(info.pts, low)
    after = bisect_right(info.pts, high, lo=min(first, len(info.pts)))
    # The original decodes up to the first frame after the window, so an error before that frame fails the clip.
    if after >= len(info.pts) and not info.complete:
        raise DecodeError(f"{info.failure}; a wanted clip lies there")
    chosen = range(first, min(after + 1, len(info.pts)))
    if not chosen:
        raise DecodeError(
            f"no frame is shown in the wanted clip: the video ends before its stated duration of {info.duration} units"
        )
    # Rule step 3.
    length = len(chosen) if sampling.strategy == "uniform" else window
    return tuple(chosen[k] for k in _positions(0.0, length - 1, sampling.num_frames, len(chosen)))


def _check_header(info: VideoInfo) -> None:
    """Refuse headers that the original refuses (rule step 6)."""
    if not info.average_rate:
        raise DecodeError("the file states no average frame rate, so clips cannot be laid on it")
    if info.duration is not None and not info.num_frames:
        raise DecodeError("the file states a duration but no frame count, so clips cannot be laid on it")


def _clip_of_all_frames(info: VideoInfo, sampling: ClipSampling, *, at: float, of: int) -> tuple[int, ...]:
    """Rule step 4: WebM and Matroska state no duration, so the window is laid on the frames that decode."""
    if not info.complete:
        raise DecodeError(f"{info.failure}; a file without a duration needs all frames")
    count = len(info.pts)
    if not count:
        raise DecodeError("the video has no frames")
    start, window = _window(count, info, sampling, at=at, of=of)
    return _positions(start, start + window - 1, sampling.num_frames, count)


def _window(count: int, info: VideoInfo, sampling: ClipSampling, *, at: float, of: int) -> tuple[float, float]:
    """Rule step 1: return the first frame and the length of the window, in source frames."""
    if sampling.strategy == "uniform":
        return 0.0, float(count)
    assert info.average_rate is not None
    # The order of the operations is the original's: another one rounds differently and selects other frames.
    window = sampling.num_frames / sampling.fps * float(info.average_rate)
    return max(count - window, 0) * at / of, window


def _positions(first: float, last: float, count: int, available: int) -> tuple[int, ...]:
    """Return `count` evenly spaced positions in float32, limited to the available frames and truncated."""
    low, high = np.float32(first), np.float32(last)
    if count == 1:
        positions = np.array([low])
    else:
        # As torch.linspace does: from both ends towards the middle, one rounding per operation.
        step = (high - low) / np.float32(count - 1)
        k = np.arange(count, dtype=np.float32)
        positions = np.where(k < count // 2, low + step * k, high - step * (np.float32(count - 1) - k))
    return tuple(np.clip(positions, 0, available - 1).astype(np.int64).tolist())
