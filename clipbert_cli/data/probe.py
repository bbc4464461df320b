"""What a media file says of itself and what really decodes: header values, presentation times, size.

Source frames are counted in the order the decoder shows them. Frames of a damaged video count up to the first error:
an error, a frame that FFmpeg itself calls corrupt, and a change of the frame size all end the video there. Rotation
marks are ignored, as the original ignores them.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream
from PIL import Image, UnidentifiedImageError

from clipbert_cli.batch import VideoInfo
from clipbert_cli.errors import DecodeError

Kind = Literal["video", "image"]

MAX_PIXELS = 178_956_970
"""Largest picture or video frame that is decoded, in pixels: where Pillow too suspects a decompression bomb."""

_FORWARD = {PictureType.P, PictureType.S}
_PREDICTED = _FORWARD | {PictureType.B}

# A playlist must not make FFmpeg open other files or URLs.
_FORMAT_OPTIONS = {"protocol_whitelist": "none"}


@dataclass(frozen=True, slots=True)
class ProbedVideo:
    """`VideoInfo`, and what else pack keeps of a video: names as FFmpeg gives them, indices of the key frames."""

    info: VideoInfo
    codec: str
    container: str
    keyframes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ProbedImage:
    """An image's size, and Pillow's names of its pixel mode and file format; `frames` > 1 where it is animated."""

    width: int
    height: int
    mode: str
    format: str
    frames: int


@contextlib.contextmanager
def open_video(data: bytes) -> Iterator[Video]:
    """A video file held in memory, ready to decode from its start.

    Raises:
        DecodeError: empty, not a video file, no video stream; and in place of FFmpeg's errors in the body.
    """
    if not data:
        raise DecodeError("the file is empty")
    with Video(data) as video:
        yield video


class Video:
    """An open video stream; `stream` holds the header values."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._open()

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    @property
    def container_format(self) -> str:
        """FFmpeg's name of the container, e.g. `mov,mp4,m4a,3gp,3g2,mj2`."""
        return str(self._container.format.name)

    def frames(self) -> Iterator[tuple[int, VideoFrame]]:
        """(presentation time, frame) of every frame from the start, in the order they are shown.

        A missing time is one frame after the one before, and a time that runs backwards is the one before, so that
        times never decrease.

        Errors in the bitstream are not concealed: FFmpeg's default shows a guess in most cases. A stream that was cut
        off inside a group of pictures (a broadcast) cannot begin without error: what belongs to pictures before the
        cut is left out, and the first frame is the first one that is whole.

        Raises:
            DecodeError: at the first error (see the module's docstring).
        """
        shown = False
        try:
            for timed in self._frames():
                shown = True
                yield timed
        except DecodeError:
            if shown:
                raise
        else:
            return
        self._container.close()
        self._open()
        yield from self._frames(began_inside=True)

    def _open(self) -> None:
        with _reading_video():
            self._container: InputContainer = av.open(
                io.BytesIO(self._data), mode="r", options=_FORMAT_OPTIONS, metadata_errors="replace"
            )
            try:
                self.stream = _video_stream(self._container)
            except BaseException:
                self._container.close()
                raise

    def _frames(self, *, began_inside: bool = False) -> Iterator[tuple[int, VideoFrame]]:
        time, size, lost = None, None, False
        with _reading_video():
            for frame in self._whole_frames() if began_inside else self._container.decode(self.stream):
                if frame.is_corrupt:
                    raise DecodeError("the decoder calls a frame corrupt")
                if time is None and not frame.key_frame and frame.pict_type in (_PREDICTED if lost else _FORWARD):
                    lost = True  # MPEG-4 shows what it predicts from a first frame that is lost
                    continue
                size = size or (frame.width, frame.height)
                if (frame.width, frame.height) != size:
                    raise DecodeError(
                        f"the frame size changes from {size[0]} x {size[1]} to {frame.width} x {frame.height}"
                    )
                if time is None:
                    time = frame.pts or 0
                else:
                    time = max(time, time + _frame_step(self.stream) if frame.pts is None else frame.pts)
                yield time, frame

    def _whole_frames(self) -> Iterator[VideoFrame]:
        """Frames from the first key frame on, without those that are decoded after it and shown before it."""
        begun, start = False, None
        for packet in self._container.demux(self.stream):
            begun = begun or packet.is_keyframe
            if not begun:
                continue
            try:
                yield from packet.decode()
            except av.InvalidDataError:
                if start is None or packet.pts is None or packet.pts >= start:
                    raise
            if packet.is_keyframe and start is None:
                start = packet.pts


