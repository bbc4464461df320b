"""What the first bytes of H.264, HEVC and VP9 packets say: is a picture an IDR, is it referred to, is it shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Picture:
    """`is_idr`: nothing after it refers to anything before it. `is_unreferenced`: no picture refers to it."""

    is_idr: bool
    is_unreferenced: bool


@dataclass(frozen=True, slots=True)
class NalFormat:
    """How NAL units lie in the packets of one stream: each after its length in `length_size` bytes, or (0) each after
    a start code."""

    codec: str
    length_size: int

    @classmethod
    def of(cls, codec: str, extradata: bytes) -> NalFormat | None:
        """None for codecs without NAL units (ISO/IEC 14496-15, 5.3.3.1 and 8.3.3.1: where the length's size stands).

        HEVC's first writers stated version 0, which FFmpeg reads too: it begins like no start code.
        """
        if codec not in ("h264", "hevc"):
            return None
        place = 4 if codec == "h264" else 21
        is_coded = extradata[:1] != b"\1" if codec == "h264" else extradata[:3] in (b"\0\0\0", b"\0\0\1")
        if len(extradata) <= place or is_coded:
            return cls(codec, 0)
        return cls(codec, (extradata[place] & 3) + 1)

    def picture(self, packet: bytes) -> Picture | None:
        """The picture whose slices the packet holds; None where it has none (ITU-T H.264 and H.265, tables 7-1).

        That an HEVC picture is not referred to is not looked for.
        """
        slices = [packet[start] for start, _ in self._units(packet) if self._is_slice(packet[start])]
        if not slices:
            return None
        if self.codec == "h264":
            return Picture(
                is_idr=all(head & 31 == 5 for head in slices), is_unreferenced=not any(head >> 5 & 3 for head in slices)
            )
        return Picture(is_idr=all(head >> 1 & 63 in (19, 20) for head in slices), is_unreferenced=False)

    def fields(self, packet: bytes) -> int:
        """Coded pictures of H.264 in the packet, 2 where its fields are coded each on its own: slices that begin at the
        first macroblock (ITU-T H.264, 7.3.3: `first_mb_in_slice` is 0, which is coded as a bit of 1)."""
        return sum(
            packet[start] & 31 in (1, 2, 5) and start + 1 < end and packet[start + 1] >> 7
            for start, end in self._units(packet)
        )

    def _is_slice(self, head: int) -> bool:
        return 1 <= head & 31 <= 5 if self.codec == "h264" else head >> 1 & 63 < 32

    def _units(self, packet: bytes) -> Iterator[tuple[int, int]]:
        """Where every NAL unit begins and ends."""
        if not self.length_size:
            place = packet.find(b"\0\0\1")
            while 0 <= place < len(packet) - 3:
                following = packet.find(b"\0\0\1", place + 3)
                yield place + 3, len(packet) if following < 0 else following
                place = following
            return
        place = 0
        while place + self.length_size < len(packet):
            start = place + self.length_size
            place = start + int.from_bytes(packet[place:start], "big")
            yield start, min(place, len(packet))


_BASELINE, _MAIN, _HIGH = 66, 77, 100


def coded_size(extradata: bytes) -> tuple[int, int] | None:
    """(height, width) by the first sequence parameter set of an `avcC` (ITU-T H.264, 7.3.2.1.1; ISO/IEC 14496-15,
    5.3.3.1); None for profiles other than Baseline, Main and High, and for what is rarely there: scaling lists."""
    size = int.from_bytes(extradata[6:8], "big")
    unit = extradata[9 : 8 + size].replace(b"\0\0\3", b"\0\0")  # without its first byte, and what keeps start codes out
    if not extradata[5] & 31 or len(unit) < 4 or unit[0] not in (_BASELINE, _MAIN, _HIGH):
        return None
    bits = _Bits(unit[3:])
    try:
        bits.golomb()  # which set it is
        if unit[0] == _HIGH:
            _chroma, _luma_depth, _chroma_depth = bits.golomb(), bits.golomb(), bits.golomb()
            _bypass, has_lists = bits.take(1), bits.take(1)
            if has_lists:
                return None
        bits.golomb()  # bits of frame numbers
        order = bits.golomb()
        if order == 0:
            bits.golomb()  # bits of the order
        elif order == 1:
            bits.take(1)
            for _ in range(2):
                bits.golomb()
            for _ in range(bits.golomb()):
                bits.golomb()
        _references, _gaps = bits.golomb(), bits.take(1)
        width, rows, frames_only = bits.golomb() + 1, bits.golomb() + 1, bits.take(1)
    except EOFError:
        return None
    return 16 * rows * (2 - frames_only), 16 * width


class _Bits:
    """Reads bits from the left."""

    def __init__(self, data: bytes) -> None:
        self._bits = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        """The next `count` bits.

        Raises:
            EOFError: there are not so many.
        """
        self._left -= count
        if self._left < 0:
            raise EOFError
        return self._bits >> self._left & (1 << count) - 1

    def golomb(self) -> int:
        """The next Exp-Golomb number (9.1): so many zeros, a one, and as many bits."""
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)


def is_one_picture(packet: bytes) -> bool:
    """Whether a packet of 8 bits holds one frame that is decoded and shown: neither several, hidden ones among them
    (VP9 bitstream, annex B: the index at the end begins and ends with the same byte), nor a frame shown again."""
    marker = packet[-1]
    index = 2 + ((marker >> 3 & 3) + 1) * ((marker & 7) + 1)
    is_several = marker & 0xE0 == 0xC0 and len(packet) >= index and packet[-index] == marker
    return not is_several and packet[0] & 0x0A == 0x02  # it is shown, and not one that was decoded before
