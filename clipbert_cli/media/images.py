"""Images: what a file holds, and its pixels as RGB."""

from __future__ import annotations

import contextlib
import functools
import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from clipbert_cli.errors import DecodeError
from clipbert_cli.media.ffmpeg import HEIF_BRANDS, check_pixels, looks_like, report_frame
from clipbert_cli.types import Rotation

# Pillow documents OSError and SyntaxError. On damaged files its parsers also raise all of these.
_PARSER_ERRORS = (ValueError, EOFError, LookupError, TypeError, ArithmeticError, RuntimeError, struct.error, zlib.error)
# Pillow's names of the formats behind the endings of images in `types.py`. Pillow reads more
# formats, and starts other programs for some of them, such as Ghostscript for PostScript.
_FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO", "PCX", "SGI", "DDS"),
    "TGA",
)
_PILLOW_ERRORS = (OSError, SyntaxError, *_PARSER_ERRORS)


@dataclass(frozen=True, slots=True)
class ProbedImage:
    """An image's size in pixels, and Pillow's name of its format.

    `frames` is more than 1 if it is animated; `orientation` is what EXIF data state, 1 for upright.
    """

    width: int
    height: int
    format: str
    frames: int
    orientation: int = 1


@contextlib.contextmanager
def open_image(data: bytes | memoryview) -> Iterator[Image.Image]:
    """Open an image that is held in memory, without decoding it; an animated one at its first frame.

    Raises:
        DecodeError: the file is empty, is not an image or is too large; errors of Pillow inside
            the `with` block also become this one.
    """
    if not data:
        raise DecodeError("the file is empty")
    try:
        with warnings.catch_warnings():
            # The size is checked below. Pillow's other warnings (odd EXIF, truncated metadata) do not concern pixels.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=_formats()) as image:
                check_pixels(image.width, image.height)
                report_frame(image.width * image.height)
                yield image
    except DecodeError:
        raise
    except UnidentifiedImageError as exc:
        if data[4:8] == b"ftyp" and bytes(data[8:12]) in HEIF_BRANDS:
            raise DecodeError(
                "it is a HEIC image, which needs pillow-heif", hint="pip install 'clipbert[heif]'"
            ) from exc
        raise DecodeError(f"it is not an image that the installed Pillow can read{looks_like(data)}") from exc
    except Image.DecompressionBombError as exc:
        raise DecodeError(f"it has too many pixels: {exc}") from exc
    except MemoryError as exc:
        raise DecodeError("there is not enough memory to decode it") from exc
    except _PILLOW_ERRORS as exc:
        raise DecodeError(f"Pillow cannot read it: {exc}") from exc


@functools.cache
def _formats() -> tuple[str, ...]:
    """Return the formats that are read and that this Pillow has: HEIC needs the extra `heif`."""
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    return tuple(name for name in (*_FORMATS, "HEIF") if name in Image.OPEN)


def jpeg_size(data: bytes | memoryview, *, rotation: Rotation = "ignore") -> tuple[int, int] | None:
    """Return (height, width) of an image that DALI may decode, read from its header alone.

    None unless every JPEG decoder gives the pixels of `decode_image`: the file must be a JPEG in grey or three channels
    that needs no rotation.

    Raises:
        DecodeError: see `open_image`.
    """
    with open_image(data) as image:
        rotated = rotation == "apply" and _orientation(image) != 1
        if image.format != "JPEG" or image.mode not in ("RGB", "L") or rotated:
            return None
        return image.height, image.width


def _orientation(image: Image.Image) -> int:
    """Return what EXIF data state, 1 to 8. Other values have no meaning, and decoding ignores them, too."""
    stated = image.getexif().get(ExifTags.Base.Orientation, 1)
    return int(stated) if stated in range(1, 9) else 1


def probe_image(data: bytes) -> ProbedImage:
    """Decode an image fully, as `decode_image` does, and return its size and format.

    Raises:
        DecodeError: as `decode_image`.
    """
    with open_image(data) as image:
        form = image.format or "unknown"
        orientation = _orientation(image)
        frames = int(getattr(image, "n_frames", 1))
        image.load()
        # The conversion that decoding ends with refuses pixels that cannot be used, such as floating point numbers.
        _rgb_image(image)
        return ProbedImage(image.width, image.height, form, frames, orientation)


def decode_image(data: bytes | memoryview, *, rotation: Rotation = "ignore") -> np.ndarray:
    """Return an image's pixels.

    Grey and palette images become RGB, transparent pixels lie on white, and 16-bit grey is scaled to 8 bits and
    rounded. Pillow converts CMYK and other colour spaces without colour profiles. An animated image gives its first
    frame.

    Args:
        rotation: `apply` turns the image upright, as its EXIF orientation says.

    Returns:
        (h, w, 3) uint8 RGB.

    Raises:
        DecodeError: the file is not an image, is damaged or too large, or its pixels are floating
            point numbers.
    """
    with open_image(data) as image:
        return np.array(_rgb_image(ImageOps.exif_transpose(image) if rotation == "apply" else image))


def _rgb_image(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F":
        raise DecodeError("its pixels are floating point numbers, whose value of white is unknown")
    # Modes I and I;16 are 16-bit grey. Pillow's own conversion would clip them at 255.
    if image.mode.startswith("I"):
        grey = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return Image.fromarray(((grey * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        return on_white(image.convert("RGBA"))
    return image.convert("RGB")


def on_white(image: Image.Image) -> Image.Image:
    """Return an RGBA image laid on white, as RGB."""
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")
