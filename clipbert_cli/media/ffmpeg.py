"""FFmpeg's decoders with the settings of this project: every error is reported, and the frame size is limited."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import av
from av.video.codeccontext import VideoCodecContext

from clipbert_cli.errors import DecodeError

MAX_PIXELS = 178_956_970
"""Pixels of the largest image or video frame that is decoded: the size from which Pillow, too, suspects a bomb."""

_most_pixels: ContextVar[int] = ContextVar("most_pixels", default=MAX_PIXELS)


@contextlib.contextmanager
def limited_to(max_pixels: int) -> Iterator[None]:
    """Decode no image or frame of more pixels in the block, instead of `MAX_PIXELS`."""
    token = _most_pixels.set(max_pixels)
    try:
        yield
    finally:
        _most_pixels.reset(token)


def check_pixels(width: int, height: int) -> None:
    """Raise `DecodeError` if an image or frame has more pixels than are decoded."""
    if width * height > (most := _most_pixels.get()):
        raise DecodeError(
            f"it is {width} x {height}: more than {most} pixels",
            hint="raise data.max_pixels if the file is not a decompression bomb",
        )


_on_frame: ContextVar[Callable[[int], None] | None] = ContextVar("on_frame", default=None)


@contextlib.contextmanager
def watching(on_frame: Callable[[int], None]) -> Iterator[None]:
    """Call `on_frame` with the number of pixels before the first and after every frame that is decoded in the block.

    Whoever limits the time of decoding learns from it that decoding advances.
    """
    token = _on_frame.set(on_frame)
    try:
        yield
    finally:
        _on_frame.reset(token)


def report_frame(pixels: int) -> None:
    """Report to `watching` that a frame of so many pixels was decoded, or is going to be."""
    on_frame = _on_frame.get()
    if on_frame is not None:
        on_frame(pixels)


@contextlib.contextmanager
def decode_errors() -> Iterator[None]:
    """Turn FFmpeg's errors into `DecodeError`."""
    try:
        yield
    except av.FFmpegError as exc:
        raise DecodeError(f"FFmpeg cannot read it: {exc.strerror or exc}") from exc
    except MemoryError as exc:
        raise DecodeError("there is not enough memory to decode it") from exc


# The first bytes of files that are often found under the name of a medium, without white space and in lower case.
_BEGINNINGS = {
    b"<!doctype html": "an HTML page",
    b"<html": "an HTML page",
    b"<?xml": "an XML document",
    b"{": "a JSON document",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself",
    b"#extm3u": "a playlist",
    b"pk\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "a gzip file",
    b"%pdf": "a PDF document",
}
# HEIC and AVIF pictures begin as MP4 files do, and have no `moov`.
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_PICTURE_BRANDS = {*HEIF_BRANDS, b"avif", b"avis"}


def looks_like(data: bytes | memoryview) -> str:
    """Return what a file that is no medium looks like, as the end of a message: ` (it is an HTML page)`, or ""."""
    beginning = bytes(data[:1024])
    start = beginning.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for known, name in _BEGINNINGS.items():
        if start.startswith(known):
            return f" (it is {name})"
    if beginning and not beginning.strip(b"\0"):
        return " (it holds nothing but zeros)" if not bytes(data).strip(b"\0") else " (it begins with zeros)"
    is_picture = bytes(data[8:12]) in _PICTURE_BRANDS
    if data[4:8] == b"ftyp" and not is_picture and b"moov" not in bytes(data):
        return " (it is an MP4 file without its index `moov`: it was cut off, or its recording was not finished)"
    return ""


def create_decoder(name: str) -> VideoCodecContext:
    """Return a decoder that needs no container, configured by `configure_decoder`."""
    context = av.CodecContext.create(name, "r")
    assert isinstance(context, VideoCodecContext)
    configure_decoder(context)
    return context


def configure_decoder(context: VideoCodecContext) -> None:
    """Make a decoder use one thread and report every error."""
    # Frame threads would swallow the error of a truncated last packet.
    context.thread_type = "NONE"
    context.thread_count = 1
    # By default FFmpeg conceals most errors with guessed pixels. Its other detection flags (crccheck, bitstream,
    # buffer) found nothing more in 700 damaged files. FFmpeg compares its `max_pixels` with a size that includes the
    # padding of its buffers, so this value is only a coarse bound; `check_pixels` is exact.
    context.options = {
        "err_detect": "explode",
        "max_pixels": str(2 * _most_pixels.get() + 2**20),
        # Some containers state where chroma samples lie. The scaler would then compute other pixels than FFmpeg's
        # commands, which look at the stream alone, and than a decoder that has no container.
        "chroma_sample_location": "unspecified",
    }
