"""The pixels of chosen frames of a video.

A video with a packet table is decoded through it, in one pass over the packets that the wanted frames need. Any other
video is decoded from its start up to the last wanted frame. Both ways give the same pixels.

K clips, T frames, h w native size, S canvas side.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Generator, Iterator
from contextlib import closing
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter
from PIL import Image

from clipbert_cli.errors import DecodeError
from clipbert_cli.media.backend import Colours
from clipbert_cli.media.canvas import empty_canvas, resize_into
from clipbert_cli.media.container import open_video
from clipbert_cli.media.ffmpeg import check_pixels
from clipbert_cli.media.images import on_white
from clipbert_cli.media.packets import Buffer, ChangedBytesError, PacketTable, decode_packets
from clipbert_cli.media.sampling import FrameIndices
from clipbert_cli.types import VideoInfo

if TYPE_CHECKING:
    import torch

# Every video is converted with BT.601, whatever its tags say, because the original's decoder did so, and DALI does. The
# scaler's default arithmetic gives the original's pixels exactly (golden/transforms, `video_raw_rgb`). Interpolated
# chroma with exact rounding gives those of DALI on CPU and takes nine times as long. The two differ by one level on
# average, and by up to 24 at sharp coloured edges.
_SWS_FULL_CHR_H_INT, _SWS_ACCURATE_RND = 0x2000, 0x40000
_SCALER: dict[Colours, int] = {
    "original": Interpolation.BILINEAR,
    "dali": Interpolation.BILINEAR | _SWS_FULL_CHR_H_INT | _SWS_ACCURATE_RND,
}
COLOURSPACE = {"src_colorspace": Colorspace.ITU601, "dst_colorspace": Colorspace.ITU601}

# RGB frames are collected up to this many bytes and then resized together. This is a third faster than resizing each
# frame between two calls of the decoder, and keeps memory bounded for large frames.
_BYTES_RESIZED_TOGETHER = 2**24


def decode_frames(
    data: Buffer, clips: FrameIndices, *, info: VideoInfo, packets: PacketTable | None = None
) -> np.ndarray:
    """Return the frames `clips` of a video in the coded size of the first frame, each decoded once.

    Frames are not turned upright. Where a video changes its size, later frames are scaled.

    Args:
        data: the bytes of the video file.
        clips: K tuples of T frame indices, see `sampling.select`.
        info, packets: the facts of this video, see `probe.probe_video`; `packets` is None if it has no packet table.

    Returns:
        (K, T, h, w, 3) uint8 RGB.

    Raises:
        DecodeError: see `rgb_frames`.
    """
    wanted = sorted({index for clip in clips for index in clip})
    pixels = np.empty((len(wanted), info.height, info.width, 3), dtype=np.uint8)
    row_of = {index: row for row, index in enumerate(wanted)}
    for index, frame in rgb_frames(data, wanted, info=info, packets=packets):
        if frame.shape != pixels.shape[1:]:
            frame = np.asarray(Image.fromarray(frame).resize((info.width, info.height), Image.Resampling.BILINEAR))
        pixels[row_of[index]] = frame
    return pixels[[[row_of[index] for index in clip] for clip in clips]]


def decode_canvas(
    data: Buffer,
    clips: FrameIndices,
    size: int,
    *,
    info: VideoInfo,
    packets: PacketTable | None = None,
    colours: Colours = "original",
) -> torch.Tensor:
    """Return the frames `clips` of a video, resized and padded to a square canvas as `canvas.resize_pad` does it.

    Frames are turned upright as `info.orientation` states.

    Returns:
        (K, T, 3, S, S) uint8 RGB, channels last in memory; S is `size`.

    Raises:
        DecodeError: see `rgb_frames`.
    """
    canvas = empty_canvas(len(clips), len(clips[0]), size=size, frame=info.upright_size)
    if info.size_changes:
        canvas.zero_()  # Each size has its own padding.
    targets: dict[int, list[torch.Tensor]] = {}
    for k, clip in enumerate(clips):
        for t, index in enumerate(clip):
            targets.setdefault(index, []).append(canvas[k, t])
    frames = rgb_frames(data, targets, info=info, packets=packets, colours=colours)
    chunk_length = max(1, _BYTES_RESIZED_TOGETHER // (3 * info.height * info.width))
    while chunk := list(itertools.islice(frames, chunk_length)):
        for index, frame in chunk:
            first, *others = targets[index]
            resize_into(first, frame, orientation=info.orientation)
            for other in others:
                other.copy_(first)
        # Free these frames before the next ones are decoded, or twice the memory is needed.
        del chunk, frame
    return canvas


def rgb_frames(
    data: Buffer,
    wanted: Collection[int],
    *,
    info: VideoInfo,
    packets: PacketTable | None = None,
    colours: Colours = "original",
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (index, (h, w, 3) uint8 RGB) of every wanted frame, each once, in decoding order.

    Frames are given as they are coded: not turned upright, and each in its own size (h, w). Colours are converted with
    BT.601, of limited range unless the stream or its container states full range. Transparent pixels lie on white.

    Raises:
        DecodeError: an index out of range, an error before the last wanted frame, frames that are too large, or frames
            that differ from `info` because it belongs to another file.
    """
    for index in {0, *(change[0] for change in info.size_changes)}:
        check_pixels(*info.size_of(index)[::-1])
    if wanted and not 0 <= min(wanted) <= max(wanted) < len(info.pts):
        raise DecodeError(f"frames {min(wanted)} to {max(wanted)} are wanted, but only {len(info.pts)} frames decode")
    reformatter = VideoReformatter()  # Keeps its conversion tables from frame to frame.
    with closing(_frames(data, wanted, info=info, packets=packets)) as frames:
        for index, frame in frames:
            if (frame.height, frame.width) != info.size_of(index):
                raise _other_file(index)
            yield index, to_rgb(reformatter, frame, colours)


