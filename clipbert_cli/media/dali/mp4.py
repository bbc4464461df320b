"""A few packets of a video as an MP4 file of their own, for decoders that read files.

Boxes are those of ISO/IEC 14496-12; codecs in them of 14496-15 (H.264, HEVC) and of the VP codec mapping of WebM.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import groupby

_MATRIX = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
_UNITS_PER_SECOND = 25  # one frame, one unit: nobody reads the times, only their order

# Codec -> (name of the sample entry, name of the box that holds its set-up).
_ENTRIES = {
    "h264": (b"avc1", b"avcC"),
    "hevc": (b"hvc1", b"hvcC"),
    "vp8": (b"vp08", b"vpcC"),
    "vp9": (b"vp09", b"vpcC"),
}

CODECS = frozenset(_ENTRIES)
"""What can be written, by FFmpeg's names. H.264 and HEVC with NAL units after their lengths, not after start codes."""


def write_mp4(
    packets: Sequence[bytes], order: Sequence[int], *, codec: str, extradata: bytes, width: int, height: int
) -> bytes:
    """An MP4 file of one video stream.

    Args:
        packets: in decoding order; the first is the only key frame that the file names.
        order: the place of each packet's frame in the order they are shown; every place once.
        extradata: the codec's, as MP4 keeps it (`avcC`, `hvcC`); VP8 and VP9 have none.
    """
    delay = max(0, *(number - place for number, place in enumerate(order)))
    offsets = [place + delay - number for number, place in enumerate(order)]
    table = [
        _full(b"stsd", struct.pack(">I", 1) + _sample_entry(codec, extradata, width, height)),
        _full(b"stts", struct.pack(">3I", 1, len(packets), 1)),
        _full(b"ctts", _runs(offsets)),
        _full(b"stss", struct.pack(">2I", 1, 1)),
        _full(b"stsc", struct.pack(">4I", 1, 1, len(packets), 1)),
        _full(b"stsz", struct.pack(f">2I{len(packets)}I", 0, len(packets), *map(len, packets))),
    ]
    kind = _box(b"ftyp", b"isom" + struct.pack(">I", 512) + b"isomiso2mp41")
    size = len(kind) + len(_movie(b"".join(table) + _chunk(0), len(packets), width, height))
    movie = _movie(b"".join(table) + _chunk(size + 8), len(packets), width, height)
    return kind + movie + _box(b"mdat", b"".join(packets))


def _box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + name + content


def _full(name: bytes, content: bytes, *, version: int = 0, flags: int = 0) -> bytes:
    return _box(name, struct.pack(">I", version << 24 | flags) + content)


def _chunk(offset: int) -> bytes:
    """Where the packets are: all in one chunk."""
    return _full(b"stco", struct.pack(">2I", 1, offset))


def _runs(values: Sequence[int]) -> bytes:
    runs = [(sum(1 for _ in run), value) for value, run in groupby(values)]
    return struct.pack(">I", len(runs)) + b"".join(struct.pack(">2I", *run) for run in runs)


def _movie(table: bytes, duration: int, width: int, height: int) -> bytes:
    header = _full(
        b"mvhd",
        struct.pack(">4I", 0, 0, _UNITS_PER_SECOND, duration)
        + struct.pack(">IH", 0x10000, 0x100)  # rate 1, volume 1
        + bytes(10)
        + _MATRIX
        + bytes(24)
        + struct.pack(">I", 2),  # the next track's number
    )
    track = _full(
        b"tkhd",
        struct.pack(">5I", 0, 0, 1, 0, duration) + bytes(16) + _MATRIX + struct.pack(">2I", width << 16, height << 16),
        flags=7,  # enabled, in the movie, in the preview
    )
    media = _full(b"mdhd", struct.pack(">4I2H", 0, 0, _UNITS_PER_SECOND, duration, 0x55C4, 0))  # no language
    handler = _full(b"hdlr", bytes(4) + b"vide" + bytes(13))
    here = _box(b"dinf", _full(b"dref", struct.pack(">I", 1) + _full(b"url ", b"", flags=1)))
    information = _box(b"minf", _full(b"vmhd", bytes(8), flags=1) + here + _box(b"stbl", table))
    return _box(b"moov", header + _box(b"trak", track + _box(b"mdia", media + handler + information)))


def _sample_entry(codec: str, extradata: bytes, width: int, height: int) -> bytes:
    name, configuration = _ENTRIES[codec]
    if configuration == b"vpcC":  # profile 0, level not stated, 8 bits, 4:2:0, colours not stated
        setup = _full(configuration, bytes((0, 10, 0x82, 2, 2, 2)) + bytes(2), version=1)
    else:
        setup = _box(configuration, extradata)
    return _box(
        name,
        bytes(6)
        + struct.pack(">H", 1)
        + bytes(16)
        + struct.pack(">2H2I", width, height, 0x480000, 0x480000)  # 72 dots an inch
        + bytes(4)
        + struct.pack(">H", 1)
        + bytes(32)
        + struct.pack(">Hh", 24, -1)
        + setup,
    )
