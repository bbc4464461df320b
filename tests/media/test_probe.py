"""Probing of media files, and the reasons for refusing some."""

from __future__ import annotations

import importlib.util
import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from made_media import image, info_of, marked_frame, read_index, sound, video
from PIL import Image

from clipbert_cli.errors import DecodeError
from clipbert_cli.media.container import open_video
from clipbert_cli.media.ffmpeg import limited_to, watching
from clipbert_cli.media.frames import decode_frames
from clipbert_cli.media.images import probe_image
from clipbert_cli.media.probe import probe_video


def with_sound(
    container: str, codec: str, sound: str, *, frames: int = 48, sound_frames: int | None = None, **options: str
) -> bytes:
    """A video whose packets alternate with those of a sound track; `options` are the container's.

    The sound lasts as long as the video or as `sound_frames` frames of it.
    """
    file = io.BytesIO()
    with av.open(file, "w", format=container, options=options) as output:
        pictures, tones = output.add_stream(codec, rate=25), output.add_stream(sound, rate=48000)
        pictures.width, pictures.height, pictures.pix_fmt = 96, 64, "yuv420p"
        pictures.options = {"g": "12", "cpu-used": "8"} if "vpx" in codec else {"g": "12"}
        tones.layout = "mono"
        for index in range(max(frames, sound_frames or frames)):
            if index < frames:
                frame = av.VideoFrame.from_ndarray(marked_frame(index % 60), format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, 25)
                output.mux(pictures.encode(frame))
            if sound_frames is not None and index >= sound_frames:
                continue
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 1920), np.float32), format="fltp", layout="mono")
            samples.sample_rate, samples.pts, samples.time_base = 48000, 1920 * index, Fraction(1, 48000)
            output.mux(tones.encode(samples))
        output.mux(pictures.encode())
        output.mux(tones.encode())
    return file.getvalue()


def gif_with_palettes() -> bytes:
    """A GIF file of 6 frames by Pillow, with a palette for each frame and a comment."""
    pictures = [Image.fromarray(marked_frame(index)).quantize(16 + index) for index in range(6)]
    file = io.BytesIO()
    pictures[0].save(file, "gif", save_all=True, append_images=pictures[1:], loop=0, duration=40, comment=b"whole")
    return file.getvalue()


def test_header_values_and_decoded_frames_of_a_video_are_found() -> None:
    probed = probe_video(video(30, rate=25))
    info = probed.info
    assert (info.width, info.height, info.num_frames, info.complete) == (96, 64, 30, True)
    assert info.average_rate == 25
    assert info.duration is not None
    assert info.duration * info.time_base == Fraction(30, 25)
    assert [pts * info.time_base for pts in info.pts] == [Fraction(i, 25) for i in range(30)]
    assert probed.codec == "h264"


@pytest.mark.parametrize(
    ("codec", "container"),
    [("libvpx-vp9", "webm"), ("mpeg4", "avi"), ("gif", "gif"), ("libx264", "matroska"), ("libx264", "mpegts")],
)
def test_every_frame_of_usual_formats_is_found(codec: str, container: str) -> None:
    data = video(20, codec=codec, container=container)
    info = info_of(data)
    assert info.complete
    frames = decode_frames(data, (tuple(range(20)),), info=info)[0]
    assert [read_index(frame) for frame in frames] == list(range(20))


@pytest.mark.parametrize(
    ("data", "frames"),
    [
        (with_sound("webm", "libvpx", "libopus", live="1"), 48),
        (with_sound("matroska", "libx264", "aac", cluster_time_limit="100"), 48),
        (with_sound("flv", "libx264", "aac"), 48),
        (gif_with_palettes(), 6),
    ],
    ids=["live webm", "mkv of small clusters", "flv", "gif"],
)
def test_unusual_but_sound_files_are_complete(data: bytes, frames: int) -> None:
    info = info_of(data)
    assert (len(info.pts), info.complete) == (frames, True)


def test_variable_rate_is_kept_as_true_times() -> None:
    times = [0, 1, 5, 6, 20, 21, 40]
    info = info_of(video(len(times), times=times, options={"bf": "0"}))
    assert [pts * info.time_base * 30 for pts in info.pts] == times


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"not a video at all" * 100, "cannot read it"),
        (np.random.default_rng(0).bytes(4096), "cannot read it|no video stream"),
        (sound(), r"no video stream \(only audio\)"),
        (sound("mp3", cover=image(marked_frame(3), "jpeg")), "no video stream"),
        (image(marked_frame(3), "jpeg"), "picture"),
        (image(marked_frame(3), "png"), "picture"),
        (video(30)[:200], "cannot read it"),
    ],
    ids=["empty", "text", "noise", "audio", "cover art", "jpeg", "png", "header only"],
)
def test_files_that_are_not_videos_are_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        info_of(data)


