"""The abilities of the video decoder of an NVIDIA GPU (NVDEC), as its driver reports them."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

LIBRARY = "libnvcuvid.so.1"

# Numbers of `cudaVideoCodec` in the Video Codec SDK's header `cuviddec.h`, by FFmpeg's names.
_CODECS = {"h264": 4, "hevc": 8, "vp8": 9, "vp9": 10}
_CHROMA_420 = 1


@dataclass(frozen=True, slots=True)
class FrameLimits:
    """The sizes of coded pictures that a decoder accepts, in pixels."""

    min_width: int = 1
    min_height: int = 1
    max_width: int = 65_536
    max_height: int = 65_536
    max_macroblocks: int = 2**32

    def accept(self, width: int, height: int) -> bool:
        """Return whether coded pictures of this size are accepted."""
        fits = self.min_width <= width <= self.max_width and self.min_height <= height <= self.max_height
        return fits and width * height <= 256 * self.max_macroblocks


# The documentation of NVIDIA's Video Codec SDK states these for GPUs since 2016.
USUAL_LIMITS = {
    "h264": FrameLimits(48, 16, 4096, 4096),
    "hevc": FrameLimits(144, 144, 8192, 8192),
    "vp8": FrameLimits(48, 16, 4096, 4096),
    "vp9": FrameLimits(128, 128, 8192, 8192),
}
"""The limits of a GPU's video decoder in 8 bits and 4:2:0, where no driver can be asked."""


class _DecodeCaps(ctypes.Structure):
    """The structure `CUVIDDECODECAPS` of `cuviddec.h`; the driver fills it in from `is_supported` on."""

    _fields_ = (
        ("codec", ctypes.c_int),
        ("chroma_format", ctypes.c_int),
        ("bit_depth_minus_8", ctypes.c_uint),
        ("reserved1", ctypes.c_uint * 3),
        ("is_supported", ctypes.c_ubyte),
        ("num_decoders", ctypes.c_ubyte),
        ("output_formats", ctypes.c_ushort),
        ("max_width", ctypes.c_uint),
        ("max_height", ctypes.c_uint),
        ("max_macroblocks", ctypes.c_uint),
        ("min_width", ctypes.c_ushort),
        ("min_height", ctypes.c_ushort),
        ("has_histogram", ctypes.c_ubyte),
        ("counter_bits", ctypes.c_ubyte),
        ("max_histogram_bins", ctypes.c_ushort),
        ("reserved3", ctypes.c_uint * 10),
    )


def supported_codecs(device: torch.device) -> tuple[dict[str, FrameLimits], str]:
    """Return the codecs that the GPU's decoder takes in 8 bits and 4:2:0, and why there are none, if so.

    A GPU may have fewer decoders than its model has: an instance of a divided GPU (MIG) can be without any.
    """
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        return {}, f"the driver has no NVDEC, {LIBRARY}"
    import torch

    # The driver asks the current context, which torch makes with the first tensor.
    with torch.cuda.device(device):
        torch.empty(1, device=device)
        return query(library)


def query(library: ctypes.CDLL) -> tuple[dict[str, FrameLimits], str]:
    """Ask the library about every codec; a GPU's context must be current."""
    codecs: dict[str, FrameLimits] = {}
    problem = "the GPU reports no video decoder: a divided GPU (MIG) needs a profile with media engines"
    for name, number in _CODECS.items():
        caps = _DecodeCaps(codec=number, chroma_format=_CHROMA_420)
        status = library.cuvidGetDecoderCaps(ctypes.byref(caps))
        if status:
            problem = f"the GPU's video decoder cannot be asked what it supports: cuvidGetDecoderCaps gives {status}"
        elif caps.is_supported:
            codecs[name] = FrameLimits(
                caps.min_width, caps.min_height, caps.max_width, caps.max_height, caps.max_macroblocks
            )
    return codecs, "" if codecs else problem
