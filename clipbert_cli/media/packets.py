"""The packets of a video by their place in the file, so that wanted frames are decoded without opening the container.

A packet table lists where the bytes of each packet are, which frame it shows, where decoding may start (an entry), and
which packets no other packet refers to (skippable). `plan` selects the packets that have to be decoded for the wanted
frames, and `PacketDecoder` decodes them. Drawn in decoding order, with the number of the frame that each packet shows:

    packets                      I0 P3 b1 b2 P6 b4 b5 I7 P10 b8 b9     I = entry, b = skippable
    frames 5 and 8 are wanted    I0 P3 -- -- P6 -- b5 I7 P10 b8        two spans, one from each entry

`probe.py` makes the tables. A video without a table is decoded from its start (`container.py`).

P packets, F frames.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame

from clipbert_cli.errors import DecodeError
from clipbert_cli.media.ffmpeg import create_decoder, decode_errors, report_frame

Buffer = bytes | memoryview


class ChangedBytesError(DecodeError):
    """The bytes of a packet differ from those that were packed, so no way of decoding them can be trusted."""


@dataclass(frozen=True)
class PacketTable:
    """The P packets of a video in decoding order.

    Args:
        codec, tag, extradata, bits, color_range: set-up of FFmpeg's decoder; `bits` per coded sample, 0 if not stated;
            `color_range` as FFmpeg numbers it, 0 if not stated, 2 for full range.
        data_size: length of the file in bytes.
        offsets, sizes: (P,) int64, where each packet lies in the file, in bytes.
        shows: (P,) int64, index in display order of the frame that the packet shows, -1 for none: it holds several
            packets' common data, a frame that is only referred to, or one that lies before the cut of a cut video.
        entry: (P,) bool, decoding may start here and gives every frame not shown before the packet's own.
        skippable: (P,) bool, no other packet refers to this one.
        checksums: (P,) uint32, CRC-32 of each packet.
    """

    codec: str
    tag: str
    extradata: bytes = field(repr=False)
    bits: int
    color_range: int
    data_size: int
    offsets: np.ndarray = field(repr=False)
    sizes: np.ndarray = field(repr=False)
    shows: np.ndarray = field(repr=False)
    entry: np.ndarray = field(repr=False)
    skippable: np.ndarray = field(repr=False)
    checksums: np.ndarray = field(repr=False)

    @cached_property
    def packet_of(self) -> np.ndarray:
        """The packet that shows each frame: (F,) int64."""
        showing = np.flatnonzero(self.shows >= 0)
        packets = np.empty(len(showing), dtype=np.int64)
        packets[self.shows[showing]] = showing
        return packets

    @cached_property
    def entries(self) -> list[int]:
        """The packets at which decoding may start, in decoding order."""
        found: list[int] = np.flatnonzero(self.entry).tolist()
        return found

    def check_size(self, data: Buffer) -> None:
        """Raise `DecodeError` if the file's length is not the one that the table was made for."""
        if len(data) != self.data_size:
            raise DecodeError(f"it has {len(data)} bytes, but its packet table is of a file of {self.data_size} bytes")

    def packet(self, data: Buffer, number: int) -> bytes:
        """Return the bytes of a packet.

        Raises:
            ChangedBytesError: they have changed since the table was made.
        """
        start, size = int(self.offsets[number]), int(self.sizes[number])
        payload = bytes(data[start : start + size])
        if zlib.crc32(payload) != self.checksums[number]:
            raise ChangedBytesError(f"its bytes from {start} to {start + size} are not those that were packed")
        return payload

    def entry_for(self, frame: int) -> int:
        """Return the latest packet from which decoding gives this frame."""
        place = bisect_right(self.entries, int(self.packet_of[frame])) - 1
        # In an open group of pictures, frames that follow the entry in decoding order are shown before it and refer to
        # the group before.
        while self.shows[self.entries[place]] > frame:
            place -= 1
        return self.entries[place]


@dataclass(frozen=True, slots=True)
class PacketSpan:
    """Packets to decode one after the other.

    Args:
        packets: numbers in decoding order; the first one is an entry.
        frames: packet -> frame, for the wanted frames.
    """

    packets: tuple[int, ...]
    frames: dict[int, int]


