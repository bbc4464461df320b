"""Decides which decoded frames of a video are shown, in which size, and at what time."""

# Both ways of decoding a whole video ask `ShownFrames`: through the container (`container.py`) and through the packet
# table (`packet_scan.py`). A rule about frames or times is therefore changed here and nowhere else.

from __future__ import annotations

from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from clipbert_cli.errors import DecodeError

_FORWARD = {PictureType.P, PictureType.S}
_PREDICTED = _FORWARD | {PictureType.B}


class ShownFrames:
    """The frames of one video in display order, reported one after the other to `time_of`.

    Attributes:
        size: (height, width) in pixels of the frames so far; None before the first one.
    """

    def __init__(self, stream: VideoStream) -> None:
        self.size: tuple[int, int] | None = None
        self._step = frame_step(stream)
        self._time: int | None = None
        self._lost_first_frame = False

    def time_of(self, frame: VideoFrame, stated: int | None, *, discarded: bool = False) -> int | None:
        """Return the presentation time of the next decoded frame, or None if the frame is not shown.

        A frame without a time is shown one frame after the previous one. A time before the previous one becomes equal
        to it, so that times never decrease.

        Args:
            stated: the time that the file states, in units of the stream's time base.
            discarded: the container marks the frame's packet as outside of the edit list.

        Raises:
            DecodeError: the frame is corrupt, or its size differs from that of the frames before.
        """
        if frame.is_corrupt:
            raise DecodeError("FFmpeg reports a corrupt frame")
        if discarded:
            return None
        # MPEG-4 decoders output frames that were predicted from a lost first frame: nothing but grey and motion. After
        # such a frame, B frames before the first key frame are not shown either.
        kinds = _PREDICTED if self._lost_first_frame else _FORWARD
        if self._time is None and not frame.key_frame and frame.pict_type in kinds:
            self._lost_first_frame = True
            return None
        size = frame.height, frame.width
        if self.size not in (None, size):
            height, width = self.size
            raise DecodeError(f"the frame size changes from {width} x {height} to {frame.width} x {frame.height}")
        self.size = size
        if self._time is None:
            self._time = stated or 0
        else:
            self._time = max(self._time, self._time + self._step if stated is None else stated)
        return self._time


def frame_step(stream: VideoStream) -> int:
    """Return the duration of one frame at the average rate, in units of the stream's time base; at least 1."""
    if not stream.average_rate or not stream.time_base:
        return 1
    return max(1, round(1 / (stream.average_rate * stream.time_base)))
