"""A video file in memory, opened as a container and decoded from its start: slow, but right for every file.

Frames are numbered in display order. A damaged video ends at the first error: an error that FFmpeg reports, or a packet
or frame that FFmpeg marks as corrupt. Damage that FFmpeg does not report is not detected here; once a file is packed,
checksums detect it. Frames are given as they are coded: not turned upright, and each in its own size.
"""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Iterator
from typing import cast

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from clipbert_cli.errors import DecodeError
from clipbert_cli.media.ffmpeg import (
    check_pixels,
    configure_decoder,
    create_decoder,
    decode_errors,
    looks_like,
    report_frame,
)
from clipbert_cli.media.shown_frames import ShownFrames, frame_step

# Their packets have no times of their own.
_FORMATS_WITHOUT_TIMES = {"h264", "hevc", "m4v", "mpegvideo", "avi"}

# FFmpeg marks the packet that its parser is at when a jump of the counters is found: one or two before the join.
_MAX_PACKETS_BEFORE_JOIN = 2

# Decoders that also decode the transparency that WebM keeps beside each packet.
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}

# Other containers state no duration of their own, and FFmpeg computes one from the last packets.
_FORMATS_WITH_DURATION = {"matroska,webm", "flv"}

_FORMATS = """
    mov matroska avi gif mpeg mpegts mpegvideo flv live_flv asf ogg rm dv mxf nut yuv4mpegpipe h264 hevc m4v wtv ivf
    mjpeg mpjpeg mp3 aac wav flac jpeg_pipe png_pipe webp_pipe
"""
"""FFmpeg's names of the formats behind the endings of videos in `types.py`, and of those that messages tell apart."""

# A playlist from a stranger must not make FFmpeg open other files or URLs. FFmpeg has some 300 more formats; each that
# nobody uses is one more parser for hostile files.
_FORMAT_OPTIONS = {"protocol_whitelist": "none", "format_whitelist": ",".join(_FORMATS.split())}


def open_video(data: bytes) -> Video:
    """Open a video file that is held in memory. The result is a context manager that closes it.

    Raises:
        DecodeError: the file is empty, is not a video, or its frames are too large.
    """
    if not data:
        raise DecodeError("the file is empty")
    try:
        return Video(data)
    except DecodeError as exc:
        raise DecodeError(f"{exc}{looks_like(data)}", hint=exc.hint) from exc


