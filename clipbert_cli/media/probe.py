"""Probing a video file: its header values, and the times, size and packets of the frames that really decode.

A video is decoded once: through its packets alone if possible, which makes its packet table, and otherwise, or if
anything is unusual, through its container (`container.py`).

A table is made only if the first way showed every frame, in order and without an error. An entry that is certain by the
codec's own rules is accepted. Any other key frame (H.264 without IDR: an open group of pictures, an intra refresh) is
an entry only if decoding from it gives exactly the same pixels. Every other video is decoded from its start.
"""

from __future__ import annotations

import dataclasses
import zlib
from bisect import bisect_right
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

import numpy as np
from av.video.frame import VideoFrame

from clipbert_cli.errors import DecodeError
from clipbert_cli.media.bitstream import NalFormat
from clipbert_cli.media.container import Video, open_video
from clipbert_cli.media.ffmpeg import check_pixels
from clipbert_cli.media.packets import PacketDecoder, PacketTable
from clipbert_cli.media.shown_frames import ShownFrames
from clipbert_cli.types import VideoInfo

# Codecs whose decoders need nothing from a container but extradata and tag.
_CODECS = {"h264", "hevc", "mpeg4", "vp8", "vp9", "av1", "libdav1d", "mjpeg"}
# Decoders of these codecs may have to guess how far frames are reordered, and without a container they can guess
# wrongly. So the order of their frames is compared with the packets' times.
_REORDERED = {"h264", "hevc"}
# Side data that a packet without its container would lose, and that changes how it is decoded.
_SIDE_DATA: Final = ("new_extradata", "param_change", "palette")
# The place that a demuxer states may be that of a header before the payload: up to some 20 bytes in MKV and FLV.
_MAX_HEADER = 64


@dataclass(frozen=True, slots=True)
class _Stated:
    """Facts that the container states about each of the P packets."""

    times: list[int | None]
    # Packets outside of the edit list, whose frames are not shown.
    discarded: list[bool]
    # (P,) bool, packets that are entries by the codec's own rules.
    certain: np.ndarray


def _read_packets(video: Video, data: bytes) -> tuple[PacketTable, _Stated] | None:
    """Return the table as far as container and packets state it; `shows` is filled in later."""
    context = video.stream.codec_context
    if context.name not in _CODECS or video.has_alpha:
        return None
    extradata = context.extradata or b""
    nal_format = NalFormat.of(context.name, extradata)
    offsets, sizes, keys, certain, skippable, checksums = [], [], [], [], [], []
    times: list[int | None] = []
    discarded = []
    changes_set_up = False
    for packet in video.packets():
        payload = bytes(packet)
        offset = _offset(payload, data, packet.pos)
        if offset < 0 or any(side.data_type in _SIDE_DATA for side in packet.iter_sidedata()):
            return None
        picture = nal_format.picture(payload) if nal_format else None
        if nal_format and not changes_set_up:
            changes_set_up = any(unit not in extradata for unit in nal_format.parameter_sets(payload))
        offsets.append(offset)
        sizes.append(len(payload))
        checksums.append(zlib.crc32(payload))
        keys.append(packet.is_keyframe)
        # A VP8 key frame may keep the segmentation of the frame before it, so it is not certain.
        by_rule = picture.is_idr if picture else nal_format is None and context.name != "vp8"
        certain.append(packet.is_keyframe and by_rule)
        skippable.append(picture is not None and picture.is_unreferenced)
        times.append(packet.pts)
        discarded.append(packet.is_discard)
    if not sizes or not keys[0]:
        return None
    if changes_set_up:
        # A decoder that starts later may lack what an earlier packet states, such as a change of the frame size.
        certain = [True, *(False for _ in certain[1:])]
    try:
        tag = context.codec_tag
    except UnicodeDecodeError:
        return None  # PyAV can only set tags that are text.
    table = PacketTable(
        codec=context.name,
        tag=tag if tag.strip("\0") else "",
        extradata=extradata,
        bits=context.bits_per_coded_sample,
        color_range=int(context.color_range),
        data_size=len(data),
        offsets=np.array(offsets, dtype=np.int64),
        sizes=np.array(sizes, dtype=np.int64),
        shows=np.full(len(sizes), -1, dtype=np.int64),
        entry=np.array(keys),
        skippable=np.array(skippable),
        checksums=np.array(checksums, dtype=np.uint32),
    )
    return table, _Stated(times, discarded, np.array(certain))


def _offset(payload: bytes, data: bytes, stated: int | None) -> int:
    """Return where a packet's payload begins in the file; -1 if that is not near the stated place."""
    if stated is None:
        return -1
    if data.startswith(payload, stated):
        return stated
    return data.find(payload, stated, stated + len(payload) + _MAX_HEADER)


