"""Decides which decoded frames of a video are shown, in which size, and at what time."""

# Both ways of decoding a whole video ask `ShownFrames`: through the container (`container.py`) and through the packet
# table (`probe.py`). A rule about frames or times is therefore changed here and nowhere else.

from __future__ import annotations

from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from clipbert_cli.errors import DecodeError

_FORWARD = {PictureType.P, PictureType.S}
_PREDICTED = _FORWARD | {PictureType.B}


class ShownFrames:
    """The frames of one video in display order, reported one after the other to `add`.

    Attributes:
        times: presentation time of each shown frame, in units of the stream's time base; never decreasing.
        size: (height, width) in pixels of the first frame; None before it.
        size_changes: (frame, height, width) of each frame whose size differs from that of the frame before it.
    """

    def __init__(self, stream: VideoStream) -> None:
        self.times: list[int] = []
        self.size: tuple[int, int] | None = None
        self.size_changes: list[tuple[int, int, int]] = []
        self._latest_size: tuple[int, int] | None = None
        self._step = frame_step(stream)
        self._lost_first_frame = False
        self._begins_hidden = False

    def hide(self) -> None:
        """Report a frame outside of the edit list: it is decoded because others refer to it, but it is not shown.

        Such frames lie before the cut of a video that was cut without being encoded again.
        """
        self._begins_hidden |= not self.times

    def add(self, frame: VideoFrame, stated: int | None) -> int | None:
        """Return the presentation time of the next decoded frame, or None if the frame is not shown.

        A frame without a time is shown one frame after the previous one. A time before the previous one becomes equal
        to it, so that times never decrease.

        Args:
            stated: the time that the file states, in units of the stream's time base.

        Raises:
            DecodeError: the frame is corrupt.
        """
        if frame.is_corrupt:
            raise DecodeError("FFmpeg reports a corrupt frame")
        # MPEG-4 decoders output frames that were predicted from a lost first frame: nothing but grey and motion. After
        # such a frame, B frames before the first key frame are not shown either. After hidden frames the first shown
        # frame is usually a predicted one, and nothing is lost.
        kinds = _PREDICTED if self._lost_first_frame else _FORWARD
        at_start = not self.times and not self._begins_hidden
        if at_start and not frame.key_frame and frame.pict_type in kinds:
            self._lost_first_frame = True
            return None
        size = frame.height, frame.width
        if self.size is None:
            self.size = size
        elif size != self._latest_size:
            self.size_changes.append((len(self.times), *size))
        self._latest_size = size
        if not self.times:
            time = stated or 0
        else:
            time = max(self.times[-1], self.times[-1] + self._step if stated is None else stated)
        self.times.append(time)
        return time


def frame_step(stream: VideoStream) -> int:
    """Return the duration of one frame at the average rate, in units of the stream's time base; at least 1."""
    if not stream.average_rate or not stream.time_base:
        return 1
    return max(1, round(1 / (stream.average_rate * stream.time_base)))
