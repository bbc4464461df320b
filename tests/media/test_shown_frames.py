"""The frames that FFmpeg shows are the frames of a video, at its times, through packets and from the start alike."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from made_media import HEIGHT, WIDTH, marked_frame, read_index, video

from clipbert_cli.media.frames import decode_frames, rgb_frames
from clipbert_cli.media.packets import decode_packets
from clipbert_cli.media.probe import ProbedVideo, probe_video
from clipbert_cli.store.records import video_info, video_record

X265 = {"x265-params": "keyint=20:bframes=2:log-level=none"}
VPX = {"g": "20", "cpu-used": "8"}


def cut(data: bytes, frame: int, container: str = "mp4") -> bytes:
    """Copy packets so that an edit list hides the first `frame` frames, as `ffmpeg -ss TIME -i FILE -c copy` does."""
    file = io.BytesIO()
    options = {"use_editlist": "1"} if container in ("mp4", "mov") else {}
    with (
        av.open(io.BytesIO(data)) as source,
        av.open(file, "w", format=container, options=options) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0], opaque=True)
        start = round(frame / (source.streams.video[0].average_rate * source.streams.video[0].time_base))
        for packet in source.demux(video=0):
            if packet.size:
                packet.pts, packet.dts, packet.stream = packet.pts - start, packet.dts - start, stream
                target.mux(packet)
    return file.getvalue()


def resized(codec: str, container: str, options: dict[str, str]) -> bytes:
    """A stream of 20 frames of 96 x 64, then 20 frames of 192 x 128, and 10 frames of 96 x 64 again."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=25)
        form = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, form
        stream.options = options
        output.start_encoding()
        for first, count, scale in ((0, 20, 1), (20, 20, 2), (40, 10, 1)):
            encoder = av.CodecContext.create(codec, "w")
            encoder.width, encoder.height, encoder.pix_fmt = WIDTH * scale, HEIGHT * scale, form
            encoder.time_base, encoder.framerate, encoder.options = Fraction(1, 25), Fraction(25), options
            for index in [*range(first, first + count), None]:
                frame = None
                if index is not None:
                    pixels = marked_frame(index).repeat(scale, 0).repeat(scale, 1)
                    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                    frame.pts, frame.time_base = index, Fraction(1, 25)
                for packet in encoder.encode(frame):
                    packet.stream, packet.time_base = stream, Fraction(1, 25)
                    output.mux(packet)
    return file.getvalue()


def shown_by_ffmpeg(data: bytes) -> tuple[list[int], list[Fraction]]:
    """The numbers and times of the frames that plain decoding gives."""
    with av.open(io.BytesIO(data)) as container:
        frames = list(container.decode(video=0))
        return [read_marks(f.to_ndarray(format="rgb24")) for f in frames], [f.pts * f.time_base for f in frames]


def read_marks(frame: np.ndarray) -> int:
    scale = frame.shape[1] // WIDTH
    return read_index(frame[::scale, ::scale])


