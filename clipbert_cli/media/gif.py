"""Which pictures of a GIF are as they were written. GIF has no checksums, and FFmpeg fills a picture with whatever its
codes give; so their number of pixels is counted, which a damaged code changes.

A packet is what FFmpeg makes of a picture: extensions, a descriptor, colours, and codes by LZW (GIF89a, 20 and 22, and
appendix F), in blocks of at most 255 bytes. The first one begins with the file's head.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from clipbert_cli.media.structure import colours_length, end_of_blocks

_EXTENSION, _PICTURE = 0x21, 0x2C
_LARGEST = 4096  # codes have at most 12 bits


def verdicts(packets: Iterable[bytes]) -> Iterator[bool]:
    """Whether each packet is as an encoder wrote it."""
    return map(_is_whole, packets)


def _is_whole(packet: bytes) -> bool:
    """Whether a picture's codes give as many pixels as it has."""
    place = 13 + colours_length(packet, 10) if packet.startswith(b"GIF8") else 0  # the file's head
    while packet[place : place + 1] == bytes([_EXTENSION]):
        place = end_of_blocks(packet, place + 2)
    if packet[place : place + 1] != bytes([_PICTURE]) or len(packet) < place + 10:
        return False
    width, height = (int.from_bytes(packet[start : start + 2], "little") for start in (place + 5, place + 7))
    place += 10 + colours_length(packet, place + 9)
    codes = b"".join(_blocks(packet, place + 1))
    return place < len(packet) and _pixels(codes, packet[place]) == width * height


def _blocks(data: bytes, place: int) -> list[bytes]:
    """The blocks from here to the empty one, each after its length in a byte."""
    blocks = []
    while place < len(data) and data[place]:
        blocks.append(data[place + 1 : place + 1 + data[place]])
        place += 1 + data[place]
    return blocks


def _pixels(codes: bytes, bits: int) -> int | None:
    """How many pixels the codes give up to the one that ends them; None where one is unknown.

    Args:
        bits: of a colour.
    """
    if not 1 <= bits <= 8:
        return None
    clear = 1 << bits
    end = clear + 1
    lengths = [1] * clear + [0, 0]  # of what each code stands for
    size, limit = bits + 1, 2 * clear
    before = pixels = value = held = 0
    for byte in codes:
        value |= byte << held
        held += 8
        while held >= size:
            code = value & limit - 1
            value >>= size
            held -= size
            if code == clear:
                del lengths[end + 1 :]
                size, limit, before = bits + 1, 2 * clear, 0
                continue
            if code == end:
                return pixels
            if before and len(lengths) < _LARGEST:
                lengths.append(before + 1)
                if len(lengths) == limit < _LARGEST:
                    size, limit = size + 1, 2 * limit
            if code >= len(lengths):
                return None
            before = lengths[code]
            pixels += before
    return pixels
