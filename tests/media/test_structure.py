"""Damage that FFmpeg passes over is found, and files that are odd but whole are not called damaged."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from made_media import marked_frame, read_index, video
from PIL import Image

from clipbert_cli.media.bitstream import NalFormat, has_lost_bytes
from clipbert_cli.media.container import open_video
from clipbert_cli.media.frames import decode_frames
from clipbert_cli.media.probe import inspect_video
from clipbert_cli.media.structure import first_damage

FRAMES = 48
MATROSKA, FLV, GIF = "matroska,webm", "flv", "gif"

CONTAINERS: dict[str, dict[str, Any]] = {
    MATROSKA: {"container": "webm", "codec": "libvpx", "options": {"g": "12", "cpu-used": "8"}},
    FLV: {"container": "flv"},
    GIF: {"container": "gif", "codec": "gif"},
}


def with_sound(container: str, codec: str, sound: str, **options: str) -> bytes:
    """A video with sound, whose packets lie between the pictures'; `options` are the container's."""
    file = io.BytesIO()
    with av.open(file, "w", format=container, options=options) as output:
        pictures, tones = output.add_stream(codec, rate=25), output.add_stream(sound, rate=48000)
        pictures.width, pictures.height, pictures.pix_fmt = 96, 64, "yuv420p"
        pictures.options = {"g": "12", "cpu-used": "8"} if "vpx" in codec else {"g": "12"}
        tones.layout = "mono"
        for index in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(marked_frame(index), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            output.mux(pictures.encode(frame))
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 1920), np.float32), format="fltp", layout="mono")
            samples.sample_rate, samples.pts, samples.time_base = 48000, 1920 * index, Fraction(1, 48000)
            output.mux(tones.encode(samples))
        output.mux(pictures.encode())
        output.mux(tones.encode())
    return file.getvalue()


def turning_gif() -> bytes:
    """By another writer, with a palette for each frame and what is transparent."""
    pictures = [Image.fromarray(marked_frame(index)).quantize(16 + index) for index in range(6)]
    file = io.BytesIO()
    pictures[0].save(file, "gif", save_all=True, append_images=pictures[1:], loop=0, duration=40, comment=b"whole")
    return file.getvalue()


WHOLE: dict[str, tuple[str, Any]] = {
    **{name: (name, lambda name=name: video(FRAMES, **CONTAINERS[name])) for name in CONTAINERS},
    "mkv": (MATROSKA, lambda: video(FRAMES, container="matroska")),
    "webm with sound": (MATROSKA, lambda: with_sound("webm", "libvpx", "libopus")),
    "mkv with sound": (MATROSKA, lambda: with_sound("matroska", "libx264", "aac")),
    "live webm": (MATROSKA, lambda: with_sound("webm", "libvpx", "libopus", live="1")),
    "small clusters": (MATROSKA, lambda: with_sound("matroska", "libx264", "aac", cluster_time_limit="100")),
    "flv with sound": (FLV, lambda: with_sound("flv", "libx264", "aac")),
    "pillow's gif": (GIF, turning_gif),
}


@pytest.mark.parametrize("name", WHOLE)
def test_whole_files_are_whole_and_so_is_what_is_left_of_them(name: str) -> None:
    container, make = WHOLE[name]
    data = make()
    assert first_damage(data, container) is None
    assert inspect_video(data).info.complete
    for size in range(0, len(data), 1 + len(data) // 97):
        assert first_damage(data[:size], container) is None


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_hole_in_a_container_is_found_where_it_is(name: str) -> None:
    data = video(FRAMES, **CONTAINERS[name])
    with open_video(data) as opened:
        packets = list(opened.packets())
    for number in (20, 30):
        place = packets[number].pos
        holed = data[: place - 20] + bytes(40) + data[place + 20 :]
        found = first_damage(holed, name)
        assert found is not None
        assert packets[number - 1].pos - 20 <= found <= place + packets[number].size + 20
        info = inspect_video(holed).info
        frames = decode_frames(holed, (tuple(range(len(info.pts))),), info=info)[0]
        assert [read_index(frame) for frame in frames] == list(range(len(info.pts)))
        assert not info.complete
        assert len(info.pts) <= number


def test_checksums_of_matroska_are_checked() -> None:
    data = video(FRAMES, container="matroska", codec="mjpeg", pix_fmt="yuvj420p")
    with open_video(data) as opened:
        place = list(opened.packets())[40].pos + 60
    changed = bytearray(data)
    changed[place] ^= 1
    found = first_damage(bytes(changed), MATROSKA)
    assert found is not None
    assert found < place


def test_writers_of_other_sizes_after_tags_are_believed() -> None:
    data = video(6, container="flv")
    tags, place = [], 13
    while place < len(data):
        size = int.from_bytes(data[place + 1 : place + 4], "big")
        tags.append(data[place : place + 11 + size] + size.to_bytes(4, "big"))
        place += 15 + size
    assert first_damage(data[:13] + b"".join(tags), FLV) is None


# ---------------------------------------------------------------------------------------------- packets


AVC = NalFormat("h264", 4)


def nal_packet(*units: bytes) -> bytes:
    return b"".join(len(unit).to_bytes(4, "big") + unit for unit in units)


@pytest.mark.parametrize(
    ("packet", "is_damaged"),
    [
        (nal_packet(b"\x65\x88\x00\x00\x03\x00\x00\x03\x01"), False),
        (nal_packet(b"\x06\x05\x00\x00\x00\x80", b"\x65\x88\x80"), False),  # not a slice: nobody needs it
        (nal_packet(b"\x65\x88\x80\x00\x00\x00\x00"), False),  # zeros at the end
        (nal_packet(b"\x65\x88\x00\x00\x00\x80"), True),
        (nal_packet(b"\x65\x88\x00\x00\x01\x80"), True),
        (nal_packet(b"\x65\x88\x80", b"\x41\x9a\x00\x00\x02\x80"), True),
    ],
)
def test_bytes_that_no_encoder_writes_are_found(packet: bytes, is_damaged: bool) -> None:
    assert AVC.is_damaged(packet) == is_damaged


def test_zeros_before_a_start_code_do_no_harm() -> None:
    coded = NalFormat("h264", 0)
    assert not coded.is_damaged(b"\0\0\0\0\0\1\x65\x88\x80\0\0\0\0\0\1\x41\x9a\x80\0\0\0")
    assert coded.is_damaged(b"\0\0\0\1\x65\x88\0\0\0\x80\0\0\1\x41\x9a\x80")
    assert not has_lost_bytes("mpeg4", b"\0\0\1\xb6\x12\0\0\0\0\1\xb6\x34\0\0\0\0")
    assert has_lost_bytes("mpeg4", b"\0\0\1\xb6\x12\0\0\0\x34")
    assert not has_lost_bytes("vp8", b"\x12\0\0\0\x34")


def test_packets_that_are_filled_with_zeros_are_looked_through_once() -> None:
    filled = b"\0\0\1\xb8\x12" + bytes(500_000)
    assert not has_lost_bytes("mpeg2video", filled + b"\1\xb3")  # looked through from each zero it would take hours
    assert not has_lost_bytes("mpeg2video", filled)
    assert has_lost_bytes("mpeg2video", filled + b"\2")


def test_hevc_of_the_first_writers_is_read_by_its_lengths() -> None:
    options = {"x265-params": "keyint=12:log-level=none"}
    data = bytearray(video(24, codec="libx265", options=options, height=192, width=256))
    version = data.index(b"hvcC") + 4
    assert data[version] == 1
    data[version] = 0
    with open_video(bytes(data)) as opened:
        nal_format = NalFormat.of("hevc", opened.stream.codec_context.extradata or b"")
    assert nal_format == NalFormat("hevc", 4)
    assert NalFormat.of("hevc", b"\0\0\0\1\x40" + bytes(30)) == NalFormat("hevc", 0)
    info = inspect_video(bytes(data)).info
    assert (len(info.pts), info.complete) == (24, True)


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg4", "mpeg2video"])
def test_a_block_of_zeros_ends_the_video(codec: str) -> None:
    container = {"mpeg4": "avi", "mpeg2video": "vob"}.get(codec, "mp4")
    options = {"x265-params": "keyint=12:log-level=none"} if codec == "libx265" else {"g": "12"}
    data = video(FRAMES, container=container, codec=codec, options=options, height=240, width=320)
    with open_video(data) as opened:
        packet = list(opened.packets())[24]
    place = (data.find(bytes(packet)[:40]) if packet.pos is None else packet.pos) + 300
    info = inspect_video(data[:place] + bytes(60) + data[place + 60 :]).info
    assert not info.complete
    assert len(info.pts) <= 24


def test_vp9_that_is_read_beyond_its_end_is_found() -> None:
    data = video(FRAMES, container="webm", codec="libvpx-vp9", options={"g": "12", "cpu-used": "8"})
    with open_video(data) as opened:
        packets = list(opened.packets())
    start = data.find(bytes(packets[24]))
    rng = np.random.default_rng(0)
    ended = 0
    for _ in range(20):
        changed = bytearray(data)
        changed[start + int(rng.integers(20, packets[24].size // 2))] ^= 1 << int(rng.integers(8))
        info = inspect_video(bytes(changed)).info
        ended += not info.complete
        assert info.complete or 24 <= len(info.pts) < 36
    assert ended >= 10


def test_key_frames_of_vp9_are_known() -> None:
    data = video(FRAMES, container="webm", codec="libvpx-vp9", options={"g": "12", "cpu-used": "8"})
    probed = inspect_video(data)
    assert (probed.codec, probed.keyframes) == ("vp9", (0, 12, 24, 36))
    with open_video(data) as opened:
        keys = [index for index, (_, frame) in enumerate(opened.frames()) if frame.key_frame]
    assert tuple(keys) == probed.keyframes
