"""FFmpeg's decoders with the settings of this project: every error is reported, and the frame size is limited."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import av
from av.video.codeccontext import VideoCodecContext

from clipbert_cli.errors import DecodeError

MAX_PIXELS = 178_956_970
"""Pixels of the largest image or video frame that is decoded: the size from which Pillow, too, suspects a bomb."""


@contextlib.contextmanager
def decode_errors() -> Iterator[None]:
    """Turn FFmpeg's errors into `DecodeError`."""
    try:
        yield
    except av.FFmpegError as exc:
        raise DecodeError(f"FFmpeg cannot read it: {exc.strerror or exc}") from exc
    except MemoryError as exc:
        raise DecodeError("there is not enough memory to decode it") from exc


def check_pixels(width: int, height: int, max_pixels: int) -> None:
    """Raise `DecodeError` if a frame has more than `max_pixels` pixels."""
    if width * height > max_pixels:
        raise DecodeError(
            f"its frames are {width} x {height}: more than {max_pixels} pixels",
            hint="raise data.max_pixels if the file is not a decompression bomb",
        )


def create_decoder(name: str, *, max_pixels: int) -> VideoCodecContext:
    """Return a decoder that needs no container, configured by `configure_decoder`."""
    context = av.CodecContext.create(name, "r")
    assert isinstance(context, VideoCodecContext)
    configure_decoder(context, max_pixels=max_pixels)
    return context


def configure_decoder(context: VideoCodecContext, *, max_pixels: int) -> None:
    """Make a decoder use one thread and report every error."""
    # Frame threads would swallow the error of a truncated last packet.
    context.thread_type = "NONE"
    context.thread_count = 1
    # By default FFmpeg conceals most errors with guessed pixels. Its other detection flags (crccheck, bitstream,
    # buffer) found nothing more in 700 damaged files. FFmpeg compares `max_pixels` with a size that includes the
    # padding of its buffers, so this value is only a coarse bound; `check_pixels` is exact.
    context.options = {
        "err_detect": "explode",
        "max_pixels": str(2 * max_pixels + 2**20),
        # Some containers state where chroma samples lie. The scaler would then compute other pixels than FFmpeg's
        # commands, which look at the stream alone, and than a decoder that has no container.
        "chroma_sample_location": "unspecified",
    }