class Video:
    """An open video file.

    Attributes:
        stream: the video stream, with the header values.
        shown: the frames that `frames` has given so far.
        packets_read: number of packets that were read since the video was opened or rewound.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._open()

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    @property
    def container_format(self) -> str:
        """FFmpeg's name of the container, such as `mov,mp4,m4a,3gp,3g2,mj2`."""
        return str(self._container.format.name)

    @property
    def has_alpha(self) -> bool:
        """True if the container keeps transparency beside the video's packets, as WebM does for VP8 and VP9."""
        return self.stream.codec_context.name in _ALPHA_DECODERS and self.stream.metadata.get("alpha_mode") == "1"

    def missing_end(self, shown: ShownFrames) -> str:
        """Return what the header states that the file does not have, "" if nothing; all packets must have been read.

        Containers without an index, such as AVI, end without an error wherever they are cut off.
        """
        stated = self.stream.frames
        if 0 < self.packets_read < stated:
            return f"the file is cut off: its header states {stated} frames, but it has {self.packets_read}"
        seconds = (self._container.duration or 0) / av.time_base
        if stated or self.container_format not in _FORMATS_WITH_DURATION or not shown.times:
            return ""
        lasted = float((shown.times[-1] + frame_step(self.stream) - shown.times[0]) * (self.stream.time_base or 1))
        # The duration is that of the longest stream. Sound may be longer than the video.
        lasted = max(lasted, self._sound_end - (self._container.start_time or 0) / av.time_base)
        if seconds - lasted <= max(0.5, seconds / 20):
            return ""
        return f"the file is cut off: its header states {seconds:.1f} seconds, but it lasts {lasted:.1f}"

    def orientation(self) -> int:
        """Return the EXIF orientation that the first frame states, 1 if it states none; see `VideoInfo`.

        The video is rewound before and after.
        """
        self.rewind()
        orientation = 1
        with contextlib.suppress(DecodeError):
            for _, frame in self.frames():
                orientation = _orientation(frame)
                break
        self.rewind()
        return orientation

    def frames(self) -> Iterator[tuple[int, VideoFrame]]:
        """Yield (presentation time, frame) of every frame from the start, in display order; see `ShownFrames`.

        A stream that was cut out of a longer one, such as a recorded broadcast, begins with pictures that refer to
        missing ones. Those are left out, and the first frame is the first one that decodes without an error.

        Raises:
            DecodeError: at the first error (see the module's docstring).
        """
        any_shown = False
        try:
            for timed_frame in self._shown(self._all_frames()):
                any_shown = True
                yield timed_frame
        except DecodeError:
            if any_shown:
                raise
        else:
            return
        # Nothing decodes from the very start: try again from the first key frame whose group is complete.
        self.rewind()
        broken_groups = self._count_broken_groups()
        self.rewind()
        yield from self._shown(self._frames_after(broken_groups))

    def packets(self) -> Iterator[Packet]:
        """Yield the stream's packets in decoding order, not decoded.

        Raises:
            DecodeError: at the first error of the container, and if a packet before the end is empty.
        """
        ended = False
        with decode_errors():
            for packet in self._demux():
                if ended:
                    raise DecodeError("an empty packet lies inside the stream")
                if packet.size:
                    yield packet
                else:
                    ended = True  # The demuxer marks the end with an empty packet.

    def rewind(self) -> None:
        """Return to the start, as if the file had just been opened."""
        self._container.close()
        self._open()

    def _open(self) -> None:
        with decode_errors():
            try:
                self._container: InputContainer = av.open(
                    io.BytesIO(self._data), mode="r", options=_FORMAT_OPTIONS, metadata_errors="replace"
                )
            except av.ArgumentError as exc:
                raise DecodeError("FFmpeg cannot read it: its format is none of those of videos") from exc
            try:
                self.stream = _video_stream(self._container)
                self.shown = ShownFrames(self.stream)
                self.packets_read = 0
                self._sound_end = 0.0  # seconds
                self._kept: set[int] = set()  # times of the frames that are in the decoder
                self._decoder = self.stream.codec_context
                if self.has_alpha:
                    # FFmpeg's own decoders ignore the transparency.
                    self._decoder = create_decoder(_ALPHA_DECODERS[self._decoder.name])
            except BaseException:
                self._container.close()
                raise

    def _shown(self, decoded: Iterator[VideoFrame]) -> Iterator[tuple[int, VideoFrame]]:
        self.shown = ShownFrames(self.stream)
        with decode_errors():
            for frame in decoded:
                report_frame(frame.width * frame.height)
                time = self.shown.add(frame, frame.pts)
                if time is not None:
                    yield time, frame

    def _demux(self) -> Iterator[Packet]:
        """Yield the container's packets; the last one is empty and marks the end."""
        held: list[Packet] = []  # a packet that FFmpeg marks as corrupt, and those after it
        sound = self._container.streams.audio if self.container_format in _FORMATS_WITH_DURATION else ()
        for packet in self._container.demux(self.stream, *sound):
            if packet.stream.index != self.stream.index:
                if packet.pts is not None and packet.time_base:
                    self._sound_end = max(
                        self._sound_end, float((packet.pts + (packet.duration or 0)) * packet.time_base)
                    )
                continue
            # The last packet marks the end and has neither data nor a time.
            self.packets_read += bool(packet.size) or packet.dts is not None
            if packet.is_discard:
                self.shown.hide()
            if packet.is_corrupt or (held and not packet.is_keyframe):
                # Where transport streams were joined, packet counters jump, and FFmpeg marks one of the last packets
                # before that place as corrupt although no byte of it is missing. A key frame follows.
                held.append(packet)
                if len(held) > _MAX_PACKETS_BEFORE_JOIN or not packet.size:
                    raise DecodeError("FFmpeg reports a corrupt packet")
                continue
            yield from held
            held = []
            yield packet

    def _all_frames(self) -> Iterator[VideoFrame]:
        failed: Packet | None = None
        try:
            for packet in self._demux():
                failed = packet
                try:
                    # FFmpeg does not return the frames of packets outside of the edit list.
                    yield from self._decode(packet)
                except av.InvalidDataError:
                    if not packet.is_discard:
                        raise
                failed = None
        except (DecodeError, av.FFmpegError):
            # Before the first shown frame, `frames` tries another way to begin.
            if self.shown.times:
                yield from self._waiting_frames(failed)
            raise

    def _decode(self, packet: Packet) -> Iterator[VideoFrame]:
        """Yield the frames that the decoder gives out for a packet, and note which ones it keeps."""
        if packet.pts is not None and not packet.is_discard:
            self._kept.add(packet.pts)
        for frame in self._decoder.decode(packet):
            self._kept -= {frame.pts}
            yield frame

    def _waiting_frames(self, failed: Packet | None) -> Iterator[VideoFrame]:
        """Yield the frames that wait in the decoder for their turn in display order when an error ends decoding.

        Args:
            failed: the packet that could not be decoded, None if the error is the container's.
        """
        if failed is not None and (failed.pts is None or self.container_format in _FORMATS_WITHOUT_TIMES):
            return  # It is not known which of them are shown before the failed packet's frame.
        with contextlib.suppress(av.FFmpegError):
            for frame in self._decoder.decode(None):
                # The picture of the failed packet may be among them, with some of its pixels missing.
                if frame.is_corrupt or (failed is not None and not _is_before(frame, failed.pts)):
                    return
                # FFmpeg loses the frame that it was about to give out when it met the error. Without it the frames
                # after it would take its place.
                due = min(
                    (time for time in self._kept if not self.shown.times or time > self.shown.times[-1]), default=None
                )
                if failed is not None and frame.pts != due:
                    return
                yield frame

    def _count_broken_groups(self) -> int:
        """Return how many groups of pictures of a cut stream fail to decode before the first one that does."""
        # In the first, open group a picture may tell the decoder to forget pictures that lie before the cut. FFmpeg
        # reports an error because it never had them. The next group refers to pictures that are present.
        groups, start, decodes = 0, None, False
        with contextlib.suppress(DecodeError), decode_errors():
            for packet in self._demux():
                if packet.is_keyframe:
                    if decodes:
                        break
                    groups, start, decodes = groups + 1, packet.pts, True
                if groups:
                    try:
                        decoded = self._decoder.decode(packet)
                        packet_decodes = not any(frame.is_corrupt for frame in decoded)
                    except av.InvalidDataError:
                        packet_decodes = False
                    decodes = decodes and (packet_decodes or _is_before(packet, start))
        return groups - 1 if decodes else 0

    def _frames_after(self, broken_groups: int) -> Iterator[VideoFrame]:
        """Yield frames from the key frame that follows `broken_groups` groups of pictures."""
        # Frames that are decoded after this key frame but shown before it refer to missing pictures and are left out.
        groups, start, begun = 0, None, not broken_groups
        failed: Packet | None = None
        try:
            for packet in self._demux():
                groups += packet.is_keyframe
                if packet.is_keyframe and groups == broken_groups + 1:
                    start = packet.pts
                if not groups:
                    continue
                failed = packet
                try:
                    for frame in self._decode(packet):
                        # The decoder outputs the last frames of a broken group after the next group's first packets.
                        if groups > broken_groups:
                            begun = begun or (frame.key_frame if start is None else not _is_before(frame, start))
                        if begun:
                            yield frame
                except av.InvalidDataError:
                    if groups > broken_groups and not _is_before(packet, start) and not packet.is_discard:
                        raise
                failed = None
        except (DecodeError, av.FFmpegError):
            if begun:
                yield from self._waiting_frames(failed)
            raise


