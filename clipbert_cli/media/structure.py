"""Where the structure of a video file is damaged. FFmpeg looks for the next readable place in silence, and frames go
missing.

A Matroska or WebM file is a tree of elements (RFC 8794, EBML; RFC 9559, Matroska): a name, the content's size, the
content. Those that hold others must be filled by them, without a gap:

    EBML | Segment [ SeekHead | Info | Tracks | Cluster [ Timestamp | SimpleBlock | BlockGroup [ Block ... ] ... ] ... ]

An FLV file is a chain of tags, after each of which its size stands once more (Adobe Flash Video File Format 10.1,
annex E): header | 0 | tag | size | tag | size ...

A GIF file is a chain of blocks (GIF89a, 17 to 27): header, colours | extension | picture, colours, data | trailer.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

_EBML, _SEGMENT, _CLUSTER, _BLOCK_GROUP = 0x1A45DFA3, 0x18538067, 0x1F43B675, 0xA0
_CRC, _VOID = 0xBF, 0xEC

# SeekHead, Info, Tracks, Cues, Attachments, Chapters, Tags.
_IN_SEGMENT = {0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367}
# Timestamp, SilentTracks, Position, PrevSize, SimpleBlock, EncryptedBlock.
_IN_CLUSTER = {0xE7, 0x5854, 0xA7, 0xAB, 0xA3, 0xAF}
# Block, BlockVirtual, BlockAdditions, BlockDuration, ReferencePriority, ReferenceBlock, ReferenceVirtual, CodecState,
# DiscardPadding, Slices, ReferenceFrame.
_IN_BLOCK_GROUP = {0xA1, 0xA2, 0x75A1, 0x9B, 0xFA, 0xFB, 0xFD, 0xA4, 0x75A2, 0x8E, 0xC8}

_CHILDREN = {
    _SEGMENT: _IN_SEGMENT | {_CLUSTER, _CRC, _VOID},
    _CLUSTER: _IN_CLUSTER | {_BLOCK_GROUP, _CRC, _VOID},
    _BLOCK_GROUP: _IN_BLOCK_GROUP | {_CRC, _VOID},
}

_TAG_HEAD = 11
_TAG_KINDS = {8, 9, 18}  # sound, pictures, data; bits above are flags

_EXTENSION, _PICTURE, _TRAILER = 0x21, 0x2C, 0x3B


class _DamagedError(Exception):
    """At the place that is its argument."""


class _Element(NamedTuple):
    """`end` is None where the size is not stated, as in a stream that was written live."""

    name: int
    start: int
    end: int | None


def _check(data: bytes, parent: _Element) -> int:
    """Look through an element's children; returns where they end."""
    place = parent.start
    stop = len(data) if parent.end is None else min(parent.end, len(data))
    while place < stop and (child := _element(data, place)) is not None:
        if parent.end is None and parent.name == _CLUSTER and child.name in _CHILDREN[_SEGMENT] - {_CRC, _VOID}:
            return place
        if child.name not in _CHILDREN[parent.name] or (child.end is None and child.name != _CLUSTER):
            raise _DamagedError(place)
        if child.end is not None and parent.end is not None and child.end > parent.end:
            raise _DamagedError(place)
        if child.name == _CRC and parent.end == stop and not _is_right(data, child, stop):
            raise _DamagedError(parent.start)
        end = _check(data, child) if child.name in _CHILDREN else child.end
        assert end is not None
        place = end if child.end is None else child.end
    return place


def _is_right(data: bytes, checksum: _Element, stop: int) -> bool:
    """Whether a CRC-32 is that of all that follows it in its parent."""
    stated = int.from_bytes(data[checksum.start : checksum.end], "little")
    return stated == zlib.crc32(memoryview(data)[checksum.end : stop])


def _element(data: bytes, place: int) -> _Element | None:
    """The element that begins here; None where the file ends before its content does."""
    if place >= len(data):
        return None
    name_length = 9 - data[place].bit_length()
    if name_length > 4:
        raise _DamagedError(place)
    size_place = place + name_length
    if size_place >= len(data):
        return None
    size_length = 9 - data[size_place].bit_length()
    if size_length > 8:
        raise _DamagedError(place)
    start = size_place + size_length
    if start > len(data):
        return None
    unknown = (1 << 7 * size_length) - 1
    size = int.from_bytes(data[size_place:start], "big") & unknown
    return _Element(int.from_bytes(data[place:size_place], "big"), start, None if size == unknown else start + size)


def _break_in_matroska(data: bytes) -> int | None:
    """Where an element does not fit into the one that holds it, or is of a kind that does not belong there, or its
    checksum is wrong. What follows the segment is not looked at."""
    place = 0
    try:
        while (element := _element(data, place)) is not None:
            if element.name == _SEGMENT:
                _check(data, element)
                return None
            if element.name not in (_EBML, _VOID) or element.end is None:
                return place
            place = element.end
    except _DamagedError as exc:
        return int(exc.args[0])
    return None


def _break_in_flv(data: bytes) -> int | None:
    """Where a tag's size is not the one that stands after it, or its kind is unknown. Not looked for in files whose
    writer states other sizes."""
    start = place = int.from_bytes(data[5:9], "big") + 4
    while place + _TAG_HEAD <= len(data):
        end = place + _TAG_HEAD + int.from_bytes(data[place + 1 : place + 4], "big")
        if end + 4 > len(data):
            return None
        if data[place] & 31 not in _TAG_KINDS or int.from_bytes(data[end : end + 4], "big") != end - place:
            return None if place == start else place
        place = end + 4
    return None


def _break_in_gif(data: bytes) -> int | None:
    """Where something else than a picture, an extension or the trailer begins. Zeros between them do no harm."""
    place = 13 + colours_length(data, 10)
    while place < len(data):
        kind, start = data[place], place
        if kind == _TRAILER:
            return None
        if kind == _EXTENSION:
            place = end_of_blocks(data, place + 2)
        elif kind == _PICTURE:
            place = end_of_blocks(data, place + 11 + colours_length(data, place + 9))
        elif kind == 0:
            place += 1
        else:
            return start
    return None


def colours_length(data: bytes, place: int) -> int:
    """Bytes of the table of colours that the flags at this place announce."""
    flags = data[place] if place < len(data) else 0
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def end_of_blocks(data: bytes, place: int) -> int:
    """Where a chain of pieces, each after its length in a byte, ends with an empty one."""
    while place < len(data) and data[place]:
        place += 1 + data[place]
    return place + 1


_BREAKS = {"matroska,webm": _break_in_matroska, "flv": _break_in_flv, "gif": _break_in_gif}


def first_damage(data: bytes, container: str) -> int | None:
    """The place in bytes from which on a file cannot be trusted; None where its structure is whole, or of a container
    (by FFmpeg's name) that is not looked at. A file that is cut off is whole up to its end.

    Zeros before the place belong to it: a block that was lost may begin inside a frame.
    """
    place = _BREAKS[container](data) if container in _BREAKS else None
    return None if place is None else len(data[: place + 1].rstrip(b"\0"))
