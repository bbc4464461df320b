"""What the packets of H.264, HEVC and older MPEG say: is a picture an IDR, is it referred to, is it damaged."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_START_CODED = {"mpeg1video", "mpeg2video", "mpeg4"}
# Before a start code any number may stand. A run is looked at once, from its beginning: writers of a constant rate fill
# their packets with zeros, and a run that is tried from each of them takes the square of its length.
_ZEROS = re.compile(rb"(?<!\0)\0\0\0++[^\1]")

_IN_NO_UNIT = re.compile(rb"\0\0[\0-\2]")


def has_lost_bytes(codec: str, packet: bytes) -> bool:
    """Whether an MPEG packet holds more zeros in a row than its codes can make, not at its end and not before a start
    code (ISO/IEC 13818-2 and 14496-2: 23 zero bits begin a start code, and stand nowhere else)."""
    return codec in _START_CODED and _ZEROS.search(packet) is not None


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

    def is_damaged(self, packet: bytes) -> bool:
        """Whether a slice holds bytes that no encoder writes: 00 00 00, 00 00 01 and 00 00 02 stand in no NAL unit, for
        03 is put between them (ITU-T H.264 and H.265, 7.4.1 and 7.4.2). Zeros that follow a unit do no harm.

        Decoders read on over a block of zeros, and may find no error in the picture that it gives.
        """
        for start, end in self._units(packet):
            if self._is_slice(packet[start]) and _IN_NO_UNIT.search(packet[start:end].rstrip(b"\0")):
                return True
        return False

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
