"""FFmpeg's decoders as this project sets them: every error is one, and no frame is larger than allowed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import av
from av.video.codeccontext import VideoCodecContext

from clipbert_cli.errors import DecodeError

MAX_PIXELS = 178_956_970
"""Largest picture or video frame that is decoded, in pixels: where Pillow too suspects a decompression bomb."""


@contextlib.contextmanager
def reading_video() -> Iterator[None]:
    """Turns FFmpeg's errors into `DecodeError`."""
    try:
        yield
    except av.FFmpegError as exc:
        raise DecodeError(f"FFmpeg cannot read it: {exc.strerror or exc}") from exc
    except MemoryError as exc:
        raise DecodeError("there is not enough memory to decode it") from exc


def check_pixels(width: int, height: int, max_pixels: int) -> None:
    """Refuses frames that are too large.

    Raises:
        DecodeError: more than `max_pixels`.
    """
    if width * height > max_pixels:
        raise DecodeError(f"its frames are {width} x {height}: more than {max_pixels} pixels")


def create_decoder(name: str, *, max_pixels: int) -> VideoCodecContext:
    """A decoder without a container, set as `set_decoding` does it."""
    context = av.CodecContext.create(name, "r")
    assert isinstance(context, VideoCodecContext)
    set_decoding(context, max_pixels=max_pixels)
    return context


def set_decoding(context: VideoCodecContext, *, max_pixels: int) -> None:
    """How this project decodes: in this thread, and with every error an error."""
    context.thread_type = "NONE"  # frame threads would swallow the error of a cut-off last packet
    context.thread_count = 1
    # FFmpeg counts the padding of its buffers too, so this is only a bound; the exact check is the callers'.
    context.options = {"err_detect": "explode", "max_pixels": str(2 * max_pixels + 2**20)}
