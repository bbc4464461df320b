"""A video file held in memory, opened as a container and decoded from its start: the plain way, right for every file.

Source frames are counted in the order the decoder shows them. Frames of a damaged video count up to the first error:
an error, a packet or frame that FFmpeg itself calls corrupt, times that run far backwards (the halves of a file in
swapped order) and a change of the frame size all end the video there. Damage that FFmpeg does not report is not looked
for. Rotation marks are ignored, as the original ignores them.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from clipbert_cli.errors import DecodeError
from clipbert_cli.media.bitstream import NalFormat
from clipbert_cli.media.ffmpeg import MAX_PIXELS, check_pixels, reading_video, set_decoding

# Streams without a container: what does not begin with a start code is a piece of some other file.
_BARE = {"h264", "hevc", "m4v", "mpegvideo"}
_START_CODE = re.compile(rb"\x00\x00+\x01")

# Frames by which decoding times may step back: as many as decoders hold back to bring them into order. Writers that
# leave out a time (where it would lie before the file's first), and writers that state none, make FFmpeg guess wrongly.
_HELD_BACK = 16

_FORWARD = {PictureType.P, PictureType.S}
_PREDICTED = _FORWARD | {PictureType.B}

# A playlist must not make FFmpeg open other files or URLs.
_FORMAT_OPTIONS = {"protocol_whitelist": "none"}


@contextlib.contextmanager
def open_video(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Iterator[Video]:
    """A video file held in memory, ready to decode from its start.

    Raises:
        DecodeError: empty, not a video file, no video stream, or frames of more than `max_pixels`.
    """
    if not data:
        raise DecodeError("the file is empty")
    with Video(data, max_pixels=max_pixels) as video:
        yield video


class Video:
    """An open video stream; `stream` holds the header values."""

    def __init__(self, data: bytes, *, max_pixels: int = MAX_PIXELS) -> None:
        self._data = data
        self._max_pixels = max_pixels
        self._open()

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    @property
    def container_format(self) -> str:
        """FFmpeg's name of the container, e.g. `mov,mp4,m4a,3gp,3g2,mj2`."""
        return str(self._container.format.name)

    def frames(self) -> Iterator[tuple[int, VideoFrame]]:
        """(presentation time, frame) of every frame from the start, in the order they are shown.

        A missing time is one frame after the one before, and a time that runs backwards is the one before, so that
        times never decrease.

        Errors in the bitstream are not concealed: FFmpeg's default shows a guess in most cases. A stream that was cut
        off inside a group of pictures (a broadcast) cannot begin without error: what belongs to pictures before the
        cut is left out, and the first frame is the first one that is whole (of H.264 that begins with an open group,
        one of the first group that decodes without error).

        Raises:
            DecodeError: at the first error (see the module's docstring).
        """
        shown = False
        try:
            for timed in self._frames(self._all_frames()):
                shown = True
                yield timed
        except DecodeError:
            if shown:
                raise
        else:
            return
        self.rewind()
        lost = 0
        if self.stream.codec_context.name == "h264":
            lost = self._lost_groups()
            self.rewind()
        yield from self._frames(self._whole_frames(lost))

    def packets(self) -> Iterator[Packet]:
        """The stream's packets in decoding order, not decoded.

        Raises:
            DecodeError: at the first error of the container, and where a packet inside the stream is empty.
        """
        ended = False
        with reading_video():
            for packet in self._demux():
                if ended:
                    raise DecodeError("an empty packet stands inside the stream")
                if packet.size:
                    yield packet
                else:
                    ended = True  # the demuxer's mark of the end

    def rewind(self) -> None:
        """Back to the start, as if just opened."""
        self._container.close()
        self._open()

    def _open(self) -> None:
        with reading_video():
            self._container: InputContainer = av.open(
                io.BytesIO(self._data), mode="r", options=_FORMAT_OPTIONS, metadata_errors="replace"
            )
            try:
                if self.container_format in _BARE and not _START_CODE.match(self._data[:64]):
                    raise DecodeError("it begins in the middle: a piece of a file whose beginning is missing")
                self.stream = _video_stream(self._container, max_pixels=self._max_pixels)
            except BaseException:
                self._container.close()
                raise

    def _frames(self, decoded: Iterator[VideoFrame]) -> Iterator[tuple[int, VideoFrame]]:
        time, size, lost = None, None, False
        with reading_video():
            for frame in decoded:
                if frame.is_corrupt:
                    raise DecodeError("the decoder calls a frame corrupt")
                if time is None and not frame.key_frame and frame.pict_type in (_PREDICTED if lost else _FORWARD):
                    lost = True  # MPEG-4 shows what it predicts from a first frame that is lost
                    continue
                size = size or (frame.width, frame.height)
                if (frame.width, frame.height) != size:
                    raise DecodeError(
                        f"the frame size changes from {size[0]} x {size[1]} to {frame.width} x {frame.height}"
                    )
                time = next_time(time, frame.pts, frame_step(self.stream))
                yield time, frame

    def _demux(self) -> Iterator[Packet]:
        """The container's packets; the empty one that marks the end is the last.

        Raises:
            DecodeError: a packet is not as it was written, or times run backwards.
        """
        latest: int | None = None
        slack = _HELD_BACK * frame_step(self.stream)
        for packet in self._container.demux(self.stream):
            if packet.is_corrupt:
                raise DecodeError("the container says that a packet is damaged")
            if packet.dts is not None:
                if latest is not None and packet.dts < latest - slack:
                    raise DecodeError("times run backwards")
                latest = packet.dts if latest is None else max(latest, packet.dts)
            yield packet

    def _all_frames(self) -> Iterator[VideoFrame]:
        for packet in self._demux():
            yield from packet.decode()

    def _lost_groups(self) -> int:
        """How many groups of pictures do not decode in H.264 that begins inside one, before the first that does.

        After an open group's first picture another may end the use of pictures that lie before the cut, and FFmpeg
        calls it an error that they are not there. The next group ends the use of what is here.
        """
        nal_format = NalFormat.of("h264", self.stream.codec_context.extradata or b"")
        assert nal_format is not None
        groups, start, is_whole = 0, None, False
        with contextlib.suppress(DecodeError), reading_video():
            for packet in self._demux():
                if packet.is_keyframe:
                    picture = nal_format.picture(bytes(packet))
                    if is_whole or picture is None or picture.is_idr:
                        return groups - is_whole
                    groups, start, is_whole = groups + 1, packet.pts, True
                if groups:
                    try:
                        is_good = not any(frame.is_corrupt for frame in packet.decode())
                    except av.InvalidDataError:
                        is_good = False
                    is_whole = is_whole and (is_good or _is_before(packet, start))
        return groups - 1 if is_whole else 0

    def _whole_frames(self, lost: int) -> Iterator[VideoFrame]:
        """Frames from the first key frame on after `lost` groups of pictures, without those that are decoded after it
        and shown before it."""
        groups, start, begun = 0, None, not lost
        for packet in self._demux():
            groups += packet.is_keyframe
            if packet.is_keyframe and groups == lost + 1:
                start = packet.pts
            if not groups:
                continue
            try:
                for frame in packet.decode():
                    if groups > lost:  # a lost group's last frames come later than its packets
                        begun = begun or (frame.key_frame if start is None else not _is_before(frame, start))
                    if begun:
                        yield frame
            except av.InvalidDataError:
                if groups > lost and not _is_before(packet, start):
                    raise


