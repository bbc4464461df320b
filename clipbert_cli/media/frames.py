"""Encoded media and a choice of frames -> pixels: PyAV for videos, Pillow for images.

A video with a packet table is decoded through it, in one pass over what the wanted frames need; any other one from its
start up to the last wanted frame. Both ways give the same pixels.

K clips, T frames, h w native size, S canvas side.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Generator, Iterator
from contextlib import closing

import numpy as np
import torch
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter

from clipbert_cli.errors import DecodeError
from clipbert_cli.media.backend import Colours
from clipbert_cli.media.canvas import check_aspect_ratio, empty_canvas, resize_into
from clipbert_cli.media.container import open_video
from clipbert_cli.media.ffmpeg import MAX_PIXELS, check_pixels
from clipbert_cli.media.images import decode_image
from clipbert_cli.media.packets import OtherBytesError, PacketTable, decode_packets
from clipbert_cli.media.probe import inspect_video
from clipbert_cli.media.sampling import ClipSampling, FrameIndices, select
from clipbert_cli.types import Kind, VideoInfo

# Every video is converted with BT.601 whatever its tags say, as the original's decoder did (and DALI does). The
# scaler's default arithmetic gives the original's pixels to the bit (golden/transforms, `video_raw_rgb`); interpolated
# chroma with exact rounding gives those of DALI on CPU, in nine times the time. They differ by one level on average,
# and by 24 at sharp coloured edges.
_SCALER: dict[Colours, int] = {
    "original": Interpolation.BILINEAR,
    "dali": Interpolation.BILINEAR | 0x2000 | 0x40000,  # SWS_FULL_CHR_H_INT, SWS_ACCURATE_RND
}
_COLOUR = {"src_colorspace": Colorspace.ITU601, "dst_colorspace": Colorspace.ITU601}

_BYTES_AT_ONCE = 2**24
"""RGB frames of so many bytes wait and are resized together: a third faster than one by one between decoding."""

Encoded = bytes | memoryview


def decode_clips(
    data: Encoded,
    sampling: ClipSampling,
    *,
    kind: Kind,
    info: VideoInfo | None = None,
    packets: PacketTable | None = None,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """The pixels of a media item's clips.

    Args:
        data: the media file's bytes.
        sampling: which clips of a video; an image is one clip of one frame, whatever it says.
        info, packets: of a video; probed where `info` is None, which decodes the video once more.
        rng: for random clips, see `sampling.select`.

    Returns:
        (K, T, h, w, 3) uint8 RGB in native size, see `decode_frames` and `decode_image`.

    Raises:
        DecodeError: the media item cannot give these frames; the message says why.
    """
    if kind == "image":
        return decode_image(data)[None, None]
    if info is None:
        probed = inspect_video(bytes(data))
        info, packets = probed.info, probed.packets
    check_aspect_ratio(info.height, info.width)
    return decode_frames(data, select(info, sampling, rng), info=info, packets=packets)


def decode_frames(
    data: Encoded, clips: FrameIndices, *, info: VideoInfo, packets: PacketTable | None = None
) -> np.ndarray:
    """The source frames `clips` of a video in native size. Each is decoded and converted once, however many clips
    want it.

    Args:
        clips: K tuples of T source frame indices, as `sampling.select` gives them.
        info: of this video.
        packets: the video's packet table, where it has one.

    Returns:
        (K, T, h, w, 3) uint8 RGB.

    Raises:
        DecodeError: see `rgb_frames`.
    """
    wanted = sorted({index for clip in clips for index in clip})
    pixels = np.empty((len(wanted), info.height, info.width, 3), dtype=np.uint8)
    slots = {index: slot for slot, index in enumerate(wanted)}
    for index, frame in rgb_frames(data, wanted, info=info, packets=packets):
        pixels[slots[index]] = frame
    return pixels[[[slots[index] for index in clip] for clip in clips]]


def decode_canvas(
    data: Encoded,
    clips: FrameIndices,
    size: int,
    *,
    info: VideoInfo,
    packets: PacketTable | None = None,
    max_pixels: int = MAX_PIXELS,
    colours: Colours = "original",
) -> torch.Tensor:
    """`decode_frames`, resized and padded to the square canvas as `transforms.resize_pad` does it.

    Returns:
        (K, T, 3, S, S) uint8 RGB, channels last in memory.

    Raises:
        DecodeError: see `rgb_frames`.
    """
    canvas = empty_canvas(len(clips), len(clips[0]), size=size, frame=(info.height, info.width))
    places: dict[int, list[torch.Tensor]] = {}
    for k, clip in enumerate(clips):
        for t, index in enumerate(clip):
            places.setdefault(index, []).append(canvas[k, t])
    frames = rgb_frames(data, places, info=info, packets=packets, max_pixels=max_pixels, colours=colours)
    at_once = max(1, _BYTES_AT_ONCE // (3 * info.height * info.width))
    while some := list(itertools.islice(frames, at_once)):
        for index, frame in some:
            first, *others = places[index]
            resize_into(first, frame)
            for other in others:
                other.copy_(first)
        del some, frame  # before the next ones come
    return canvas


def rgb_frames(
    data: Encoded,
    wanted: Collection[int],
    *,
    info: VideoInfo,
    packets: PacketTable | None = None,
    max_pixels: int = MAX_PIXELS,
    colours: Colours = "original",
) -> Iterator[tuple[int, np.ndarray]]:
    """(index, (h, w, 3) uint8 RGB) of every wanted frame, each once, in decoding order.

    Colours are converted with BT.601 (limited range unless the stream says full).

    Raises:
        DecodeError: an index out of range, an error before the last wanted frame, more than `max_pixels`, or frames
            that are not those of `info` (which then belongs to other bytes).
    """
    check_pixels(info.width, info.height, max_pixels)
    if wanted and not 0 <= min(wanted) <= max(wanted) < len(info.pts):
        raise DecodeError(f"frames {min(wanted)} to {max(wanted)} are wanted, and {len(info.pts)} frames decode")
    reformatter = VideoReformatter()  # keeps its conversion tables from frame to frame
    with closing(_frames(data, wanted, info=info, packets=packets, max_pixels=max_pixels)) as frames:
        for index, frame in frames:
            if (frame.height, frame.width) != (info.height, info.width):
                raise DecodeError(
                    f"frame {index} is not the one that was probed: the stored information is of other data"
                )
            yield index, _to_rgb(reformatter, frame, colours)


def _frames(
    data: Encoded, wanted: Collection[int], *, info: VideoInfo, packets: PacketTable | None, max_pixels: int
) -> Generator[tuple[int, VideoFrame], None, None]:
    """The wanted frames through the packet table; what it does not give (another FFmpeg packed it), the plain way."""
    left = set(wanted)
    if packets is not None:
        try:
            for index, frame in decode_packets(data, packets, wanted, max_pixels=max_pixels):
                left.discard(index)
                yield index, frame
        except OtherBytesError:
            raise
        except DecodeError:
            pass
    if left:
        yield from _linear(data, left, info=info, max_pixels=max_pixels)


def _linear(
    data: Encoded, wanted: Collection[int], *, info: VideoInfo, max_pixels: int
) -> Iterator[tuple[int, VideoFrame]]:
    """The wanted frames by decoding from the start; their times are compared with those of `info`."""
    left = set(wanted)
    with open_video(bytes(data), max_pixels=max_pixels) as video:
        for index, (time, frame) in enumerate(video.frames()):
            if index not in left:
                continue
            if time != info.pts[index]:
                raise DecodeError(
                    f"frame {index} is not the one that was probed: the stored information is of other data"
                )
            yield index, frame
            left.remove(index)
            if not left:
                return
    if left:
        raise DecodeError(f"frame {min(left)} is wanted, and decoding ends before it")


def _to_rgb(reformatter: VideoReformatter, frame: VideoFrame, colours: Colours) -> np.ndarray:
    """(h, w, 3) uint8."""
    if colours == "dali" and frame.format.name in ("yuv420p", "yuvj420p") and not (frame.width | frame.height) & 1:
        # DALI takes chroma to lie in the middle of its four pixels; FFmpeg would believe H.264 and HEVC, which say
        # otherwise. Frames made of their pixels alone (of even sides: `from_ndarray` takes no others) say nothing.
        bare = VideoFrame.from_ndarray(frame.to_ndarray(), format=frame.format.name)
        bare.color_range = frame.color_range
        frame = bare
    converted = reformatter.reformat(frame, format="rgb24", interpolation=_SCALER[colours], threads=1, **_COLOUR)
    return converted.to_ndarray()