def _frames(
    data: Buffer, wanted: Collection[int], *, info: VideoInfo, packets: PacketTable | None
) -> Generator[tuple[int, VideoFrame], None, None]:
    """Yield the wanted frames through the packet table, and those that it does not give through the container."""
    missing = set(wanted)
    if packets is not None:
        try:
            for index, frame in decode_packets(data, packets, wanted):
                missing.discard(index)
                yield index, frame
        except ChangedBytesError:
            raise
        except DecodeError:
            # The bytes are right, so another version of FFmpeg made the table. The container decides.
            pass
    if missing:
        yield from _linear(data, missing, info=info)


def _linear(data: Buffer, wanted: Collection[int], *, info: VideoInfo) -> Iterator[tuple[int, VideoFrame]]:
    """Yield the wanted frames by decoding from the start; their times are compared with those of `info`."""
    missing = set(wanted)
    with open_video(bytes(data)) as video:
        for index, (time, frame) in enumerate(video.frames()):
            if index not in missing:
                continue
            if time != info.pts[index]:
                raise _other_file(index)
            yield index, frame
            missing.remove(index)
            if not missing:
                return
    if missing:
        raise DecodeError(f"frame {min(missing)} is wanted, but decoding ends before it")


def _other_file(index: int) -> DecodeError:
    return DecodeError(f"frame {index} is not the one that was probed: the stored information is of another file")


def to_rgb(reformatter: VideoReformatter, frame: VideoFrame, colours: Colours = "original") -> np.ndarray:
    """Return a frame's pixels, (h, w, 3) uint8 RGB, on white where they are transparent."""
    if colours == "dali" and frame.format.name in ("yuv420p", "yuvj420p") and not (frame.width | frame.height) & 1:
        # DALI assumes that a chroma sample lies in the middle of its four pixels. FFmpeg follows H.264 and HEVC
        # streams, which state another position. A frame made of the pixels alone states none, and FFmpeg then computes
        # as DALI does. `from_ndarray` accepts even sizes only.
        bare = VideoFrame.from_ndarray(frame.to_ndarray(), format=frame.format.name)
        bare.color_range = frame.color_range
        frame = bare
    form = "rgba" if has_alpha(frame.format.name) else "rgb24"
    converted = reformatter.reformat(frame, format=form, interpolation=_SCALER[colours], threads=1, **COLOURSPACE)
    pixels = converted.to_ndarray()
    # Writable, because torch warns about tensors of arrays that are not.
    return pixels if form == "rgb24" else np.array(on_white(Image.fromarray(pixels)))


@cache
def has_alpha(pixel_format: str) -> bool:
    """Return whether pixels of this FFmpeg format may be transparent."""
    described = VideoFormat(pixel_format)
    return described.has_palette or any(component.is_alpha for component in described.components)