def display_matrix(frame: VideoFrame) -> tuple[int, ...]:
    """Return the 9 numbers of a frame's display matrix; those of an upright frame if it has none."""
    found = frame.side_data.get("DISPLAYMATRIX")
    if found is None:
        return 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30
    return struct.unpack("=9i", memoryview(cast(bytes, found)))


def _orientation(frame: VideoFrame) -> int:
    """Return the EXIF orientation of a frame's display matrix; the nearest one for other angles.

    The matrix moves the pixel (x, y) to (a x + c y, b x + d y) with a, b, c, d in its first two rows, as fixed point
    numbers (ISO/IEC 14496-12, 8.3.2).
    """
    a, b, _, c, d, *_ = display_matrix(frame)
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return {(False, False): 1, (True, False): 2, (True, True): 3, (False, True): 4}[a < 0, d < 0]
    return {(False, False): 5, (False, True): 6, (True, True): 7, (True, False): 8}[b < 0, c < 0]


def _is_before(item: Packet | VideoFrame, start: int | None) -> bool:
    """Return whether a packet or frame is shown before the time `start`; False if one of the times is unknown."""
    return start is not None and item.pts is not None and item.pts < start


def _video_stream(container: InputContainer) -> VideoStream:
    """Return the video stream that FFmpeg's commands choose, its decoder configured.

    This is the largest of the streams that are marked as the default, or of all if none is. Cover art is never chosen,
    and a still picture, which some writers store as a video of one frame, only where there is nothing else.
    """
    name = container.format.name
    if name.endswith("_pipe") or name == "image2":
        raise DecodeError("it is a picture, not a video")
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        kinds = sorted({s.type for s in container.streams if s.type not in ("video", "unknown")})
        raise DecodeError(f"it has no video stream (only {', '.join(kinds)})" if kinds else "it has no video stream")
    # A stream whose codec the installed FFmpeg does not know has no context.
    known = [stream for stream in streams if stream.codec_context is not None]
    if not known:
        raise DecodeError("the installed FFmpeg has no decoder for its video stream")
    # `max` takes the first of equal streams, as FFmpeg does.
    stream = max(
        known,
        key=lambda each: (each.frames != 1, bool(each.disposition & Disposition.default), each.width * each.height),
    )
    context = stream.codec_context
    check_pixels(context.width, context.height)
    report_frame(context.width * context.height)
    configure_decoder(context)
    return stream
