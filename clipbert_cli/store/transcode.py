"""Re-encoding videos, with loss, so that sampling is cheap: smaller frames, short groups of pictures, no B-frames."""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction

import av
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from clipbert_cli.errors import DecodeError
from clipbert_cli.media.container import display_matrix, open_video
from clipbert_cli.media.frames import COLOURSPACE, has_alpha, to_rgb

_TIME_BASE = Fraction(1, 90_000)
"""The clock of MPEG: the usual frame rates are whole numbers of its ticks, or nearly so."""


@dataclass(frozen=True, slots=True)
class Transcode:
    """Settings of the re-encoded videos, which are H.264 in MP4 without sound.

    Args:
        long_side: limit of the longer side in pixels; frames below it keep their size.
        gop: number of frames from one key frame to the next.
        crf: quality of x264, 0 to 51; a smaller value is a better picture and a larger file.
    """

    long_side: int = 448
    gop: int = 16
    crf: int = 23

    def __post_init__(self) -> None:
        if not (16 <= self.long_side <= 16_384 and 1 <= self.gop <= 10_000 and 0 <= self.crf <= 51):
            raise ValueError(f"{self}: long_side must be 16 to 16384, gop 1 to 10000 and crf 0 to 51")


def transcode_video(data: bytes, settings: Transcode) -> bytes:
    """Return the re-encoded video.

    Its frames keep their times, counted from the first one, and their orientation. Colours are those that decoding the
    source gives: of any source they become BT.601 of limited range, and transparent pixels lie on white. Frames of
    another size than the first one are scaled.

    Raises:
        DecodeError: the video does not decode to its end. The new file would decode without an error, so that nobody
            would notice later that its end is missing.
    """
    file = io.BytesIO()
    with open_video(data) as video, av.open(file, "w", format="mp4") as output:
        time_base = video.stream.time_base or Fraction(1)
        stream = None
        before = -1
        reformatter = VideoReformatter()
        for time, frame in video.frames():
            if stream is None:
                start = time
                stream = output.add_stream("libx264", rate=video.stream.average_rate or 25)
                stream.width, stream.height = _even_size(frame.width, frame.height, settings.long_side)
                stream.pix_fmt = "yuv420p"
                # Written into the stream, so that other programs show the right colours, too.
                stream.codec_context.color_range = ColorRange.MPEG
                stream.codec_context.colorspace = Colorspace.ITU601
                stream.set_display_matrix(display_matrix(frame))
                stream.codec_context.time_base = stream.time_base = _TIME_BASE
                # Packing has one process per core already.
                stream.codec_context.thread_count = 1
                # `fastdecode` leaves out CABAC, deblocking and weighted prediction: files are a quarter larger, clips
                # are decoded 1.7 times as fast, and pictures are nearly as close to the source (0.2 to 0.4 dB less).
                # No scene cuts, so that key frames are exactly `gop` frames apart; no B-frames, so that the frame that
                # a packet shows does not wait for a later packet. No macroblock tree: x264 reads memory there that it
                # never wrote, so that the same video would not always become the same bytes. Without the tree, a `crf`
                # of 23 gives the size of 20 with it, and pictures that are as close to the source or closer.
                stream.options = {
                    "crf": str(settings.crf),
                    "g": str(settings.gop),
                    "keyint_min": str(settings.gop),
                    "sc_threshold": "0",
                    "bf": "0",
                    "tune": "fastdecode",
                    "x264-params": "mbtree=0",
                }
            if has_alpha(frame.format.name):
                frame = VideoFrame.from_ndarray(to_rgb(reformatter, frame), format="rgb24")
            scaled = reformatter.reformat(
                frame,
                stream.width,
                stream.height,
                "yuv420p",
                interpolation="BILINEAR",
                dst_color_range="MPEG",
                threads=1,
                **COLOURSPACE,
            )
            # A decoded frame has the picture type of the source, and the encoder would repeat its key frames.
            scaled.time_base, scaled.pict_type = _TIME_BASE, PictureType.NONE
            # The encoder refuses times that do not increase; two frames of a source may round to the same tick.
            before = scaled.pts = max(before + 1, round((time - start) * time_base / _TIME_BASE))
            output.mux(stream.encode(scaled))
        if stream is None:
            raise DecodeError("no frame could be decoded: the video stream is empty")
        output.mux(stream.encode())
    return file.getvalue()


def _even_size(width: int, height: int, long_side: int) -> tuple[int, int]:
    """Return the (width, height) of the new video: at most `long_side`, and even, as 4:2:0 requires."""
    scale = min(1.0, long_side / max(width, height))
    return max(2, int(width * scale) // 2 * 2), max(2, int(height * scale) // 2 * 2)