def test_a_playlist_opens_no_other_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(video(5))
    for text in (f"ffconcat version 1.0\nfile {secret}\n", f"#EXTM3U\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n"):
        with pytest.raises(DecodeError):
            info_of(text.encode())


def test_a_cut_file_counts_up_to_the_cut(tmp_path: Path) -> None:
    whole = tmp_path / "whole.mp4"
    with av.open(io.BytesIO(video(60))) as source, av.open(whole, "w", options={"movflags": "faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    data = whole.read_bytes()
    info = info_of(data[: len(data) * 6 // 10])
    assert not info.complete
    assert info.num_frames == 60
    assert 10 < len(info.pts) < 60


def test_frames_predicted_from_a_lost_first_frame_are_not_shown() -> None:
    data = bytearray(video(60, codec="mpeg4", container="avi"))
    first = data.index(b"00dc", data.index(b"movi"))
    data[first : first + 200] = bytes(200)
    info = info_of(bytes(data))
    frames = decode_frames(bytes(data), (tuple(range(len(info.pts))),), info=info)[0]
    assert [read_index(frame) for frame in frames] == list(range(12, 60))


def damaged(data: bytes, place: float) -> bytes:
    """Return the file with 200 zero bytes from this fraction of its length on."""
    start = int(len(data) * place)
    return data[:start] + bytes(200) + data[start + 200 :]


@pytest.mark.parametrize(
    ("codec", "container", "place"),
    [
        *(("libx264", "mp4", place) for place in (0.15, 0.4, 0.6, 0.7, 0.85)),
        ("libx264", "matroska", 0.6),
        ("mpeg4", "avi", 0.6),
    ],
)
def test_damage_inside_ends_the_video_before_the_first_wrong_frame(codec: str, container: str, place: float) -> None:
    """FFmpeg's H.264 decoder loses the frame that is due when it meets the error."""
    data = damaged(video(60, codec=codec, container=container), place)
    info = info_of(data)
    assert not info.complete
    assert 0 < len(info.pts) < 60
    frames = decode_frames(data, (tuple(range(len(info.pts))),), info=info)[0]
    assert [read_index(frame) for frame in frames] == list(range(len(info.pts)))


@pytest.mark.parametrize(
    ("codec", "container", "options"),
    [
        ("libx264", "mp4", {"g": "12", "bf": "2"}),
        ("libx264", "matroska", {"x264-params": "bframes=5:b-pyramid=normal:b-adapt=0:keyint=30"}),
        ("libx264", "flv", {"g": "30", "bf": "3"}),
        ("libx265", "mp4", {"x265-params": "log-level=none:keyint=12:bframes=3"}),
        ("mpeg4", "mov", {"bf": "2", "g": "12"}),
    ],
)
def test_frames_that_wait_in_the_decoder_at_an_error_are_kept(
    codec: str, container: str, options: dict[str, str]
) -> None:
    whole = video(30, codec=codec, container=container, options=options)
    with av.open(io.BytesIO(whole)) as opened:
        packets = [packet for packet in opened.demux(video=0) if packet.size]
        times = [packet.pts for packet in packets]
        payloads = [bytes(packet) for packet in packets]
    ranks = {time: rank for rank, time in enumerate(sorted(times))}
    waited = 0
    for number in range(3, 28, 3):
        damaged_file = whole.replace(payloads[number], b"\xff" * len(payloads[number]))
        info = info_of(damaged_file)
        before = [ranks[time] for time in sorted(times[:number]) if time < times[number]]
        assert not info.complete
        frames = decode_frames(damaged_file, (tuple(range(len(info.pts))),), info=info)[0]
        assert [read_index(frame) for frame in frames] == before
        waited += number - len(before)
    assert waited  # Some of the failed packets were shown before packets that had been decoded.


def test_a_stream_that_starts_inside_a_group_of_pictures_is_decoded() -> None:
    options = {"x264-params": "open-gop=1:bframes=3:keyint=20:min-keyint=20:scenecut=0:crf=10"}
    data = video(80, container="mpegts", options=options)
    with av.open(io.BytesIO(data)) as container:
        starts = [packet.pos for packet in container.demux(video=0) if packet.is_keyframe and packet.size]
    cut = data[: 3 * 188] + data[starts[1] :]
    info = info_of(cut)
    assert info.complete
    frames = decode_frames(cut, (tuple(range(len(info.pts))),), info=info)[0]
    assert [read_index(frame) for frame in frames] == list(range(80 - len(frames), 80))


@pytest.mark.parametrize("container", ["mpegts", "matroska", "avi", "h264"])
def test_open_groups_that_end_the_use_of_lost_pictures_are_decoded(container: str) -> None:
    options = {"x264-params": "open-gop=1:bframes=3:keyint=12:crf=10"}
    data = video(80, container="mpegts", options=options)
    with av.open(io.BytesIO(data)) as source:
        starts = [packet.pos for packet in source.demux(video=0) if packet.is_keyframe and packet.size]
    cut = data[: 3 * 188] + data[starts[1] :]
    cut = cut if container == "mpegts" else remuxed(cut, container)
    with open_video(cut) as opened:
        packets = list(opened.packets())
        with pytest.raises(av.InvalidDataError):
            sum(len(packet.decode()) for packet in packets)
    info, whole = info_of(cut), info_of(data)
    assert info.complete
    left = len(info.pts)
    assert 40 < left < 70
    frames = decode_frames(cut, (tuple(range(left)),), info=info)[0]
    assert (frames == decode_frames(data, (tuple(range(80 - left, 80)),), info=whole)[0]).all()


def remuxed(data: bytes, container: str) -> bytes:
    """The packets of a video in another container."""
    file = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(file, "w", format=container) as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                output.mux(packet)
    return file.getvalue()


def test_a_time_that_is_some_frames_late_does_not_end_the_video() -> None:
    data = bytearray(video(30, container="flv", rate=25, options={"g": "30", "bf": "2"}))
    place, pictures = 13, 0
    while pictures < 3:  # the first is the decoder's set-up
        pictures += data[place] == 9
        place += 15 + int.from_bytes(data[place + 1 : place + 4], "big")
    time = int.from_bytes(data[place + 4 : place + 7], "big") + 4 * 40
    data[place + 4 : place + 7] = time.to_bytes(3, "big")
    info = info_of(bytes(data))
    assert info.complete
    frames = decode_frames(bytes(data), (tuple(range(30)),), info=info)[0]
    assert [read_index(frame) for frame in frames] == list(range(30))


def test_frames_beyond_the_pixel_cap_are_refused() -> None:
    data = video(2)
    with limited_to(96 * 64):
        assert probe_video(data).info.complete
    with limited_to(96 * 64 - 1), pytest.raises(DecodeError, match="96 x 64"):
        probe_video(data)


def test_damaged_videos_neither_crash_nor_hang() -> None:
    rng = np.random.default_rng(5)
    good = [video(20), video(20, codec="mpeg4", container="avi"), video(12, codec="libvpx-vp9", container="webm")]
    outcomes = set()
    for trial in range(90):
        data = bytearray(good[trial % len(good)])
        for _ in range(4):
            place = int(rng.integers(0, len(data)))
            if trial % 2:
                data[place] ^= 1 << int(rng.integers(0, 8))
            else:
                data[place : place + 40] = bytes(len(data[place : place + 40]))
        try:
            outcomes.add(info_of(bytes(data)).complete)
        except DecodeError:
            outcomes.add(None)
    assert outcomes == {True, False, None}


def test_size_and_format_of_an_image_are_found() -> None:
    found = probe_image(image(marked_frame(1), "jpeg"))
    assert (found.width, found.height, found.format, found.frames) == (96, 64, "JPEG", 1)
    first, second = (Image.fromarray(marked_frame(index)) for index in (1, 2))
    assert probe_image(image(first, "gif", save_all=True, append_images=[second])).frames == 2


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"words", "not an image"),
        (image(marked_frame(1), "jpeg")[:600], "cannot read it"),
        (image(marked_frame(1), "png")[:150], "cannot read it"),
        (video(3), "not an image"),
    ],
    ids=["empty", "text", "cut jpeg", "cut png", "video"],
)
def test_files_that_are_not_images_are_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        probe_image(data)


def test_a_bare_stream_from_its_beginning_is_a_video() -> None:
    assert len(info_of(video(30, container="h264", options={"g": "12", "bf": "0"})).pts) == 30


def two_tracks(*sizes_and_frames: tuple[int, int], default: int | None) -> bytes:
    """A Matroska file of H.264 tracks, each (width, frames); one may be marked as the default."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as output:
        streams = []
        for number, (width, _) in enumerate(sizes_and_frames):
            stream = output.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = width, 64, "yuv420p"
            stream.disposition = Disposition.default.value if number == default else 0
            streams.append(stream)
        for stream, (width, frames) in zip(streams, sizes_and_frames, strict=True):
            for index in range(frames):
                frame = av.VideoFrame.from_ndarray(marked_frame(index, 64, width), format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, 25)
                output.mux(stream.encode(frame))
            output.mux(stream.encode())
    return file.getvalue()


@pytest.mark.parametrize(
    ("tracks", "default", "width"),
    [
        ([(96, 5), (160, 5)], None, 160),
        ([(160, 5), (96, 5)], None, 160),
        ([(160, 5), (96, 5)], 1, 96),
        ([(96, 5), (160, 5), (128, 5)], 2, 128),
        ([(96, 5), (96, 7)], None, 96),
    ],
    ids=["the largest last", "the largest first", "the default is smaller", "the default of three", "equal sizes"],
)
def test_the_default_video_stream_is_taken_or_else_the_largest(
    tracks: list[tuple[int, int]], default: int | None, width: int
) -> None:
    info = info_of(two_tracks(*tracks, default=default))
    assert (info.width, len(info.pts)) == (width, 5)


@pytest.mark.parametrize("stills", [1, 2])
def test_a_still_picture_before_the_video_is_not_taken(stills: int) -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        pictures = [output.add_stream("mjpeg", rate=25) for _ in range(stills)]
        moving = output.add_stream("libx264", rate=25)
        for stream, width in [*((picture, 320) for picture in pictures), (moving, 96)]:
            stream.width, stream.height, stream.pix_fmt = width, 64, "yuv420p"
        for picture in pictures:
            picture.pix_fmt = "yuvj420p"
        for stream, frames in [*((picture, 1) for picture in pictures), (moving, 6)]:
            for index in range(frames):
                frame = av.VideoFrame.from_ndarray(marked_frame(index, 64, stream.width), format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, 25)
                output.mux(stream.encode(frame))
            output.mux(stream.encode())
    info = info_of(file.getvalue())
    assert (info.width, len(info.pts)) == (96, 6)


@pytest.mark.parametrize(
    "data",
    [
        video(9),
        video(9, container="mpegts"),
        video(9, container="avi", codec="mpeg4"),
        video(9, container="webm", codec="libvpx"),
    ],
    ids=["packets", "from the start", "avi", "webm"],
)
def test_every_decoded_frame_is_reported(data: bytes) -> None:
    pixels: list[int] = []
    with watching(pixels.append):
        probe_video(data)
    assert len(pixels) >= 10  # one before the first frame
    assert set(pixels) == {96 * 64}


@pytest.mark.parametrize("share", [0.4, 0.7])
@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("avi", "mjpeg"),
        ("matroska", "libx264"),
        ("webm", "libvpx"),
        ("flv", "libx264"),
        ("nut", "mpeg4"),
    ],
)
def test_a_file_that_was_cut_off_is_damaged(container: str, codec: str, share: float) -> None:
    data = video(60, container=container, codec=codec, pix_fmt="yuvj420p" if codec == "mjpeg" else "yuv420p")
    assert info_of(data).failure == ""
    cut = info_of(data[: int(len(data) * share)])
    assert 0 < len(cut.pts) < 60
    assert cut.damage
    assert cut.failure


SOUND_FORMATS = [
    ("matroska", "libx264", "aac"),
    ("webm", "libvpx", "libopus"),
    ("flv", "libx264", "aac"),
]


@pytest.mark.parametrize(("container", "codec", "sound"), SOUND_FORMATS)
def test_a_file_with_sound_that_lacks_its_last_tenth_is_damaged(container: str, codec: str, sound: str) -> None:
    data = with_sound(container, codec, sound, frames=250)
    assert info_of(data).failure == ""
    cut = info_of(data[: int(len(data) * 0.87)])
    assert 200 < len(cut.pts) < 240
    assert cut.failure


@pytest.mark.parametrize(("container", "codec", "sound"), SOUND_FORMATS)
@pytest.mark.parametrize("sound_frames", [20, 100])
def test_sound_of_another_length_than_the_video_is_no_damage(
    container: str, codec: str, sound: str, sound_frames: int
) -> None:
    assert info_of(with_sound(container, codec, sound, sound_frames=sound_frames)).failure == ""


def test_a_cut_avi_states_both_numbers_of_frames() -> None:
    data = video(60, container="avi", codec="mjpeg", pix_fmt="yuvj420p")
    # Between two packets, where FFmpeg sees nothing wrong.
    cut = info_of(data[: data.index(b"00dc", len(data) // 2)])
    assert cut.complete
    assert "header states 60 frames, but it has" in cut.failure


def test_a_heic_image_is_read_with_the_extra_or_else_named() -> None:
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)
    with pytest.raises(DecodeError) as caught:
        probe_image(heic)
    if importlib.util.find_spec("pillow_heif") is None:
        assert "HEIC" in str(caught.value)
        assert "clipbert[heif]" in (caught.value.hint or "")
        return
    import pillow_heif

    file = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(marked_frame(1))).save(file, format="HEIF")
    assert (probe_image(file.getvalue()).width, probe_image(file.getvalue()).height) == (96, 64)
