"""Encoded parts of media, for DALI to decode: for each group of pictures that holds wanted frames, an MP4 of just the
packets that must be decoded; of an image, its JPEG file.

What DALI 2.4 makes of files: its work grows with the largest frame number that it is asked for, a frame that is named
twice is decoded twice, and one bad item costs the whole batch. So frames are counted, sorted and checked here, where
the pieces are made, and what is in doubt stays with PyAV.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clipbert_cli.media.backend import Place
from clipbert_cli.media.bitstream import NalFormat, coded_size, is_one_picture
from clipbert_cli.media.dali.mp4 import write_mp4
from clipbert_cli.media.packets import Buffer, PacketTable, Run, plan
from clipbert_cli.media.sampling import FrameIndices
from clipbert_cli.types import VideoInfo

_DECODED_ON: dict[Place, set[str]] = {"cpu": {"vp8", "vp9"}, "cuda": {"vp8", "vp9", "h264", "hevc"}}
_GPU_SIZES = {"h264": (48, 16, 4096), "vp8": (48, 16, 4096), "hevc": (144, 144, 8192), "vp9": (128, 128, 8192)}
"""Least width, least height and most of either that NVDEC decodes."""
_H264_PROFILES = {66, 77, 100}  # Baseline, Main, High: 8 bits, 4:2:0
_HEVC_MAIN = 1


@dataclass(frozen=True, slots=True)
class Piece:
    """`data` holds one file, of which `frames` are wanted, by their places in it, rising. `slots` says for each of them
    which clips and frames k * T + t it becomes."""

    data: bytes
    frames: tuple[int, ...]
    slots: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class EncodedClips:
    """K clips of T frames of one media item, h x w pixels, not decoded yet. The pieces' frames fill every place."""

    pieces: tuple[Piece, ...]
    num_clips: int
    num_frames: int
    height: int
    width: int


def video_pieces(
    data: Buffer, clips: FrameIndices, *, info: VideoInfo, table: PacketTable, place: Place
) -> EncodedClips | None:
    """The pieces that give the source frames `clips`; None where DALI on `place` does not take this video.

    Raises:
        DecodeError: a frame that the video does not have, or bytes that are not those of the table.
    """
    if not takes(data, table, place) or (place == "cuda" and not _has_gpu_size(table, info)):
        return None
    table.check_size(data)
    slots: dict[int, list[int]] = {}
    for k, clip in enumerate(clips):
        for t, frame in enumerate(clip):
            slots.setdefault(frame, []).append(k * len(clip) + t)
    pieces = []
    for run in plan(table, slots):
        packets = _shown_from_entry(table, run)
        if packets is None:
            return None
        payloads = [table.packet(data, packet) for packet in packets]
        if place == "cuda" and not _is_simple(table, payloads):
            return None
        order = np.argsort(np.argsort(table.shows[packets])).tolist()  # place of each packet's frame
        place_of = dict(zip(packets, order, strict=True))
        wanted = sorted((place_of[packet], frame) for packet, frame in run.frames.items())
        file = write_mp4(
            payloads,
            order,
            codec=table.codec,
            extradata=table.extradata,
            width=info.width,
            height=info.height,
        )
        pieces.append(
            Piece(file, tuple(number for number, _ in wanted), tuple(tuple(slots[frame]) for _, frame in wanted))
        )
    return EncodedClips(tuple(pieces), len(clips), len(clips[0]), info.height, info.width)


def _shown_from_entry(table: PacketTable, run: Run) -> list[int] | None:
    """The run's packets without those of pictures before its entry, which nothing after it needs; None where one shows
    no frame of its own, for then places in the file are not those of frames."""
    first = table.shows[run.packets[0]]
    packets = [packet for packet in run.packets if table.shows[packet] >= first or table.shows[packet] < 0]
    return None if (table.shows[packets] < 0).any() else packets


def _has_gpu_size(table: PacketTable, info: VideoInfo) -> bool:
    """Whether NVDEC decodes frames of this size, and whether they are coded without padding.

    By its code, DALI 2.4 keeps NVDEC's decoders by the size that is shown and looks for them by the size that is coded,
    a multiple of 16. For 640 x 360 it finds none and makes one for each piece, with the memory of up to 100 of them; or
    it finds that of a video of 640 x 368, and reads colours from the wrong rows, in silence.
    """
    width, height, most = _GPU_SIZES[table.codec]
    if table.codec == "h264" and coded_size(table.extradata) != (info.height, info.width):
        return False
    return width <= info.width <= most and height <= info.height <= most and not (info.width | info.height) % 16


def _is_simple(table: PacketTable, payloads: Sequence[bytes]) -> bool:
    """Whether the GPU half of DALI 2.4 gives one frame for each packet: it takes every picture that NVDEC decodes for a
    shown one, hidden ones and single fields too, and H.264 gets its parameter sets before an IDR picture alone. What
    it does not decode it leaves unwritten, in silence."""
    if table.codec == "vp9":
        return all(map(is_one_picture, payloads))
    form = NalFormat.of(table.codec, table.extradata)
    if form is None or table.codec == "hevc":
        return True
    first = form.picture(payloads[0])
    return first is not None and first.is_idr and all(form.fields(payload) == 1 for payload in payloads)


def image_piece(data: Buffer, *, height: int, width: int) -> EncodedClips:
    """A JPEG file as one clip of one frame."""
    return EncodedClips((Piece(bytes(data), (0,), ((0,),)),), 1, 1, height, width)


def takes(data: Buffer, table: PacketTable, place: Place) -> bool:
    """Whether DALI on `place` decodes such a video: its codec, 8 bits, 4:2:0."""
    if table.codec not in _DECODED_ON[place]:
        return False
    if table.codec == "vp9":
        return table.packet(data, 0)[0] & 0x30 == 0  # profile 0 (VP9 bitstream, 6.2: uncompressed_header)
    if table.codec == "vp8":
        return True
    form = NalFormat.of(table.codec, table.extradata)
    if form is None or not form.length_size:
        return False
    if table.codec == "h264":
        return table.extradata[1] in _H264_PROFILES
    return table.extradata[1] & 31 == _HEVC_MAIN
