"""Tiny real media for tests. Every video frame shows its own index, as in golden/sampling."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition
from PIL import Image

from clipbert_cli.media.frames import decode_frames
from clipbert_cli.media.probe import probe_video
from clipbert_cli.media.sampling import ClipSampling, select
from clipbert_cli.types import VideoInfo

BITS = 12
BLOCK = 8
HEIGHT, WIDTH = 64, BITS * BLOCK


def marked_frame(index: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """(height, width, 3) uint8: a row of blocks that shows the index's bits, its complement below, then a pattern."""
    frame = np.full((height, width, 3), 128, np.uint8)
    frame[2 * BLOCK :, :, 0] = (np.arange(width) * 2 + index * 5) % 256
    for bit in range(BITS):
        column = slice(bit * BLOCK, (bit + 1) * BLOCK)
        frame[:BLOCK, column] = 255 * (index >> bit & 1)
        frame[BLOCK : 2 * BLOCK, column] = 255 * (1 - (index >> bit & 1))
    return frame


def read_index(frame: np.ndarray) -> int:
    """The index that a frame, (h, w, 3), carries."""
    grey = frame[..., 0].astype(int)
    centres = np.arange(BITS) * BLOCK + BLOCK // 2
    bits = grey[BLOCK // 2, centres] > grey[BLOCK + BLOCK // 2, centres]
    return int((bits << np.arange(BITS)).sum())


def info_of(data: bytes) -> VideoInfo:
    """The probed facts of a video file."""
    return probe_video(data).info


def clips_of(data: bytes, sampling: ClipSampling, rng: np.random.Generator | None = None) -> np.ndarray:
    """(K, T, h, w, 3) uint8, the sampled clips of a video file."""
    known = probe_video(data)
    return decode_frames(data, select(known.info, sampling, rng), info=known.info, packets=known.packets)


def video(
    frames: int = 30,
    *,
    container: str = "mp4",
    codec: str = "libx264",
    rate: Fraction | int = 30,
    height: int = HEIGHT,
    width: int = WIDTH,
    options: dict[str, str] | None = None,
    times: Sequence[int] | None = None,
    pix_fmt: str = "yuv420p",
) -> bytes:
    """A video file's bytes, the same ones every time; `times` are presentation times in frames of `rate`."""
    file = io.BytesIO()
    # Matroska files would have random identifiers.
    with av.open(file, "w", format=container, options={"fflags": "bitexact"}) as output:
        stream = output.add_stream(codec, rate=rate)
        stream.width, stream.height = width, height
        stream.pix_fmt = "rgb8" if codec == "gif" else pix_fmt
        if options is None:
            options = {"crf": "12", "g": "12", "bf": "2"} if codec == "libx264" else {}
        # x264 reads memory that it never wrote for its macroblock tree, so that files would differ from run to run.
        stream.options = {"mbtree": "0", **options} if codec == "libx264" else options
        stream.codec_context.time_base = 1 / Fraction(rate)
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(marked_frame(index, height, width), format="rgb24")
            frame.pts = index if times is None else times[index]
            frame.time_base = 1 / Fraction(rate)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return file.getvalue()


def vp8_with_hidden_frames() -> bytes:
    """A WebM file of 60 frames in 63 packets, 3 of them of frames that are only referred to, some the other way round.

    FFmpeg's libvpx writes such frames in two passes alone, which PyAV cannot ask for. Made of marked frames by libvpx
    1.12's `vpxenc --codec=vp8 -p 2 --good --cpu-used=1 --auto-alt-ref=1 --lag-in-frames=16 --arnr-maxframes=7
    --arnr-strength=5 --kf-max-dist=30 --target-bitrate=60 --token-parts=1`.
    """
    return (Path(__file__).parent / "media_files" / "vp8_hidden_frames.webm").read_bytes()


def sound(container: str = "mp4", *, cover: bytes | None = None) -> bytes:
    """An audio file's bytes, with a JPEG as cover art where given."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream("libmp3lame" if container == "mp3" else "aac", rate=16000)
        art = None
        if cover is not None:
            art = output.add_stream("mjpeg", rate=1)
            art.width, art.height, art.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
            art.disposition = Disposition.attached_pic.value
            packet = av.Packet(cover)
            packet.stream, packet.pts, packet.dts, packet.time_base = art, 0, 0, Fraction(1, 1)
            output.start_encoding()
            output.mux(packet)
        for index in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, index * 1024
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return file.getvalue()


def image(pixels: np.ndarray | Image.Image, form: str = "png", **options: object) -> bytes:
    """An image file's bytes."""
    file = io.BytesIO()
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(file, form, **options)
    return file.getvalue()
