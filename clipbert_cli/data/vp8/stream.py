"""Which VP8 packets are as an encoder wrote them. VP8 has no checksums, and decoders notice damage only where they read
beyond the end of a packet; so its entropy code is read here, and has to end where the packet does.

A packet is a frame (RFC 6386, whose section numbers stand in this folder): a tag, a first partition of settings and of
the modes of all macroblocks, and one or more of coefficients, in which the rows of macroblocks take turns:

    tag | first partition: head, modes, vectors | sizes | rows 0, 2, 4 ... | rows 1, 3, 5 ...
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from clipbert_cli.data.vp8.entropy import TOLD, Partition, coefficient_nodes
from clipbert_cli.data.vp8.head import Head, HeadReader
from clipbert_cli.data.vp8.macroblocks import read_flags
from clipbert_cli.errors import DecodeError

_KEY_CODE = b"\x9d\x01\x2a"


def first_damaged(packets: Iterable[bytes]) -> int | None:
    """The number of the first packet that is not as it was written; None where all are.

    Also None where none is: then they are of an encoder that ends its packets in a way of its own. Unless the container
    turns out to be damaged too, which ends `packets` with a `DecodeError`.
    """
    reader = _FrameReader()
    first: dict[bool, int] = {}
    try:
        for number, packet in enumerate(packets):
            is_whole = reader.is_whole(packet)
            if is_whole is not None:
                first.setdefault(is_whole, number)
            if len(first) == 2:
                return first[False]
    except DecodeError:
        return first.get(False)
    return None


class _FrameReader:
    """Reads the frames of a stream, one after the other."""

    def __init__(self) -> None:
        self._version: int | None = None
        self._size = (0, 0)  # rows and columns of macroblocks
        self._heads = HeadReader()

    def is_whole(self, packet: bytes) -> bool | None:
        """Whether the next packet is as an encoder wrote it; None of what stands before the first key frame."""
        tag = int.from_bytes(packet[:3], "little")  # 9.1
        is_key, version, size = not tag & 1, tag >> 1 & 7, tag >> 5
        if not is_key and self._version is None:
            return None
        start = 10 if is_key else 3
        if self._version is None:
            self._version = version
        if version != self._version or start + size > len(packet) or (is_key and packet[3:6] != _KEY_CODE):
            return False
        if is_key:
            width, height = (int.from_bytes(packet[place : place + 2], "little") & 0x3FFF for place in (6, 8))
            self._size = (height + 15) // 16, (width + 15) // 16
        if not self._size[0] * self._size[1]:
            return False
        first = Partition(packet[start : start + size])
        head = self._heads.read(first, is_key=is_key)
        coded = _partitions(packet[start + size :], head.partitions)
        return coded is not None and self._ends_well(first, coded, head)

    def _ends_well(self, first: Partition, coded: list[Partition], head: Head) -> bool:
        """Whether what is written of the macroblocks ends where their partitions do."""
        rows, columns = self._size
        nodes = coefficient_nodes(head.probabilities.coefficients)
        above = [0] * (TOLD * columns)
        for row, flags in enumerate(read_flags(first, head, rows, columns)):
            partition = coded[row % len(coded)]
            partition.coefficients(flags, above, nodes)
            if first.is_overrun or partition.is_overrun:
                return False
        return all(partition.is_used_up for partition in (first, *coded))


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