def in_both_ways(data: bytes, *, table: bool | None = None) -> tuple[ProbedVideo, list[np.ndarray]]:
    """Check that both ways of decoding give the same pixels; `table` says whether there must be a packet table."""
    probed = probe_video(data)
    assert probed.info.complete
    assert video_info(video_record(probed)) == probed.info
    assert table is None or (probed.packets is not None) == table
    count = len(probed.info.pts)
    linear = {index: frame.copy() for index, frame in rgb_frames(data, range(count), info=probed.info)}
    if probed.packets is not None:
        # Through the packets alone: `rgb_frames` would fall back to the container.
        assert {index for index, _ in decode_packets(data, probed.packets, range(count))} == set(range(count))
        for wanted in (range(count), [count // 2], [count - 1]):
            for index, frame in rgb_frames(data, wanted, info=probed.info, packets=probed.packets):
                assert np.array_equal(frame, linear[index])
    return probed, [linear[index] for index in range(count)]


@pytest.mark.parametrize(
    ("settings", "container", "frame"),
    [
        ({"options": {"bf": "0", "g": "40"}}, "mp4", 25),
        ({"options": {"bf": "2", "g": "40", "b-pyramid": "none"}}, "mov", 26),
        ({"options": {"bf": "2", "g": "10"}}, "mp4", 25),
        ({"codec": "libx265", "options": X265}, "mp4", 27),
        ({"codec": "libvpx-vp9", "options": VPX}, "mp4", 33),
        ({"codec": "libsvtav1", "options": {"preset": "12", "g": "20"}}, "mp4", 33),
        ({"codec": "mpeg4", "options": {"g": "30", "bf": "2"}}, "mov", 13),
    ],
    ids=["h264", "h264 mov, b", "h264 after key frames", "hevc", "vp9", "av1", "mpeg4 mov, b"],
)
def test_frames_before_a_cut_are_decoded_but_not_shown(settings: dict[str, Any], container: str, frame: int) -> None:
    data = cut(video(50, container=container, **settings), frame, container)
    numbers, times = shown_by_ffmpeg(data)
    assert numbers == list(range(frame, 50))
    probed, pixels = in_both_ways(data, table=True)
    assert [read_index(each) for each in pixels] == numbers
    assert [pts * probed.info.time_base for pts in probed.info.pts] == times
    # A far frame is decoded from a key frame near it, not from the hidden start.
    assert len(probed.packets.entries) > 1


@pytest.mark.parametrize(
    ("codec", "container", "options"),
    [
        ("libx264", "matroska", {"bf": "2", "crf": "10"}),
        ("libx264", "mp4", {"bf": "0", "crf": "10"}),
        ("libvpx-vp9", "webm", VPX),
        ("libvpx", "matroska", VPX),
        ("mpeg2video", "mpegts", {"qscale": "2"}),
        ("mjpeg", "avi", {}),
    ],
)
def test_frames_after_a_change_of_size_are_shown(codec: str, container: str, options: dict[str, str]) -> None:
    data = resized(codec, container, options)
    probed, pixels = in_both_ways(data)
    numbers, _ = shown_by_ffmpeg(data)  # Its MPEG-2 decoder loses the frame before each change.
    assert [read_marks(frame) for frame in pixels] == numbers
    assert len(numbers) == (48 if codec == "mpeg2video" else 50)
    changes = [numbers.index(20), numbers.index(40)]
    assert probed.info.size_changes == ((changes[0], 2 * HEIGHT, 2 * WIDTH), (changes[1], HEIGHT, WIDTH))
    assert [frame.shape[:2] for frame in pixels] == [probed.info.size_of(index) for index in range(len(numbers))]
    wanted = (*(changes[0] + step for step in (-1, 0, 1)), changes[1])
    frames = decode_frames(data, (wanted,), info=probed.info, packets=probed.packets)
    assert frames.shape == (1, 4, HEIGHT, WIDTH, 3)
    assert [read_index(frame) for frame in frames[0]] == [numbers[index] for index in wanted]


@pytest.mark.parametrize(
    ("codec", "container"), [("libx264", "mpegts"), ("mpeg2video", "mpegts"), ("mpeg2video", "vob")]
)
def test_all_frames_of_joined_files_are_shown(codec: str, container: str) -> None:
    parts = [video(count, codec=codec, container=container, options={"g": "12"}) for count in (20, 15, 24)]
    _, pixels = in_both_ways(b"".join(parts))
    assert [read_index(frame) for frame in pixels] == [*range(20), *range(15), *range(24)]


@pytest.mark.parametrize(
    ("settings", "is_full"),
    [
        ({}, True),
        ({"codec": "mpeg4"}, True),
        ({"codec": "ffv1"}, True),
        ({"codec": "mjpeg", "pix_fmt": "yuvj420p"}, True),
        # These streams state limited range themselves, and FFmpeg believes the stream.
        ({"codec": "libx265", "options": X265}, False),
        ({"codec": "libvpx-vp9", "options": VPX}, False),
        ({"codec": "mpeg2video"}, False),
    ],
    ids=lambda value: value.get("codec", "h264") if isinstance(value, dict) else "",
)
def test_a_colour_range_that_only_the_container_states_counts(settings: dict[str, Any], is_full: bool) -> None:
    file = io.BytesIO()
    data = video(12, container="matroska", **settings)
    with av.open(io.BytesIO(data)) as source, av.open(file, "w", format="matroska") as target:
        stream = target.add_stream_from_template(source.streams.video[0], opaque=True)
        stream.codec_context.color_range = 2
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    _, pixels = in_both_ways(file.getvalue())
    with av.open(io.BytesIO(file.getvalue())) as opened:
        for frame, decoded in zip(pixels, opened.decode(video=0), strict=True):
            assert (decoded.color_range == 2) == is_full
            range_ = "JPEG" if is_full else "MPEG"
            converted = decoded.reformat(
                format="rgb24", src_color_range=range_, src_colorspace="ITU601", dst_colorspace="ITU601"
            )
            assert np.array_equal(frame, converted.to_ndarray())


@pytest.mark.parametrize(
    ("codec", "container", "pix_fmt"),
    [
        ("qtrle", "mov", "argb"),
        ("png", "mov", "rgba"),
        ("ffv1", "matroska", "yuva420p"),
        ("libvpx", "webm", "yuva420p"),
        ("libvpx-vp9", "webm", "yuva420p"),
        ("prores_ks", "mov", "yuva444p10le"),
    ],
)
def test_transparent_pixels_lie_on_white(codec: str, container: str, pix_fmt: str) -> None:
    pixels = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    pixels[:, :, 0] = 200
    pixels[:, WIDTH // 2 :, 3] = 255  # the right half is red, the left half hides red
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pix_fmt
        stream.options = {"auto-alt-ref": "0"} if codec == "libvpx" else {}  # Its default allows no transparency.
        for index in range(3):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format=pix_fmt, dst_colorspace="ITU601")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    _, frames = in_both_ways(file.getvalue())
    assert len(frames) == 3
    for frame in frames:
        assert np.abs(frame[:, : WIDTH // 2 - 4].astype(int) - 255).max() <= 3
        assert np.abs(frame[:, WIDTH // 2 + 4 :].astype(int) - [200, 0, 0]).mean() <= 4


@pytest.mark.parametrize(
    ("codec", "pix_fmt"),
    [("libvpx-vp9", "yuv420p"), ("libx264", "yuv420p10le"), ("libx265", "yuv420p10le"), ("libsvtav1", "yuv420p10le")],
)
def test_a_chroma_place_that_the_container_states_gives_the_same_pixels_in_both_ways(codec: str, pix_fmt: str) -> None:
    own = {"libvpx-vp9": VPX, "libx265": X265, "libsvtav1": {"preset": "12", "g": "20"}}.get(codec, {})
    options = {"chroma_sample_location": "topleft"} | own
    in_both_ways(video(12, codec=codec, container="matroska", pix_fmt=pix_fmt, options=options), table=True)


def test_a_chroma_place_does_not_change_vp9_of_10_bits() -> None:
    """A WebM file of 4 frames, which PyAV's libvpx cannot encode, whose container states a place of chroma samples."""
    data = (Path(__file__).parents[1] / "media_files" / "vp9_10bit_chroma_place.webm").read_bytes()
    _, pixels = in_both_ways(data, table=True)
    assert len(pixels) == 4
