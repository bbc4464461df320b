"""Pictures: what a file holds, and its pixels as RGB."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from clipbert_cli.errors import DecodeError
from clipbert_cli.media.ffmpeg import MAX_PIXELS

# What Pillow's parsers let through on damaged files, besides the errors it documents.
_PILLOW_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    RuntimeError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True, slots=True)
class ProbedImage:
    """An image's size, and Pillow's names of its pixel mode and file format; `frames` > 1 where it is animated."""

    width: int
    height: int
    mode: str
    format: str
    frames: int


@contextlib.contextmanager
def open_image(data: bytes | memoryview, *, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
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
    except _PILLOW_ERRORS as exc:
        raise DecodeError(f"Pillow cannot read it: {exc}") from exc


def jpeg_size(
    data: bytes | memoryview, *, max_pixels: int = MAX_PIXELS, exif_rotation: bool = False
) -> tuple[int, int] | None:
    """(height, width) of a picture that any JPEG decoder shows as `decode_image` does, from its header alone: a grey or
    three-channel JPEG that needs no turning. None for others.

    Raises:
        DecodeError: as `open_image`.
    """
    with open_image(data, max_pixels=max_pixels) as image:
        turned = exif_rotation and image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        if image.format != "JPEG" or image.mode not in ("RGB", "L") or turned:
            return None
        return image.height, image.width


def probe_image(data: bytes) -> ProbedImage:
    """Size and mode of a picture; decodes it fully, so that a damaged one is found.

    Raises:
        DecodeError: not a picture, damaged, or too large.
    """
    with open_image(data) as image:
        frames = int(getattr(image, "n_frames", 1))
        image.load()
        return ProbedImage(image.width, image.height, image.mode, image.format or "unknown", frames)


def decode_image(data: bytes | memoryview, *, max_pixels: int = MAX_PIXELS, exif_rotation: bool = False) -> np.ndarray:
    """A picture's pixels.

    EXIF rotation is ignored, as in the original, unless `exif_rotation` is set. Grey and palette pictures become RGB;
    what is transparent lies on white; CMYK and other colour spaces are converted by Pillow without profiles; 16-bit
    grey keeps its high byte (rounded); of an animated picture the first frame is taken.

    Returns:
        (h, w, 3) uint8 RGB.

    Raises:
        DecodeError: not a picture, damaged, more than `max_pixels`, or pixels that are floating point numbers.
    """
    with open_image(data, max_pixels=max_pixels) as image:
        return np.array(_rgb_image(ImageOps.exif_transpose(image) if exif_rotation else image))


def _rgb_image(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F":
        raise DecodeError("its pixels are floating point numbers, and what is white is not known")
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip it at 255
        grey = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return Image.fromarray(((grey * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layered).convert("RGB")
    return image.convert("RGB")
