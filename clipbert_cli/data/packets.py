"""The packets of a video by their place in the file, so that wanted frames are decoded without opening the container.

A packet table says where each packet's bytes are, which frame it shows, where decoding may start (an entry) and which
packets no other one needs. `plan` makes of it and the wanted frames what has to be decoded; `PacketDecoder` does it.

    packets, decoding order      I0 P3 b1 b2 P6 b4 b5 I7 P10 b8 b9     number = frame it shows, b = nothing refers to it
    frames 5 and 8 are wanted    I0 P3 -- -- P6 -- b5 I7 P10 b8        two runs, one from each entry

A table is made only where decoding through it showed every frame, in order and without an error; an entry that is not
one by the codec's own rules (H.264 without IDR: an open group of pictures, an intra refresh) counts only if decoding
from it gave the very pixels. Everything else is decoded from its start, as `video.py` does it.
"""

from __future__ import annotations

import dataclasses
import zlib
from bisect import bisect_right
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

import av
import numpy as np
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from clipbert_cli.data.nal import NalFormat
from clipbert_cli.data.video import MAX_PIXELS, Video, frame_step, next_time, reading_video, set_decoding
from clipbert_cli.errors import DecodeError

if TYPE_CHECKING:
    Buffer = bytes | memoryview

# Codecs whose decoders need nothing of a container but extradata and tag.
_CODECS = {"h264", "hevc", "mpeg4", "vp8", "vp9", "av1", "libdav1d", "mjpeg"}
_REORDERED = {"h264", "hevc"}  # how far these reorder frames may be guessed wrongly, so their order is checked by times
_SIDE_DATA: Final = ("new_extradata", "param_change", "palette")  # what a bare packet would lose
_SLACK = 64  # bytes between where a demuxer says that a packet starts and where its payload does


@dataclass(frozen=True)
class PacketTable:
    """The P packets of a video in decoding order.

    Args:
        codec, tag, extradata, bits: how FFmpeg's decoder is set up; `bits` is per coded sample, 0 where not stated.
        data_size: the file's length in bytes.
        offsets, sizes: (P,) int64, where each packet is in the file.
        shows: (P,) int64, the frame (in the order they are shown) that the packet gives, -1 for none.
        entry: (P,) bool, decoding may start here: right for every frame not shown before the packet's own.
        skippable: (P,) bool, no other packet needs this one.
    """

    codec: str
    tag: str
    extradata: bytes = field(repr=False)
    bits: int
    data_size: int
    offsets: np.ndarray = field(repr=False)
    sizes: np.ndarray = field(repr=False)
    shows: np.ndarray = field(repr=False)
    entry: np.ndarray = field(repr=False)
    skippable: np.ndarray = field(repr=False)

    @cached_property
    def packet_of(self) -> np.ndarray:
        """(F,) int64, the packet of each frame."""
        shown = np.flatnonzero(self.shows >= 0)
        packets = np.empty(len(shown), dtype=np.int64)
        packets[self.shows[shown]] = shown
        return packets

    @cached_property
    def entries(self) -> list[int]:
        """The packets at which decoding may start, in order."""
        found: list[int] = np.flatnonzero(self.entry).tolist()
        return found

    def entry_for(self, frame: int) -> int:
        """The latest packet from which decoding gives this frame."""
        place = bisect_right(self.entries, int(self.packet_of[frame])) - 1
        while self.shows[self.entries[place]] > frame:
            place -= 1  # the frame belongs to pictures before the entry
        return self.entries[place]


@dataclass(frozen=True, slots=True)
class Run:
    """Packets to decode one after the other, from an entry on; `frames` are the wanted ones, by packet."""

    packets: tuple[int, ...]
    frames: dict[int, int]


def plan(table: PacketTable, wanted: Collection[int]) -> list[Run]:
    """The fewest packets that give the wanted frames.

    Raises:
        DecodeError: a frame that the video does not have.
    """
    spans: dict[int, tuple[int, list[int]]] = {}  # entry -> (end of the span, its frames)
    count = len(table.packet_of)
    for frame in sorted(wanted):
        if not 0 <= frame < count:
            raise DecodeError(f"frame {frame} is wanted, and {count} frames decode")
        start, stop = table.entry_for(frame), int(table.packet_of[frame]) + 1
        end, frames = spans.get(start, (stop, []))
        spans[start] = max(stop, end), [*frames, frame]
    runs: list[tuple[int, int, list[int]]] = []
    for start, (stop, frames) in sorted(spans.items()):
        if runs and start < runs[-1][1]:  # frames of the run before are decoded after this entry: go on with it
            before = runs[-1]
            runs[-1] = before[0], max(stop, before[1]), before[2] + frames
        else:
            runs.append((start, stop, frames))
    return [_run(table, start, stop, frames) for start, stop, frames in runs]


