"""The packets of a video by their place in the file, so that wanted frames are decoded without opening the container.

A packet table says where each packet's bytes are, which frame it shows, where decoding may start (an entry) and which
packets no other one needs. `plan` makes of it and the wanted frames what has to be decoded; `PacketDecoder` does it.

    packets, decoding order      I0 P3 b1 b2 P6 b4 b5 I7 P10 b8 b9     number = frame it shows, b = nothing refers to it
    frames 5 and 8 are wanted    I0 P3 -- -- P6 -- b5 I7 P10 b8        two runs, one from each entry

Tables are made in `scan.py`; a video without one is decoded from its start, as `video.py` does it.
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
from clipbert_cli.media.ffmpeg import MAX_PIXELS, create_decoder, reading_video

Buffer = bytes | memoryview


class OtherBytesError(DecodeError):
    """A packet's bytes are not those that its table was made of: they were damaged since, and no other way of decoding
    them can be trusted."""


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
        checksums: (P,) uint32, CRC-32 of each packet; None in tables of stores that have none.
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
    checksums: np.ndarray | None = field(default=None, repr=False)

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

    def check_size(self, data: Buffer) -> None:
        """
        Raises:
            DecodeError: the table is of a file of another length.
        """
        if len(data) != self.data_size:
            raise DecodeError(
                f"it has {len(data)} bytes, and the stored information is of {self.data_size}: of other data"
            )

    def packet(self, data: Buffer, number: int) -> bytes:
        """The bytes of a packet.

        Raises:
            OtherBytesError: they have changed since the table was made.
        """
        start, size = int(self.offsets[number]), int(self.sizes[number])
        payload = bytes(data[start : start + size])
        if self.checksums is not None and zlib.crc32(payload) != self.checksums[number]:
            raise OtherBytesError(f"its bytes from {start} to {start + size} are not those that were packed")
        return payload

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
            context = create_decoder(table.codec, max_pixels=max_pixels)
            if table.extradata:
                context.extradata = table.extradata
            if table.tag:
                context.codec_tag = table.tag
            if table.bits:
                context.bits_per_coded_sample = table.bits
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
                except OtherBytesError:
                    raise
                except DecodeError:
                    if not 0 <= shows[packet] < shows[entry]:
                        raise  # otherwise it belongs to pictures before the entry, which are not here
            yield from self._decode(None)
        finally:
            self._context.flush_buffers()

    def _packet(self, data: Buffer, number: int) -> Packet:
        payload = self.table.packet(data, number)
        packet = Packet(len(payload))  # FFmpeg's own memory: decoders read some bytes beyond the end
        packet.update(payload)
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
        DecodeError: an error in the bitstream on the way, a frame that does not come, or data that the table is not of
            (OtherBytesError: a packet has changed).
    """
    table.check_size(data)
    decoder = PacketDecoder(table, max_pixels=max_pixels)
    for run in plan(table, wanted):
        missing = set(run.frames)
        for packet, frame in decoder.run(data, run):
            if packet in missing:
                missing.remove(packet)
                yield run.frames[packet], frame
        if missing:
            raise DecodeError(f"frame {run.frames[min(missing)]} does not decode")
