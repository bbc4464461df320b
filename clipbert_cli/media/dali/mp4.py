"""Write a few packets of a video as an MP4 file of its own, because DALI reads files.

The boxes are those of ISO/IEC 14496-12, and the codecs in them of ISO/IEC 14496-15 (H.264, HEVC) and of WebM's "VP
Codec ISO Media File Format Binding". Each function below returns one box.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import groupby

# FFmpeg's muxer can write such files, too, but takes its set-up from an open container. For the videos of
# benchmarks/decode.py that takes 4.5 ms per video more, on top of the 2.7 ms for choosing and writing packets.

_MATRIX = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)  # no rotation
# One frame lasts one unit. DALI uses only the order of the times.
_UNITS_PER_SECOND = 25

# Codec -> (sample entry, box of the decoder's set-up).
_ENTRIES = {
    "h264": (b"avc1", b"avcC"),
    "hevc": (b"hvc1", b"hvcC"),
    "vp8": (b"vp08", b"vpcC"),
    "vp9": (b"vp09", b"vpcC"),
}


def write_mp4(
    packets: Sequence[bytes], order: Sequence[int], *, codec: str, extradata: bytes, width: int, height: int
) -> bytes:
    """Return an MP4 file of one video stream.

    Args:
        packets: in decoding order; only the first is marked as a key frame. NAL units follow their lengths.
        order: the place in display order of each packet's frame, a permutation of 0..len(packets)-1.
        extradata: the codec's set-up as MP4 stores it (`avcC`, `hvcC`); VP8 and VP9 have none.
    """
    # Composition offsets must not be negative, so all frames are shown later by the largest lead of a packet.
    delay = max(0, *(number - place for number, place in enumerate(order)))
    offsets = (place + delay - number for number, place in enumerate(order))
    runs = [(sum(1 for _ in run), offset) for offset, run in groupby(offsets)]
    table = [
        _full_box(b"stsd", struct.pack(">I", 1) + _sample_entry(codec, extradata, width, height)),
        _full_box(b"stts", struct.pack(">3I", 1, len(packets), 1)),
        _full_box(b"ctts", struct.pack(">I", len(runs)) + b"".join(struct.pack(">2I", *run) for run in runs)),
        _full_box(b"stss", struct.pack(">2I", 1, 1)),
        _full_box(b"stsc", struct.pack(">4I", 1, 1, len(packets), 1)),
        _full_box(b"stsz", struct.pack(f">2I{len(packets)}I", 0, len(packets), *map(len, packets))),
    ]
    kind = _box(b"ftyp", b"isom" + struct.pack(">I", 512) + b"isomiso2mp41")
    # The movie box states where the packets begin, which depends on its own size: write it once to measure it.
    size = len(kind) + len(_movie(b"".join(table) + _chunk_offset(0), len(packets), width, height))
    movie = _movie(b"".join(table) + _chunk_offset(size + 8), len(packets), width, height)
    return kind + movie + _box(b"mdat", b"".join(packets))


def _box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + name + content


def _full_box(name: bytes, content: bytes, *, version: int = 0, flags: int = 0) -> bytes:
    return _box(name, struct.pack(">I", version << 24 | flags) + content)


def _chunk_offset(offset: int) -> bytes:
    return _full_box(b"stco", struct.pack(">2I", 1, offset))  # all packets are one chunk


def _movie(table: bytes, duration: int, width: int, height: int) -> bytes:
    header = _full_box(
        b"mvhd",
        struct.pack(">4I", 0, 0, _UNITS_PER_SECOND, duration)
        + struct.pack(">IH", 0x10000, 0x100)  # rate 1, volume 1
        + bytes(10)
        + _MATRIX
        + bytes(24)
        + struct.pack(">I", 2),  # the next track's number
    )
    track = _full_box(
        b"tkhd",
        struct.pack(">5I", 0, 0, 1, 0, duration) + bytes(16) + _MATRIX + struct.pack(">2I", width << 16, height << 16),
        flags=7,  # enabled, in the movie, in the preview
    )
    media = _full_box(b"mdhd", struct.pack(">4I2H", 0, 0, _UNITS_PER_SECOND, duration, 0x55C4, 0))  # no language
    handler = _full_box(b"hdlr", bytes(4) + b"vide" + bytes(13))
    same_file = _box(b"dinf", _full_box(b"dref", struct.pack(">I", 1) + _full_box(b"url ", b"", flags=1)))
    information = _box(b"minf", _full_box(b"vmhd", bytes(8), flags=1) + same_file + _box(b"stbl", table))
    return _box(b"moov", header + _box(b"trak", track + _box(b"mdia", media + handler + information)))


def _sample_entry(codec: str, extradata: bytes, width: int, height: int) -> bytes:
    name, setup_name = _ENTRIES[codec]
    if setup_name == b"vpcC":
        # Profile 0, level not stated, 8 bits, 4:2:0, colours not stated.
        setup = _full_box(setup_name, bytes((0, 10, 0x82, 2, 2, 2)) + bytes(2), version=1)
    else:
        setup = _box(setup_name, extradata)
    return _box(
        name,
        bytes(6)
        + struct.pack(">H", 1)
        + bytes(16)
        + struct.pack(">2H2I", width, height, 0x480000, 0x480000)  # 72 dots per inch
        + bytes(4)
        + struct.pack(">H", 1)
        + bytes(32)
        + struct.pack(">Hh", 24, -1)
        + setup,
    )
