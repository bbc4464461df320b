"""Making packet tables: decode a whole video once through its packets, and see whether that works.

A table is made only where decoding through it showed every frame, in order and without an error; an entry that is not
one by the codec's own rules (H.264 without IDR: an open group of pictures, an intra refresh) counts only if decoding
from it gave the very pixels. Everything else is decoded from its start, as `video.py` does it.
"""

from __future__ import annotations

import dataclasses
import zlib
from bisect import bisect_right
from dataclasses import dataclass
from typing import Final

import numpy as np
from av.video.frame import VideoFrame

from clipbert_cli.errors import DecodeError
from clipbert_cli.media.bitstream import NalFormat
from clipbert_cli.media.container import Video, frame_step, next_time
from clipbert_cli.media.ffmpeg import MAX_PIXELS
from clipbert_cli.media.packets import PacketDecoder, PacketTable, Run

# Codecs whose decoders need nothing of a container but extradata and tag.
_CODECS = {"h264", "hevc", "mpeg4", "vp8", "vp9", "av1", "libdav1d", "mjpeg"}
_REORDERED = {"h264", "hevc"}  # how far these reorder frames may be guessed wrongly, so their order is checked by times
_SIDE_DATA: Final = ("new_extradata", "param_change", "palette")  # what a bare packet would lose
_SLACK = 64  # bytes between where a demuxer says that a packet starts and where its payload does


@dataclass(frozen=True, slots=True)
class Scan:
    """What decoding a whole video showed: size, presentation times and key frames; and a table, where it has one."""

    width: int
    height: int
    times: tuple[int, ...]
    keyframes: tuple[int, ...]
    table: PacketTable | None


def scan_packets(video: Video, data: bytes, *, max_pixels: int = MAX_PIXELS) -> Scan | None:
    """Decode all of a video through its packets. None where anything is unusual: then the plain way decides.

    `video` is just opened; its packets are used up.
    """
    try:
        found = _read_packets(video, data)
        return None if found is None else _decode_all(video, data, *found, max_pixels=max_pixels)
    except DecodeError:
        return None


@dataclass(frozen=True, slots=True)
class _Stated:
    """What the container says of each packet."""

    times: list[int | None]
    discarded: list[bool]
    certain: np.ndarray  # (P,) bool, entries by the codec's rules, once their frames are seen to be key frames


def _read_packets(video: Video, data: bytes) -> tuple[PacketTable, _Stated] | None:
    """The table as the container and the packets' first bytes tell it; `shows` is still unknown."""
    context = video.stream.codec_context
    if context.name not in _CODECS:
        return None
    extradata = context.extradata or b""
    nal_format = NalFormat.of(context.name, extradata)
    offsets, keys, certain, skippable, checksums = [], [], [], [], []
    sizes: list[int] = []
    times: list[int | None] = []
    discarded = []
    for packet in video.packets():
        payload = bytes(packet)
        offset = _place(payload, data, packet.pos)
        if offset < 0 or any(side.data_type in _SIDE_DATA for side in packet.iter_sidedata()):
            return None
        picture = nal_format.picture(payload) if nal_format else None
        offsets.append(offset)
        sizes.append(len(payload))
        checksums.append(zlib.crc32(payload))
        keys.append(packet.is_keyframe)
        # A VP8 key frame may keep the segments of the frame before; of a damaged file they differ.
        by_rule = picture.is_idr if picture else nal_format is None and context.name != "vp8"
        certain.append(packet.is_keyframe and by_rule)
        skippable.append(picture is not None and picture.is_unreferenced)
        times.append(packet.pts)
        discarded.append(packet.is_discard)
    if not sizes or not keys[0]:
        return None
    try:
        tag = context.codec_tag
    except UnicodeDecodeError:
        return None
    table = PacketTable(
        codec=context.name,
        tag=tag if tag.strip("\0") else "",
        extradata=extradata,
        bits=context.bits_per_coded_sample,
        data_size=len(data),
        offsets=np.array(offsets, dtype=np.int64),
        sizes=np.array(sizes, dtype=np.int64),
        shows=np.full(len(sizes), -1, dtype=np.int64),
        entry=np.array(keys),
        skippable=np.array(skippable),
        checksums=np.array(checksums, dtype=np.uint32),
    )
    return table, _Stated(times, discarded, np.array(certain))


