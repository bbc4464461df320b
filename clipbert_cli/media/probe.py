"""What a video file says of itself and what really decodes: header values, presentation times, size, packets.

A video is decoded once, through its packet table where it can have one (see `packets.py`), otherwise, and wherever
anything is unusual, as `video.py` decodes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from clipbert_cli.errors import DecodeError
from clipbert_cli.media.container import Video, open_video
from clipbert_cli.media.ffmpeg import MAX_PIXELS, check_pixels
from clipbert_cli.media.packet_scan import Scan, scan_packets
from clipbert_cli.media.packets import PacketTable
from clipbert_cli.types import VideoInfo


@dataclass(frozen=True, slots=True)
class ProbedVideo:
    """`VideoInfo`, and what else pack keeps of a video: names as FFmpeg gives them, indices of the key frames, and
    the packets where they can be decoded without the container."""

    info: VideoInfo
    codec: str
    container: str
    keyframes: tuple[int, ...]
    packets: PacketTable | None = field(default=None, repr=False)


def probe_video(data: bytes) -> VideoInfo:
    """What sampling needs to know of a video. Decodes it once, from beginning to end or to the first error.

    Raises:
        DecodeError: not a video, or not even the first frame decodes.
    """
    return inspect_video(data).info


def inspect_video(data: bytes, *, max_pixels: int = MAX_PIXELS) -> ProbedVideo:
    """`probe_video`, and what else pack keeps.

    Raises:
        DecodeError: as `probe_video`, or frames of more than `max_pixels`.
    """
    with open_video(data, max_pixels=max_pixels) as video:
        scan = scan_packets(video, data, max_pixels=max_pixels)
        complete = True
        if scan is None:
            video.rewind()
            scan, complete = _decode_all(video)
        check_pixels(scan.width, scan.height, max_pixels)
        stream = video.stream
        info = VideoInfo(
            width=scan.width,
            height=scan.height,
            num_frames=stream.frames,
            duration=stream.duration,
            average_rate=stream.average_rate or None,
            time_base=stream.time_base or Fraction(1),
            pts=scan.times,
            complete=complete,
        )
        return ProbedVideo(info, stream.codec_context.name, video.container_format, scan.keyframes, scan.table)


def _decode_all(video: Video) -> tuple[Scan, bool]:
    """What decoding through the container shows, and whether it ends without an error."""
    times: list[int] = []
    keyframes: list[int] = []
    width = height = 0
    complete = True
    try:
        for time, frame in video.frames():
            if not times:
                width, height = frame.width, frame.height
            if frame.key_frame:
                keyframes.append(len(times))
            times.append(time)
    except DecodeError as exc:
        if not times:
            raise DecodeError(f"not one frame decodes: {exc}") from exc
        complete = False
    if not times:
        raise DecodeError("not one frame decodes: the video stream is empty")
    return Scan(width, height, tuple(times), tuple(keyframes), None), complete