def plan(table: PacketTable, wanted: Collection[int]) -> list[PacketSpan]:
    """Return the fewest packets that give the wanted frames, as spans in decoding order.

    Raises:
        DecodeError: the video does not have a wanted frame.
    """
    by_entry: dict[int, tuple[int, list[int]]] = {}  # entry -> (end of its packets, its wanted frames)
    count = len(table.packet_of)
    for frame in sorted(wanted):
        if not 0 <= frame < count:
            raise DecodeError(f"frame {frame} is wanted, but only {count} frames decode")
        start, stop = table.entry_for(frame), int(table.packet_of[frame]) + 1
        end, frames = by_entry.get(start, (stop, []))
        by_entry[start] = max(stop, end), [*frames, frame]
    merged: list[tuple[int, int, list[int]]] = []
    for start, (stop, frames) in sorted(by_entry.items()):
        # Frames of an open group may be decoded after the next entry. Continuing the span decodes no packet twice.
        if merged and start < merged[-1][1]:
            before = merged[-1]
            merged[-1] = before[0], max(stop, before[1]), before[2] + frames
        else:
            merged.append((start, stop, frames))
    return [_span(table, start, stop, frames) for start, stop, frames in merged]


def _span(table: PacketTable, start: int, stop: int, frames: list[int]) -> PacketSpan:
    by_packet = {int(table.packet_of[frame]): frame for frame in frames}
    skippable = table.skippable[start:stop].tolist()
    needed = [packet for packet in range(start, stop) if packet in by_packet or not skippable[packet - start]]
    return PacketSpan(tuple(needed), by_packet)


class PacketDecoder:
    """Decodes packets of one video."""

    def __init__(self, table: PacketTable) -> None:
        self.table = table
        with decode_errors():
            context = create_decoder(table.codec)
            if table.extradata:
                context.extradata = table.extradata
            if table.tag:
                context.codec_tag = table.tag
            if table.bits:
                context.bits_per_coded_sample = table.bits
            # Some streams do not state the range of their colours, and only the container does.
            context.color_range = table.color_range
        self._context = context

    def decode(self, data: Buffer, packets: Collection[int]) -> Iterator[tuple[int, VideoFrame]]:
        """Yield (packet, frame) of all frames of these packets, in the decoder's order. The first one is an entry.

        Raises:
            DecodeError: an error in the bitstream, or a frame that FFmpeg marks as corrupt.
        """
        shows = self.table.shows
        entry = next(iter(packets))
        try:
            for packet in packets:
                try:
                    yield from self._decode(self._packet(data, packet))
                except ChangedBytesError:
                    raise
                except DecodeError:
                    # Frames that are shown before the entry refer to pictures that are not decoded here.
                    if not 0 <= shows[packet] < shows[entry]:
                        raise
            yield from self._decode(None)
        finally:
            self._context.flush_buffers()

    def _packet(self, data: Buffer, number: int) -> Packet:
        payload = self.table.packet(data, number)
        # Decoders read some bytes beyond the end of a packet, so it must lie in memory that FFmpeg has padded.
        packet = Packet(len(payload))
        packet.update(payload)
        # The decoder passes the number through to the frame, which says to which packet a frame belongs.
        packet.pts = packet.dts = number
        return packet

    def _decode(self, packet: Packet | None) -> Iterator[tuple[int, VideoFrame]]:
        with decode_errors():
            frames = self._context.decode(packet)
        for frame in frames:
            if frame.is_corrupt:
                raise DecodeError("FFmpeg reports a corrupt frame")
            if frame.pts is None:
                raise DecodeError("FFmpeg does not report to which packet a frame belongs")
            report_frame(frame.width * frame.height)
            yield frame.pts, frame


def decode_packets(data: Buffer, table: PacketTable, wanted: Collection[int]) -> Iterator[tuple[int, VideoFrame]]:
    """Yield (frame index, frame) of every wanted frame, each once, in the decoder's order.

    Raises:
        ChangedBytesError: a packet's bytes are not those that were packed.
        DecodeError: an error in the bitstream, a frame that is missing, or a table of another file.
    """
    table.check_size(data)
    decoder = PacketDecoder(table)
    for span in plan(table, wanted):
        missing = set(span.frames)
        for packet, frame in decoder.decode(data, span.packets):
            if packet in missing:
                missing.remove(packet)
                yield span.frames[packet], frame
        if missing:
            raise DecodeError(f"frame {span.frames[min(missing)]} could not be decoded")