def _is_before(item: Packet | VideoFrame, start: int | None) -> bool:
    """Whether it is shown before this time; False where one of them is not known."""
    return start is not None and item.pts is not None and item.pts < start


def _video_stream(container: InputContainer, *, max_pixels: int) -> VideoStream:
    name = container.format.name
    if name.endswith("_pipe") or name == "image2":
        raise DecodeError("it is a picture, not a video")
    # Cover art of an audio file is no video.
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        kinds = sorted({s.type for s in container.streams if s.type not in ("video", "unknown")})
        raise DecodeError(f"it has no video stream (only {', '.join(kinds)})" if kinds else "it has no video stream")
    stream = streams[0]
    context = stream.codec_context
    if context is None:
        raise DecodeError("FFmpeg here has no decoder for its video stream")
    check_pixels(context.width, context.height, max_pixels)
    set_decoding(context, max_pixels=max_pixels)
    return stream


def next_time(before: int | None, stated: int | None, step: int) -> int:
    """The presentation time of a frame, given the frame's before it (None: it is the first) and its own stated one."""
    if before is None:
        return stated or 0
    return max(before, before + step if stated is None else stated)


def frame_step(stream: VideoStream) -> int:
    """One frame at the average rate, in units of the time base; at least 1."""
    if not stream.average_rate or not stream.time_base:
        return 1
    return max(1, round(1 / (stream.average_rate * stream.time_base)))
