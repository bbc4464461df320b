"""The sequence parameter set (SPS) of H.264 and HEVC: the size of coded pictures, and the same set without cropping.

A stream codes pictures in multiples of its block size, and its SPS says which part of them is shown. DALI 2.4 looks up
NVDEC's decoders by the coded size but stores them under the shown size. If the two differ it never finds one, or takes
that of another video and reads colours from wrong rows. So a segment gets an SPS that shows the whole coded picture,
and the rows and columns that are not shown are cut off after decoding.

Sources: ITU-T H.264, 7.3.2.1.1, and H.265, 7.3.2.2 and 7.3.3; ISO/IEC 14496-15, 5.3.3.1 (avcC) and 8.3.3.1 (hvcC).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# Profiles of H.264 whose SPS states a chroma format and scaling lists.
_HIGH_PROFILES = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}
_HEVC_SPS = 33
_CHROMA_420 = 1
# Two zero bytes before a byte up to 3 would look like a start code; a 3 is put between them.
_TO_ESCAPE = re.compile(rb"\x00\x00(?=[\x00-\x03])")


class UnusualError(Exception):
    """The video has a form that is left to PyAV; the text says which."""


@dataclass(frozen=True, slots=True)
class CodedPicture:
    """The size of coded pictures and the part of them that is shown, in pixels.

    Args:
        coded, shown: (height, width).
        extradata: the stream's set-up with an SPS that shows the whole coded picture.
        offset: (top, left) of the shown part.
    """

    coded: tuple[int, int]
    shown: tuple[int, int]
    extradata: bytes
    offset: tuple[int, int] = (0, 0)


class _Bits:
    """The bits of a parameter set, read from the start."""

    def __init__(self, unit: bytes) -> None:
        payload = unit.replace(b"\0\0\3", b"\0\0")
        self.text = "".join(f"{byte:08b}" for byte in payload)
        self.place = 0

    def number(self, bits: int) -> int:
        """Read an unsigned number of so many bits."""
        if self.place + bits > len(self.text):
            raise UnusualError("its parameter sets end too early")
        self.place += bits
        return int(self.text[self.place - bits : self.place] or "0", 2)

    def golomb(self) -> int:
        """Read an Exp-Golomb code, `ue(v)`. A signed one, `se(v)`, has the same length."""
        zeros = 0
        while not self.number(1):
            zeros += 1
        return (1 << zeros) - 1 + self.number(zeros)


def coded_picture(codec: str, extradata: bytes) -> CodedPicture:
    """Return the coded picture that the only SPS of a stream's avcC or hvcC describes.

    Raises:
        UnusualError: the stream is not progressive 4:2:0, or has several sets or a form that is not known.
    """
    try:
        start, end = (_avcc_sps if codec == "h264" else _hvcc_sps)(extradata)
    except IndexError as exc:
        raise UnusualError("its parameter sets end too early") from exc
    bits = _Bits(extradata[start:end])
    coded = (_h264_size if codec == "h264" else _hevc_size)(bits)
    flag_at = bits.place
    left, right, top, bottom = [2 * bits.golomb() for _ in range(4)] if bits.number(1) else [0] * 4
    height, width = coded[0] - top - bottom, coded[1] - left - right
    if height < 1 or width < 1:
        raise UnusualError("its parameter sets crop the whole picture")
    # The last 1 ends the set, and zeros fill its last byte.
    text = bits.text[:flag_at] + "0" + bits.text[bits.place :].rstrip("0")
    text += "0" * (-len(text) % 8)
    unit = _TO_ESCAPE.sub(b"\x00\x00\x03", bytes(int(text[at : at + 8], 2) for at in range(0, len(text), 8)))
    uncropped = extradata[: start - 2] + len(unit).to_bytes(2, "big") + unit + extradata[end:]
    return CodedPicture(coded, (height, width), uncropped, (top, left))


def _avcc_sps(extradata: bytes) -> tuple[int, int]:
    """Return the place of the only SPS in an avcC; its length is in the two bytes before."""
    if len(extradata) < 8 or extradata[5] & 31 != 1:
        raise UnusualError("it has several parameter sets")
    return 8, 8 + int.from_bytes(extradata[6:8], "big")


def _hvcc_sps(extradata: bytes) -> tuple[int, int]:
    """Return the place of the only SPS in an hvcC; its length is in the two bytes before."""
    found, place = [], 23
    for _ in range(extradata[22] if len(extradata) > 22 else 0):
        kind, count = extradata[place] & 63, int.from_bytes(extradata[place + 1 : place + 3], "big")
        place += 3
        for _ in range(count):
            start, place = place + 2, place + 2 + int.from_bytes(extradata[place : place + 2], "big")
            if kind == _HEVC_SPS:
                found.append((start, place))
    if len(found) != 1 or place > len(extradata):
        raise UnusualError("it has several parameter sets")
    return found[0]


def _h264_size(bits: _Bits) -> tuple[int, int]:
    """Read up to the cropping flag, and return (height, width) of the coded pictures."""
    bits.number(8)
    profile = bits.number(8)
    bits.number(16)  # constraints, level
    bits.golomb()  # its number
    if profile in _HIGH_PROFILES:
        _check_chroma(bits.golomb())
        bits.golomb()  # bits of luma
        bits.golomb()  # bits of chroma
        bits.number(1)
        if bits.number(1):
            raise UnusualError("its parameter sets have scaling lists")
    bits.golomb()  # bits of frame_num
    order = bits.golomb()
    if order == 0:
        bits.golomb()
    elif order == 1:
        bits.number(1)
        bits.golomb()
        bits.golomb()
        for _ in range(bits.golomb()):
            bits.golomb()
    bits.golomb()  # reference frames
    bits.number(1)
    width, height = 16 * (bits.golomb() + 1), 16 * (bits.golomb() + 1)
    if not bits.number(1):
        raise UnusualError("it is interlaced")
    bits.number(1)
    return height, width


def _hevc_size(bits: _Bits) -> tuple[int, int]:
    """Read up to the conformance window's flag, and return (height, width) of the coded pictures."""
    bits.number(16 + 4)
    sub_layers = bits.number(3)
    bits.number(1 + 96)  # the general profile, tier and level
    present = [(bits.number(1), bits.number(1)) for _ in range(sub_layers)]
    if sub_layers:
        bits.number(2 * (8 - sub_layers))
    for has_profile, has_level in present:
        bits.number(88 * has_profile + 8 * has_level)
    bits.golomb()  # its number
    _check_chroma(bits.golomb())
    width, height = bits.golomb(), bits.golomb()
    return height, width


def _check_chroma(chroma_format: int) -> None:
    if chroma_format != _CHROMA_420:
        raise UnusualError("its colours are not 4:2:0")