def _decode_all(
    video: Video, data: bytes, table: PacketTable, stated: _Stated
) -> tuple[ShownFrames, PacketTable] | None:
    """Decode every packet in order, and complete the table with what the frames show."""
    needs_pixels = bool((table.entry[1:] & ~stated.certain[1:]).any())
    decoder = PacketDecoder(table)
    shown = ShownFrames(video.stream)
    before: int | None = None
    order: list[int] = []  # the packet of each shown frame
    keys: set[int] = set()  # the packets that really hold a key frame
    checksums: dict[int, int | None] = {}
    for packet, frame in decoder.decode(data, range(len(table.sizes))):
        if frame.key_frame:
            keys.add(packet)
        if stated.discarded[packet]:
            shown.hide()
            continue
        stated_time = stated.times[packet]
        if shown.add(frame, stated_time) is None:
            continue
        if table.codec in _REORDERED:
            if stated_time is None or (before is not None and stated_time <= before):
                return None
            before = stated_time
        if not frame.key_frame and stated.certain[packet]:
            # The container marked a packet as a key frame whose frame is none: check its pixels.
            stated.certain[packet] = False
            needs_pixels = True
        if needs_pixels:
            checksums[packet] = _pixel_checksum(frame)
        order.append(packet)
    if not order or len(set(order)) != len(order) or 0 not in keys:
        return None
    # Packets before the first shown frame are there only to be referred to, if the video was cut.
    first_shown = min(order)
    if not all(stated.discarded[:first_shown]) or (first_shown == 0 != order[0]):
        return None
    table.shows[order] = np.arange(len(order))
    hidden = [packet for packet in np.flatnonzero(table.shows < 0).tolist() if not stated.discarded[packet]]
    if hidden:
        if table.codec in _REORDERED:
            return None  # Fields in packets of their own, or a frame that got lost.
        table.skippable[:] = False
    decodes_alone = np.isin(np.arange(len(table.sizes)), list(keys)) & np.array(stated.discarded)
    decodes_alone[first_shown:] = False
    table.entry[:] &= (table.shows >= 0) | decodes_alone
    # Backwards, because the frames that an entry has to give depend on the entries after it.
    for entry in np.flatnonzero(table.entry & ~stated.certain)[::-1].tolist():
        if entry and not _gives_same_pixels(data, decoder, entry, checksums):
            table.entry[entry] = False
    # The copy is without `entries`, which was cached before the last entries were removed.
    return shown, dataclasses.replace(table)


def _gives_same_pixels(data: bytes, decoder: PacketDecoder, entry: int, checksums: dict[int, int | None]) -> bool:
    """Return whether decoding from this entry gives the same pixels as decoding from the start did."""
    table = dataclasses.replace(decoder.table)  # A copy without cached properties: entries were removed since.
    later = table.entries[bisect_right(table.entries, entry) :]
    # The entry has to give all frames before the next entry's own frame, including those that are decoded after it.
    end = len(table.packet_of) if not later else int(table.shows[later[0]])
    frames = [frame for frame in range(max(0, int(table.shows[entry])), end) if table.entry_for(frame) == entry]
    if not frames:
        return False  # All of its frames are hidden, and so are those of the next entry.
    missing = {int(table.packet_of[frame]) for frame in frames}
    try:
        for packet, frame in decoder.decode(data, range(entry, max(missing) + 1)):
            if packet in missing:
                missing.remove(packet)
                if checksums.get(packet) is None or _pixel_checksum(frame) != checksums[packet]:
                    return False
    except DecodeError:
        return False
    return not missing


def _pixel_checksum(frame: VideoFrame) -> int | None:
    """Return the CRC-32 of a frame's pixels without row padding; None for pixel formats that PyAV cannot read."""
    try:
        return zlib.crc32(frame.to_ndarray().tobytes())
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class ProbedVideo:
    """All facts that a store keeps about one video.

    Args:
        codec: FFmpeg's name.
        packets: the packet table; None if the video can only be decoded through its container.
    """

    info: VideoInfo
    codec: str
    packets: PacketTable | None = field(default=None, repr=False)


def probe_video(data: bytes) -> ProbedVideo:
    """Decode a video from its beginning to its end or to the first error, and return what was found.

    Raises:
        DecodeError: the file is not a video, no frame could be decoded, or frames are too large.
    """
    with open_video(data) as video:
        damage = ""
        scanned = _scan_packets(video, data)
        if scanned is None:
            video.rewind()
            damage = _decode_through_container(video)
        shown, table = scanned or (video.shown, None)
        complete = not damage
        damage = damage or video.missing_end(shown)
        assert shown.size is not None
        for height, width in (shown.size, *(change[1:] for change in shown.size_changes)):
            check_pixels(width, height)
        stream = video.stream
        info = VideoInfo(
            width=shown.size[1],
            height=shown.size[0],
            num_frames=stream.frames,
            duration=stream.duration,
            average_rate=stream.average_rate or None,
            time_base=stream.time_base or Fraction(1),
            pts=tuple(shown.times),
            complete=complete,
            damage=damage,
            orientation=video.orientation(),
            size_changes=tuple(shown.size_changes),
        )
        return ProbedVideo(info, stream.codec_context.name, table)


def _scan_packets(video: Video, data: bytes) -> tuple[ShownFrames, PacketTable] | None:
    """Decode all of a video through its packets; None if anything is unusual and the container has to be used."""
    try:
        found = _read_packets(video, data)
        return found and _decode_all(video, data, *found)
    except DecodeError:
        return None


def _decode_through_container(video: Video) -> str:
    """Decode all of a video, and return the error that ended this early or ""."""
    damage = ""
    try:
        for _ in video.frames():
            pass
    except DecodeError as exc:
        damage = str(exc)
    if not video.shown.times:
        raise DecodeError(f"no frame could be decoded: {damage or 'the video stream is empty'}")
    return damage