def _run(table: PacketTable, start: int, stop: int, frames: list[int]) -> Run:
    by_packet = {int(table.packet_of[frame]): frame for frame in frames}
    skipped = table.skippable[start:stop].tolist()
    return Run(
        tuple(packet for packet in range(start, stop) if packet in by_packet or not skipped[packet - start]), by_packet
    )


class PacketDecoder:
    """Decodes packets of one video; every frame comes with the packet that it is of."""

    def __init__(self, table: PacketTable, *, max_pixels: int = MAX_PIXELS) -> None:
        self.table = table
        with reading_video():
            context = av.CodecContext.create(table.codec, "r")
            assert isinstance(context, VideoCodecContext)
            if table.extradata:
                context.extradata = table.extradata
            if table.tag:
                context.codec_tag = table.tag
            if table.bits:
                context.bits_per_coded_sample = table.bits
            set_decoding(context, max_pixels=max_pixels)
        self._context = context

    def run(self, data: Buffer, run: Run) -> Iterator[tuple[int, VideoFrame]]:
        """(packet, frame) of the run's packets, those that are not wanted among them.

        Raises:
            DecodeError: an error in the bitstream, or a frame that the decoder calls corrupt.
        """
        shows = self.table.shows
        entry = run.packets[0]
        try:
            for packet in run.packets:
                try:
                    yield from self._decode(self._packet(data, packet))
                except DecodeError:
                    if not 0 <= shows[packet] < shows[entry]:
                        raise  # otherwise it belongs to pictures before the entry, which are not here
            yield from self._decode(None)
        finally:
            self._context.flush_buffers()

    def _packet(self, data: Buffer, number: int) -> Packet:
        start, size = int(self.table.offsets[number]), int(self.table.sizes[number])
        packet = Packet(size)  # FFmpeg's own memory: decoders read some bytes beyond the end
        packet.update(bytes(data[start : start + size]))
        packet.pts = packet.dts = number
        return packet

    def _decode(self, packet: Packet | None) -> Iterator[tuple[int, VideoFrame]]:
        with reading_video():
            frames = self._context.decode(packet)
        for frame in frames:
            if frame.is_corrupt:
                raise DecodeError("the decoder calls a frame corrupt")
            if frame.pts is None:
                raise DecodeError("the decoder does not say which packet a frame is of")
            yield frame.pts, frame


def decode_packets(
    data: Buffer, table: PacketTable, wanted: Collection[int], *, max_pixels: int = MAX_PIXELS
) -> Iterator[tuple[int, VideoFrame]]:
    """(frame number, frame) of every wanted frame, each once, in the decoder's order.

    Raises:
        DecodeError: an error in the bitstream on the way, a frame that does not come, or data that the table is not of.
    """
    if len(data) != table.data_size:
        raise DecodeError(
            f"it has {len(data)} bytes, and the stored information is of {table.data_size}: of other data"
        )
    decoder = PacketDecoder(table, max_pixels=max_pixels)
    for run in plan(table, wanted):
        missing = set(run.frames)
        for packet, frame in decoder.run(data, run):
            if packet in missing:
                missing.remove(packet)
                yield run.frames[packet], frame
        if missing:
            raise DecodeError(f"frame {run.frames[min(missing)]} does not decode")


# ---------------------------------------------------------------------------------------------- making a table


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
    offsets, sizes, keys, certain, skippable = [], [], [], [], []
    times: list[int | None] = []
    discarded = []
    for packet in video.packets():
        payload = bytes(packet)
        offset = -1 if packet.pos is None else data.find(payload, packet.pos, packet.pos + len(payload) + _SLACK)
        if offset < 0 or any(packet.has_sidedata(kind) for kind in _SIDE_DATA):
            return None
        picture = nal_format.picture(payload) if nal_format else None
        offsets.append(offset)
        sizes.append(len(payload))
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
    )
    return table, _Stated(times, discarded, np.array(certain))


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