@contextlib.contextmanager
def _reading_video() -> Iterator[None]:
    """Turns FFmpeg's errors into `DecodeError`."""
    try:
        yield
    except av.FFmpegError as exc:
        raise DecodeError(f"FFmpeg cannot read it: {exc.strerror or exc}") from exc
    except MemoryError as exc:
        raise DecodeError("there is not enough memory to decode it") from exc


def _video_stream(container: InputContainer) -> VideoStream:
    name = container.format.name
    if name.endswith("_pipe") or name == "image2":
        raise DecodeError("it is a picture, not a video")
    # Cover art of an audio file is no video.
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        kinds = sorted({s.type for s in container.streams if s.type not in ("video", "unknown")})
        raise DecodeError(f"it has no video stream (only {', '.join(kinds)})" if kinds else "it has no video stream")
    stream = streams[0]
    context = stream.codec_context
    if context is None:
        raise DecodeError("FFmpeg here has no decoder for its video stream")
    if context.width * context.height > MAX_PIXELS:
        raise DecodeError(f"its frames are {context.width} x {context.height}: more than {MAX_PIXELS} pixels")
    # Frame threads would swallow the error of a cut-off last packet.
    context.thread_type = "NONE"
    context.options = {"err_detect": "explode", "max_pixels": str(MAX_PIXELS)}
    return stream


def _frame_step(stream: VideoStream) -> int:
    """One frame at the average rate, in units of the time base; at least 1."""
    if not stream.average_rate or not stream.time_base:
        return 1
    return max(1, round(1 / (stream.average_rate * stream.time_base)))


def probe_video(data: bytes) -> VideoInfo:
    """What sampling needs to know of a video. Decodes it once, from beginning to end or to the first error.

    Raises:
        DecodeError: not a video, or not even the first frame decodes.
    """
    return inspect_video(data).info


def inspect_video(data: bytes) -> ProbedVideo:
    """`probe_video`, and what else pack keeps.

    Raises:
        DecodeError: as `probe_video`.
    """
    times: list[int] = []
    keyframes: list[int] = []
    width = height = 0
    complete = True
    with open_video(data) as video:
        try:
            for time, frame in video.frames():
                if not times:
                    width, height = frame.width, frame.height
                if frame.key_frame:
                    keyframes.append(len(times))
                times.append(time)
        except DecodeError as exc:
            if not times:
                raise DecodeError(f"not one frame decodes: {exc}") from exc
            complete = False
        if not times:
            raise DecodeError("not one frame decodes: the video stream is empty")
        stream = video.stream
        info = VideoInfo(
            width=width,
            height=height,
            num_frames=stream.frames,
            duration=stream.duration,
            average_rate=stream.average_rate or None,
            time_base=stream.time_base or Fraction(1),
            pts=tuple(times),
            complete=complete,
        )
        return ProbedVideo(info, stream.codec_context.name, video.container_format, tuple(keyframes))


@contextlib.contextmanager
def open_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """A picture held in memory, opened and not yet decoded; its first frame where it is animated.

    Raises:
        DecodeError: empty, not a picture, more than `max_pixels`; and in place of Pillow's errors in the body.
    """
    if not data:
        raise DecodeError("the file is empty")
    try:
        with warnings.catch_warnings():
            # Size is checked here; what else Pillow warns of (odd EXIF, truncated metadata) does not touch pixels.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                if image.width * image.height > max_pixels:
                    raise DecodeError(f"it is {image.width} x {image.height}: more than {max_pixels} pixels")
                yield image
    except DecodeError:
        raise
    except UnidentifiedImageError as exc:
        raise DecodeError("it is not a picture that Pillow here can read") from exc
    except Image.DecompressionBombError as exc:
        raise DecodeError(f"it has more than {max_pixels} pixels") from exc
    except MemoryError as exc:
        raise DecodeError("there is not enough memory to decode it") from exc
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, OverflowError) as exc:
        # Pillow's plugins let their parsers' errors through on damaged files.
        raise DecodeError(f"Pillow cannot read it: {exc}") from exc


def probe_image(data: bytes) -> ProbedImage:
    """Size and mode of a picture; decodes it fully, so that a damaged one is found.

    Raises:
        DecodeError: not a picture, damaged, or too large.
    """
    with open_image(data) as image:
        frames = int(getattr(image, "n_frames", 1))
        image.load()
        return ProbedImage(image.width, image.height, image.mode, image.format or "unknown", frames)
