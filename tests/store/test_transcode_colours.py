"""Transcoding keeps the colours that decoding the source gives, and gives the same bytes again."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from made_media import HEIGHT, WIDTH
from running import under_other_memory

from clipbert_cli.media.frames import rgb_frames
from clipbert_cli.media.probe import probe_video
from clipbert_cli.store.ingest import Transcode, transcode_video


def smooth(codec: str, container: str, pix_fmt: str, *, tags: tuple[int, int] | None = None) -> bytes:
    """A video of smooth colours from dark to bright; `tags` are its colour range and matrix as FFmpeg numbers them."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    pixels = np.stack([x * 255 // (WIDTH - 1), y * 255 // (HEIGHT - 1), 255 - x * 2], axis=-1).astype(np.uint8)
    if pix_fmt in ("rgba", "yuva444p10le"):
        pixels = np.dstack([pixels, np.where(x < WIDTH // 2, 255, 0).astype(np.uint8)])
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pix_fmt
        stream.options = {"crf": "5"} if codec.startswith("libx26") else {}
        if tags:
            stream.codec_context.color_range, stream.codec_context.colorspace = tags
        for index in range(4):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgba" if pixels.shape[2] == 4 else "rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return file.getvalue()


@pytest.mark.parametrize(
    ("codec", "container", "pix_fmt", "tags"),
    [
        ("libx264", "mp4", "yuvj420p", (2, 5)),
        ("mjpeg", "avi", "yuvj422p", None),
        ("libx264rgb", "mp4", "rgb24", None),
        ("ffv1", "matroska", "bgr0", None),
        ("libx264", "mp4", "yuv420p", (1, 1)),
        ("libx264", "mp4", "yuv444p10le", None),
        ("mpeg4", "matroska", "yuv420p", (2, 5)),
        ("png", "mov", "rgba", None),
        ("prores_ks", "mov", "yuva444p10le", None),
    ],
)
def test_colours_stay(codec: str, container: str, pix_fmt: str, tags: tuple[int, int] | None) -> None:
    source = smooth(codec, container, pix_fmt, tags=tags)
    copy = transcode_video(source, Transcode(long_side=WIDTH, crf=5))
    before, after = (
        np.stack([frame.astype(int) for _, frame in sorted(rgb_frames(data, range(4), info=probe_video(data).info))])
        for data in (source, copy)
    )
    # At the edge of transparency, chroma of half the resolution cannot be kept.
    inside = np.ones(WIDTH, bool)
    inside[WIDTH // 2 - 4 : WIDTH // 2 + 4] = False
    assert np.abs(after - before)[:, :, inside].mean() < 2


@pytest.mark.parametrize(("width", "height", "gop"), [(320, 200, 16), (320, 360, 250), (200, 328, 8)])
def test_a_video_becomes_the_same_bytes_whatever_is_in_memory(width: int, height: int, gop: int) -> None:
    """None of these heights is a multiple of 8 rows of macroblocks, where x264's tree of macroblocks reads too far."""
    printed = under_other_memory(
        "import zlib; from clipbert_cli.store.ingest import Transcode, transcode_video\n"
        "import sys; sys.path.insert(0, 'tests'); from made_media import video\n"
        f"source = video(40, width={width}, height={height}, codec='mpeg4')\n"
        f"print(zlib.crc32(source), zlib.crc32(transcode_video(source, Transcode(long_side=360, gop={gop}))))"
    )
    assert printed[0] == printed[1]
