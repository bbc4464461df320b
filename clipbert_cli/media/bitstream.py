"""The first bytes of H.264, HEVC and VP9 packets: is a picture an IDR, does anything refer to it, is it shown?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Picture:
    """One coded picture.

    Args:
        is_idr: no picture after it refers to a picture before it.
        is_unreferenced: no other picture refers to it.
    """

    is_idr: bool
    is_unreferenced: bool


@dataclass(frozen=True, slots=True)
class NalFormat:
    """The way NAL units lie in the packets of one H.264 or HEVC stream.

    Args:
        length_size: bytes of the length before each unit; 0 if start codes separate the units.
    """

    codec: str
    length_size: int

    @classmethod
    def of(cls, codec: str, extradata: bytes) -> NalFormat | None:
        """Return the format that a stream's extradata states; None for codecs without NAL units.

        Source: ISO/IEC 14496-15, 5.3.3.1 (avcC) and 8.3.3.1 (hvcC).
        """
        if codec not in ("h264", "hevc"):
            return None
        place = 4 if codec == "h264" else 21  # The byte whose two lowest bits are the length's size minus one.
        # The first writers of HEVC stated version 0 instead of 1, so only a start code shows that there is no hvcC.
        is_start_coded = extradata[:1] != b"\1" if codec == "h264" else extradata[:3] in (b"\0\0\0", b"\0\0\1")
        if len(extradata) <= place or is_start_coded:
            return cls(codec, 0)
        return cls(codec, (extradata[place] & 3) + 1)

    def picture(self, packet: bytes) -> Picture | None:
        """Return the picture whose slices a packet holds; None if it holds none.

        HEVC pictures are never reported as unreferenced. Source: ITU-T H.264 and H.265, tables 7-1.
        """
        slices = [packet[start] for start, _ in self._units(packet) if self._is_slice(packet[start])]
        if not slices:
            return None
        if self.codec == "h264":
            return Picture(
                is_idr=all(head & 31 == 5 for head in slices), is_unreferenced=not any(head >> 5 & 3 for head in slices)
            )
        return Picture(is_idr=all(head >> 1 & 63 in (19, 20) for head in slices), is_unreferenced=False)

    def parameter_sets(self, packet: bytes) -> list[bytes]:
        """Return the units of a packet that set up the decoder: SPS and PPS, and VPS in HEVC (tables 7-1)."""
        kinds, shift = ((7, 8), 0) if self.codec == "h264" else ((32, 33, 34), 1)
        units = (packet[start:end].rstrip(b"\0") for start, end in self._units(packet))
        return [unit for unit in units if unit and (unit[0] >> shift) & (31 if not shift else 63) in kinds]

    def fields(self, packet: bytes) -> int:
        """Return the number of coded H.264 pictures in a packet: 2 if its two fields are coded separately.

        Counts slices that begin at the first macroblock: `first_mb_in_slice` is 0, coded as a single 1 bit
        (ITU-T H.264, 7.3.3).
        """
        return sum(
            packet[start] & 31 in (1, 2, 5) and start + 1 < end and packet[start + 1] >> 7
            for start, end in self._units(packet)
        )

    def _is_slice(self, head: int) -> bool:
        return 1 <= head & 31 <= 5 if self.codec == "h264" else head >> 1 & 63 < 32

    def _units(self, packet: bytes) -> Iterator[tuple[int, int]]:
        """Yield (first byte, end) of every NAL unit."""
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


def is_one_shown_frame(packet: bytes) -> bool:
    """Return whether a VP9 packet of 8 bits codes exactly one frame, and this frame is shown.

    False for superframes, which hold several frames and end with an index whose first and last byte are the same
    (VP9 bitstream, annex B), for hidden frames, and for packets that show an earlier frame again (6.2).
    """
    marker = packet[-1]
    index_size = 2 + ((marker >> 3 & 3) + 1) * ((marker & 7) + 1)
    is_superframe = marker & 0xE0 == 0xC0 and len(packet) >= index_size and packet[-index_size] == marker
    # Bit 3 is show_existing_frame, bit 1 is show_frame.
    return not is_superframe and packet[0] & 0x0A == 0x02
