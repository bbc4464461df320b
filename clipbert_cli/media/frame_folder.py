"""Make a video file in memory from a folder of image files, which are the frames of the video.

JPEG files become a video of Motion JPEG without being encoded again, others one of PNG, which loses nothing. Everything
else then treats the folder as a video: frame i is shown at i / rate seconds.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
from av.video.stream import VideoStream
from PIL import ExifTags, Image

from clipbert_cli.errors import DecodeError, UnreadableError
from clipbert_cli.foreign import read_bytes
from clipbert_cli.media.images import decode_image, open_image
from clipbert_cli.types import MEDIA_SUFFIXES

MAX_FRAME_BYTES = 2**30
"""The limit of one image of a folder."""

_COPIED = {"JPEG": ("mjpeg", {"RGB", "L"}), "PNG": ("png", {"RGB", "RGBA"})}
"""Format of Pillow -> FFmpeg's codec, and the modes whose pixels both decode alike."""

_PIXEL_FORMATS = {"mjpeg": "yuvj420p", "png": "rgb24"}

# An MP4 file states each time exactly: its unit of time is a multiple of the rate.
_CONTAINER = "mov"


def frame_files(folder: Path) -> list[Path]:
    """Return the image files of a folder in the order of their numbers: `frame2.jpg` comes before `frame10.jpg`."""
    files = (file for file in folder.iterdir() if file.suffix.lower() in MEDIA_SUFFIXES["image"])
    # Text and numbers take turns, so that parts of two names at one place can be compared.
    parts = {file: re.split(r"([0-9]+)", file.name) for file in files}
    return sorted(parts, key=lambda file: [int(part) if part.isdecimal() else part for part in parts[file]])


def folder_as_video(folder: Path, rate: Fraction) -> bytes:
    """Return the images of a folder as a video file of `rate` frames per second.

    Raises:
        DecodeError: there is no image, or one that cannot be read; the message does not name the folder.
    """
    frames: dict[str, bytes] = {}
    codecs: set[str | None] = set()
    for file in frame_files(folder):
        with _named(file.name):
            frames[file.name] = read_bytes(file, limit=MAX_FRAME_BYTES)
            codecs.add(_codec(frames[file.name]))
    if not frames:
        raise DecodeError("there are no images in the folder")
    codec = codecs.pop() if len(codecs) == 1 else None
    if codec is None:
        codec = "png"
        for name, data in frames.items():
            with _named(name):
                frames[name] = _as_png(data)
    return _mux(list(frames.values()), codec=codec, rate=rate)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Say in an error which frame it is about."""
    try:
        yield
    except OSError as exc:
        raise DecodeError(f"its frame {name} cannot be read: {exc.strerror}") from exc
    except (DecodeError, UnreadableError) as exc:
        raise DecodeError(f"its frame {name}: {exc}", hint=exc.hint) from exc


def _codec(data: bytes) -> str | None:
    """Return the codec that decodes an image as `decode_image` does; None if it has to be encoded again."""
    with open_image(data) as image:
        codec, modes = _COPIED.get(image.format or "", (None, set[str]()))
        # A turn that each picture states would be lost. Animated pictures are several frames.
        upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
        return codec if image.mode in modes and upright and getattr(image, "n_frames", 1) == 1 else None


def _as_png(data: bytes) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(decode_image(data, rotation="apply")).save(stream, "png", compress_level=1)
    return stream.getvalue()


def _mux(frames: Sequence[bytes], *, codec: str, rate: Fraction) -> bytes:
    with open_image(frames[0]) as image:
        size = image.size
    file = io.BytesIO()
    with av.open(file, "w", format=_CONTAINER) as container:
        stream = cast(VideoStream, container.add_stream(codec, rate=rate))
        stream.width, stream.height = size
        stream.pix_fmt = _PIXEL_FORMATS[codec]
        stream.time_base = 1 / rate
        for number, data in enumerate(frames):
            packet = av.Packet(data)
            packet.stream = stream
            packet.pts = packet.dts = number
            packet.duration = 1
            packet.time_base = 1 / rate
            packet.is_keyframe = True
            container.mux(packet)
    return file.getvalue()
