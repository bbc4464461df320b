"""The encoded parts of media that DALI decodes: one MP4 file per span of a video's packets, or a JPEG file."""

# DALI 2.4 does work in proportion to the largest frame number that it is asked for, decodes a frame twice if it is
# named twice, and fails a whole batch for one bad item. So each file holds only the needed packets, frames are sorted
# and checked here, and a video that DALI might decode wrongly is left to PyAV.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clipbert_cli.media.backend import DeviceType
from clipbert_cli.media.bitstream import NalFormat, is_one_shown_frame
from clipbert_cli.media.dali.mp4 import write_mp4
from clipbert_cli.media.packets import Buffer, PacketSpan, PacketTable, plan
from clipbert_cli.media.sampling import FrameIndices
from clipbert_cli.types import VideoInfo

_CODECS: dict[DeviceType, set[str]] = {"cpu": {"vp8", "vp9"}, "cuda": {"vp8", "vp9", "h264", "hevc"}}
# Least width, least height and largest side that NVDEC decodes, in pixels.
_NVDEC_SIZES = {"h264": (48, 16, 4096), "vp8": (48, 16, 4096), "hevc": (144, 144, 8192), "vp9": (128, 128, 8192)}
# Baseline, Main and High: 8 bits, 4:2:0.
_H264_PROFILES = {66, 77, 100}
_HEVC_MAIN = 1
_FULL_RANGE = 2  # FFmpeg's AVCOL_RANGE_JPEG


@dataclass(frozen=True, slots=True)
class Segment:
    """One small media file and the frames that are wanted from it.

    Args:
        data: the file.
        frames: places in the file of the wanted frames, rising.
        slots: for each of `frames`, the positions k * T + t in clip k and frame t that it fills.
    """

    data: bytes
    frames: tuple[int, ...]
    slots: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class EncodedClips:
    """K clips of T frames of one media item that are not decoded yet.

    Args:
        segments: together their frames fill every position of the clips.
        height, width: native size in pixels, as it is coded.
        orientation: how the frames are turned upright, see `VideoInfo.orientation`.
    """

    segments: tuple[Segment, ...]
    num_clips: int
    num_frames: int
    height: int
    width: int
    orientation: int = 1


def video_segments(
    data: Buffer, clips: FrameIndices, *, info: VideoInfo, table: PacketTable, device_type: DeviceType
) -> EncodedClips | None:
    """Return the segments that hold the frames `clips`; None if DALI cannot decode this video on such a device.

    Raises:
        DecodeError: the video does not have a wanted frame, or the bytes are not those of the table.
    """
    if not is_decodable(data, info, table, device_type):
        return None
    table.check_size(data)
    slots: dict[int, list[int]] = {}
    for k, clip in enumerate(clips):
        for t, frame in enumerate(clip):
            slots.setdefault(frame, []).append(k * len(clip) + t)
    segments = []
    for span in plan(table, slots):
        packets = _shown_after_entry(table, span)
        if packets is None:
            return None
        payloads = [table.packet(data, packet) for packet in packets]
        if device_type == "cuda" and not _gives_one_frame_per_packet(table, payloads):
            return None
        order = np.argsort(np.argsort(table.shows[packets])).tolist()  # place in the file of each packet's frame
        place_of = dict(zip(packets, order, strict=True))
        wanted = sorted((place_of[packet], frame) for packet, frame in span.frames.items())
        file = write_mp4(
            payloads, order, codec=table.codec, extradata=table.extradata, width=info.width, height=info.height
        )
        frame_slots = tuple(tuple(slots[frame]) for _, frame in wanted)
        segments.append(Segment(file, tuple(place for place, _ in wanted), frame_slots))
    return EncodedClips(tuple(segments), len(clips), len(clips[0]), info.height, info.width, info.orientation)


def image_segment(data: Buffer, *, height: int, width: int) -> EncodedClips:
    """Return a JPEG file as one clip of one frame."""
    return EncodedClips((Segment(bytes(data), (0,), ((0,),)),), 1, 1, height, width)


def is_decodable(data: Buffer, info: VideoInfo, table: PacketTable, device_type: DeviceType) -> bool:
    """Return whether DALI decodes videos of this codec, format (8 bits, 4:2:0) and size on such a device."""
    if table.codec not in _CODECS[device_type] or (device_type == "cuda" and not _has_nvdec_size(table, info)):
        return False
    # A segment's file has one size, and does not state the range of the colours.
    if info.size_changes or table.color_range == _FULL_RANGE:
        return False
    if table.codec == "vp8":
        return True
    if table.codec == "vp9":
        return table.packet(data, 0)[0] & 0x30 == 0  # profile 0 (VP9 bitstream, 6.2: uncompressed_header)
    nal_format = NalFormat.of(table.codec, table.extradata)
    if nal_format is None or not nal_format.length_size:
        return False
    if table.codec == "h264":
        return table.extradata[1] in _H264_PROFILES
    return table.extradata[1] & 31 == _HEVC_MAIN


def _has_nvdec_size(table: PacketTable, info: VideoInfo) -> bool:
    """Return whether NVDEC decodes frames of this size and their coded pictures have no padding."""
    # DALI 2.4 stores NVDEC's decoders under the size of the shown frames, but looks them up by the size of the coded
    # pictures, a multiple of 16. For 640 x 360 it never finds one and makes a new decoder for each segment, with the
    # memory of up to 100 of them. Or it finds the one of a video of 640 x 368, and reads colours from wrong rows
    # without an error.
    width, height, largest = _NVDEC_SIZES[table.codec]
    if table.codec == "h264" and table.coded_size != (info.height, info.width):
        return False
    in_range = width <= info.width <= largest and height <= info.height <= largest
    return in_range and not (info.width | info.height) % 16


def _shown_after_entry(table: PacketTable, span: PacketSpan) -> list[int] | None:
    """Return the span's packets without those of frames shown before its entry; None if a packet shows no frame."""
    # No frame after the entry refers to the packets that are left out. A packet without a frame of its own would break
    # the correspondence between places in the file and frames.
    first = table.shows[span.packets[0]]
    packets = [packet for packet in span.packets if table.shows[packet] >= first or table.shows[packet] < 0]
    return None if (table.shows[packets] < 0).any() else packets


def _gives_one_frame_per_packet(table: PacketTable, payloads: Sequence[bytes]) -> bool:
    """Return whether DALI on a GPU gives one frame for each packet."""
    # DALI 2.4 counts every picture that NVDEC decodes as a shown one, including hidden pictures and single fields, and
    # passes H.264 parameter sets to NVDEC only before IDR pictures. Frames that it does not decode stay uninitialised
    # memory, without an error.
    if table.codec == "vp9":
        return all(map(is_one_shown_frame, payloads))
    nal_format = NalFormat.of(table.codec, table.extradata)
    if nal_format is None or table.codec == "hevc":
        return True
    first = nal_format.picture(payloads[0])
    return first is not None and first.is_idr and all(nal_format.fields(payload) == 1 for payload in payloads)