def _place(payload: bytes, data: bytes, stated: int | None) -> int:
    """Where a packet's payload stands; -1 where that is not near the place that is stated."""
    if stated is None:
        return -1
    if data.startswith(payload, stated):
        return stated
    return data.find(payload, stated, stated + len(payload) + _SLACK)


def _decode_all(video: Video, data: bytes, table: PacketTable, stated: _Stated, *, max_pixels: int) -> Scan | None:
    """Decode every packet in order, and complete the table by what that shows."""
    count = len(table.sizes)
    needs_pixels = bool((table.entry[1:] & ~stated.certain[1:]).any())
    decoder = PacketDecoder(table, max_pixels=max_pixels)
    step = frame_step(video.stream)
    size = time = before = None
    times: list[int] = []
    order: list[int] = []
    keyframes: list[int] = []
    checksums: dict[int, int | None] = {}
    for packet, frame in decoder.run(data, Run(tuple(range(count)), {})):
        if stated.discarded[packet]:
            continue
        size = size or (frame.width, frame.height)
        stated_time = stated.times[packet]
        if (frame.width, frame.height) != size:
            return None
        if table.codec in _REORDERED:
            if stated_time is None or (before is not None and stated_time <= before):
                return None
            before = stated_time
        time = next_time(time, stated_time, step)
        if frame.key_frame:
            keyframes.append(len(times))
        elif stated.certain[packet]:
            stated.certain[packet] = False
            needs_pixels = True
        if needs_pixels:
            checksums[packet] = _checksum(frame)
        order.append(packet)
        times.append(time)
    if size is None or len(set(order)) != len(order) or order[0] != 0 or keyframes[:1] != [0]:
        return None
    table.shows[order] = np.arange(len(order))
    hidden = [packet for packet in np.flatnonzero(table.shows < 0).tolist() if not stated.discarded[packet]]
    if hidden:
        if table.codec in _REORDERED:
            return None  # fields in packets of their own, or a frame that got lost
        table.skippable[:] = False
    table.entry[:] &= table.shows >= 0
    decoder = PacketDecoder(table, max_pixels=max_pixels)
    # Backwards: which frames an entry has to give depends on the entries that come after it.
    for entry in np.flatnonzero(table.entry & ~stated.certain)[::-1].tolist():
        if entry and not _gives_the_same(data, decoder, entry, checksums):
            table.entry[entry] = False
    return Scan(*size, tuple(times), tuple(keyframes), dataclasses.replace(table))  # without what is cached


def _gives_the_same(data: bytes, decoder: PacketDecoder, entry: int, checksums: dict[int, int | None]) -> bool:
    """Whether decoding from this entry gives the frames that decoding from the start gave."""
    table = dataclasses.replace(decoder.table)  # its entries as they are now
    later = table.entries[bisect_right(table.entries, entry) :]
    # Its own frames end where those of the next entry begin; the latter's pictures before it are decoded from here.
    ends = len(table.packet_of) if not later else int(table.shows[later[0]])
    frames = [frame for frame in range(int(table.shows[entry]), ends) if table.entry_for(frame) == entry]
    missing = {int(table.packet_of[frame]) for frame in frames}
    try:
        for packet, frame in decoder.run(data, Run(tuple(range(entry, max(missing) + 1)), {})):
            if packet in missing:
                missing.remove(packet)
                if checksums.get(packet) is None or _checksum(frame) != checksums[packet]:
                    return False
    except DecodeError:
        return False
    return not missing


def _checksum(frame: VideoFrame) -> int | None:
    """Of the frame's pixels, without the padding of its rows; None for forms that cannot be read."""
    try:
        return zlib.crc32(frame.to_ndarray().tobytes())
    except ValueError:
        return None
