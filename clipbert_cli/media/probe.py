"""Probing a video file: its header values, and the times, size and packets of the frames that really decode.

A video is decoded once: through its packets alone if possible (`packet_scan.py`), and otherwise, or if anything is
unusual, through its container (`container.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from clipbert_cli.errors import DecodeError
from clipbert_cli.media.container import Video, open_video
from clipbert_cli.media.ffmpeg import check_pixels
from clipbert_cli.media.packet_scan import Scan, scan_packets
from clipbert_cli.media.packets import PacketTable
from clipbert_cli.types import VideoInfo


@dataclass(frozen=True, slots=True)
class ProbedVideo:
    """All facts that a store keeps about one video.

    Args:
        codec, container: FFmpeg's names.
        keyframes: indices of the key frames, in display order.
        packets: the packet table; None if the video can only be decoded through its container.
    """

    info: VideoInfo
    codec: str
    container: str
    keyframes: tuple[int, ...]
    packets: PacketTable | None = field(default=None, repr=False)


def probe_video(data: bytes) -> ProbedVideo:
    """Decode a video from its beginning to its end or to the first error, and return what was found.

    Raises:
        DecodeError: the file is not a video, no frame could be decoded, or frames are too large.
    """
    with open_video(data) as video:
        damage = ""
        scan = scan_packets(video, data)
        if scan is None:
            video.rewind()
            scan, damage = _decode_all(video)
        complete = not damage
        damage = damage or video.missing_end(scan.shown)
        shown = scan.shown
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
        codec, keyframes = stream.codec_context.name, tuple(shown.keyframes)
        return ProbedVideo(info, codec, video.container_format, keyframes, scan.table)


def _decode_all(video: Video) -> tuple[Scan, str]:
    """Decode through the container; return what was found, and the error that ended decoding early or ""."""
    damage = ""
    try:
        for _ in video.frames():
            pass
    except DecodeError as exc:
        if not video.shown.times:
            raise DecodeError(f"no frame could be decoded: {exc}") from exc
        damage = str(exc)
    if not video.shown.times:
        raise DecodeError("no frame could be decoded: the video stream is empty")
    return Scan(video.shown, None), damage
