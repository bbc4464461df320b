"""Which VP8 packets are as an encoder wrote them. VP8 has no checksums, and decoders notice damage only where they read
beyond the end of a packet; so its entropy code is read here, and has to end where the packet does.

A packet is a frame (RFC 6386, whose section numbers stand in this folder): a tag, a first partition of settings and of
the modes of all macroblocks, and one or more of coefficients, in which the rows of macroblocks take turns:

    tag | first partition: head, modes, vectors | sizes | rows 0, 2, 4 ... | rows 1, 3, 5 ...
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from clipbert_cli.media.vp8.entropy import TOLD, Partition, coefficient_nodes
from clipbert_cli.media.vp8.head import Head, HeadReader
from clipbert_cli.media.vp8.macroblocks import read_flags

_KEY_CODE = b"\x9d\x01\x2a"
_MACROBLOCKS = 300_000  # that are read at most, and one more for every byte; a macroblock takes 7 us, a byte 8 us


def verdicts(packets: Iterable[bytes]) -> Iterator[bool | None]:
    """Whether each packet is as an encoder wrote it; None where that is not judged.

    Not judged is what stands before the first key frame. Ends where the frames change their size, and early in long
    videos in which next to nothing happens, of which reading every macroblock would take many times as long as
    decoding.
    """
    reader = _FrameReader()
    for packet in packets:
        verdict = reader.is_whole(packet)
        if reader.is_over:
            return
        yield verdict


class _FrameReader:
    """Reads the frames of a stream, one after the other. `is_over` where they are of another size, or too much to
    read."""

    def __init__(self) -> None:
        self.is_over = False
        self._version = 0
        self._size = (0, 0)  # rows and columns of macroblocks; no key frame has come yet
        self._heads = HeadReader()
        self._left = _MACROBLOCKS

    def is_whole(self, packet: bytes) -> bool | None:
        """Whether the next packet is as an encoder wrote it; None where that is not judged."""
        tag = int.from_bytes(packet[:3], "little")  # 9.1
        is_key, version, size = not tag & 1, tag >> 1 & 7, tag >> 5
        if not is_key and not any(self._size):
            return None
        start = 10 if is_key else 3
        if start + size > len(packet) or (is_key and packet[3:6] != _KEY_CODE):
            return False
        if is_key:
            width, height = (int.from_bytes(packet[place : place + 2], "little") & 0x3FFF for place in (6, 8))
            frame_size = (height + 15) // 16, (width + 15) // 16
            if not all(frame_size):
                return False
            self.is_over = any(self._size) and frame_size != self._size
            self._size, self._version = frame_size, version
        self._left += len(packet) - self._size[0] * self._size[1]
        self.is_over = self.is_over or self._left < 0
        if self.is_over:
            return None
        if version != self._version:
            return False
        modes = Partition(packet[start : start + size])
        head = self._heads.read(modes, is_key=is_key)
        coded = _partitions(packet[start + size :], head.partitions)
        return coded is not None and self._ends_well(head, modes, coded)

    def _ends_well(self, head: Head, modes: Partition, coded: list[Partition]) -> bool:
        """Whether what is written of the macroblocks ends where their partitions do."""
        rows, columns = self._size
        nodes = coefficient_nodes(head.probabilities.coefficients)
        above = [0] * (TOLD * columns)
        for row, flags in enumerate(read_flags(modes, head, rows, columns)):
            partition = coded[row % len(coded)]
            partition.coefficients(flags, above, nodes)
            if modes.is_overrun or partition.is_overrun:
                return False
        return all(partition.ends_here() for partition in (modes, *coded))


def _partitions(data: bytes, count: int) -> list[Partition] | None:
    """The partitions of coefficients, after the sizes of all but the last (9.5); None where they are longer than the
    packet."""
    place = 3 * (count - 1)
    ends = [place]
    for number in range(count - 1):
        ends.append(ends[-1] + int.from_bytes(data[3 * number : 3 * number + 3], "little"))
    ends.append(len(data))
    if ends != sorted(ends):
        return None
    return [Partition(data[start:end]) for start, end in itertools.pairwise(ends)]
