"""The encoded parts of media that DALI decodes: one MP4 file per span of a video's packets, or a JPEG file."""

# DALI 2.4 does work in proportion to the largest frame number that it is asked for, decodes a frame twice if it is
# named twice, and fails a whole batch for one bad item. So each file holds only the needed packets, frames are sorted
# and checked here, and a video that DALI might decode wrongly is left to PyAV.

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clipbert_cli.media.backend import Decoder
from clipbert_cli.media.bitstream import NalFormat, is_one_shown_frame
from clipbert_cli.media.dali.mp4 import write_mp4
from clipbert_cli.media.dali.parameter_sets import CodedPicture, UnusualError, coded_picture
from clipbert_cli.media.packets import Buffer, PacketSpan, PacketTable, plan
from clipbert_cli.media.sampling import FrameIndices
from clipbert_cli.types import VideoInfo

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
        height, width: native size in pixels, as it is shown before it is turned upright.
        codec: FFmpeg's name.
        coded: (height, width) of the decoded pictures.
        offset: (top, left) of the shown part in them.
        orientation: how the frames are turned upright, see `VideoInfo.orientation`.
    """

    segments: tuple[Segment, ...]
    num_clips: int
    num_frames: int
    height: int
    width: int
    codec: str
    coded: tuple[int, int]
    offset: tuple[int, int] = (0, 0)
    orientation: int = 1


def video_segments(
    data: Buffer, clips: FrameIndices, *, info: VideoInfo, table: PacketTable, decoder: Decoder
) -> EncodedClips | None:
    """Return the segments that hold the frames `clips`; None if this decoder cannot decode them.

    Raises:
        DecodeError: the video does not have a wanted frame, or the bytes are not those of the table.
    """
    try:
        stream = _stream(info, table, decoder)
    except UnusualError:
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
        if not _fits(table, stream, payloads, decoder):
            return None
        order = np.argsort(np.argsort(table.shows[packets])).tolist()  # place in the file of each packet's frame
        place_of = dict(zip(packets, order, strict=True))
        wanted = sorted((place_of[packet], frame) for packet, frame in span.frames.items())
        height, width = stream.coded
        file = write_mp4(payloads, order, codec=table.codec, extradata=stream.extradata, width=width, height=height)
        frame_slots = tuple(tuple(slots[frame]) for _, frame in wanted)
        segments.append(Segment(file, tuple(place for place, _ in wanted), frame_slots))
    return EncodedClips(
        tuple(segments),
        len(clips),
        len(clips[0]),
        info.height,
        info.width,
        table.codec,
        stream.coded,
        stream.offset,
        info.orientation,
    )


def image_segment(data: Buffer, *, height: int, width: int) -> EncodedClips:
    """Return a JPEG file as one clip of one frame."""
    return EncodedClips((Segment(bytes(data), (0,), ((0,),)),), 1, 1, height, width, "jpeg", (height, width))


def why_not(info: VideoInfo, table: PacketTable | None, decoder: Decoder) -> str:
    """Return why DALI does not decode a video with this decoder, "" if it does, as far as its records say.

    Some videos are found out only by their packets: hidden VP9 frames, H.264 fields, other profiles of VP9.
    """
    if table is None:
        return "it has no packet table"
    try:
        _stream(info, table, decoder)
    except UnusualError as exc:
        return str(exc)
    return ""


def _stream(info: VideoInfo, table: PacketTable, decoder: Decoder) -> CodedPicture:
    """Return the set-up with which DALI decodes a video.

    Raises:
        UnusualError: PyAV has to decode it.
    """
    if (limits := decoder.codecs.get(table.codec)) is None:
        raise UnusualError(f"{decoder.device} does not decode {table.codec}")
    # A segment's file has one size, and does not state the range of the colours.
    if info.size_changes:
        raise UnusualError("its frames change their size")
    if table.color_range == _FULL_RANGE:
        raise UnusualError("its colours have full range")
    if table.codec in ("h264", "hevc"):
        stream = _cropped_stream(info, table)
    else:
        stream = CodedPicture((info.height, info.width), (info.height, info.width), table.extradata)
    if decoder.device_type == "cpu":
        return stream
    height, width = stream.coded
    # DALI 2.4 looks up NVDEC's decoders by the size of coded pictures, which NVDEC rounds up to multiples of 16.
    if (height | width) % 16:
        raise UnusualError(f"its coded pictures are {width} x {height}: not multiples of 16")
    if not limits.accept(width, height):
        raise UnusualError(f"the GPU does not decode {table.codec} of {width} x {height}")
    return stream


def _cropped_stream(info: VideoInfo, table: PacketTable) -> CodedPicture:
    nal_format = NalFormat.of(table.codec, table.extradata)
    if nal_format is None or not nal_format.length_size:
        raise UnusualError("start codes separate its units")
    is_usual = table.extradata[1] in _H264_PROFILES if table.codec == "h264" else table.extradata[1] & 31 == _HEVC_MAIN
    if not is_usual:
        raise UnusualError(f"its profile {table.extradata[1]} of {table.codec} is not 8 bits in 4:2:0")
    picture = coded_picture(table.codec, table.extradata)
    if picture.shown != (info.height, info.width):
        raise UnusualError("its parameter sets state another size than its frames have")
    return picture if picture.coded != picture.shown else dataclasses.replace(picture, extradata=table.extradata)


def _fits(table: PacketTable, stream: CodedPicture, payloads: Sequence[bytes], decoder: Decoder) -> bool:
    """Return whether DALI decodes these packets rightly, and gives one frame for each."""
    # VP9 states its profile in every frame (VP9 bitstream, 6.2: uncompressed_header); profile 0 is 8 bits, 4:2:0.
    if table.codec == "vp9" and payloads[0][0] & 0x30:
        return False
    if decoder.device_type == "cpu":
        return True
    nal_format = NalFormat.of(table.codec, table.extradata)
    if stream.extradata != table.extradata and nal_format and any(map(nal_format.parameter_sets, payloads)):
        return False  # A packet's own parameter sets would crop the pictures again.
    return _gives_one_frame_per_packet(table, payloads)


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
