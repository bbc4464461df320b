"""Damaged VP8 packets are told from whole ones, of the many ways in which libvpx writes."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cache, partial

import av
import numpy as np
import pytest
from made_media import video, vp8_with_hidden_frames

from clipbert_cli.errors import DecodeError
from clipbert_cli.media import damage
from clipbert_cli.media.probe import inspect_video
from clipbert_cli.media.vp8.entropy import Partition
from clipbert_cli.media.vp8.head import Head, HeadReader, Probabilities
from clipbert_cli.media.vp8.macroblocks import clamped
from clipbert_cli.store.transcode import Transcode, transcode_video

FRAMES = 24
WRITERS: dict[str, dict[str, str]] = {
    "plain": {"cpu-used": "8", "g": "8"},
    "searched": {"cpu-used": "0", "deadline": "good", "crf": "4", "b": "4M"},
    "eight partitions": {"slices": "8", "cpu-used": "4"},
    "resilient, with segments": {"error-resilient": "default+partitions", "deadline": "realtime", "cpu-used": "4"},
    "profile 1": {"profile": "1", "cpu-used": "4"},
    "profile 3": {"profile": "3", "cpu-used": "4", "b": "40k"},
    "still": {
        "deadline": "realtime",
        "cpu-used": "8",
        "static-thresh": "1000",
        "noise-sensitivity": "4",
        "b": "30k",
    },
}


first_damaged = partial(damage.first_damaged, "vp8")


def demuxed(data: bytes) -> tuple[bytes, ...]:
    with av.open(io.BytesIO(data)) as container:
        return tuple(bytes(packet) for packet in container.demux(video=0) if packet.size)


def encoded(pictures: Sequence[np.ndarray], options: dict[str, str]) -> tuple[bytes, ...]:
    """Packets of frames, (H, W, 3) uint8."""
    file = io.BytesIO()
    with av.open(file, "w", format="webm") as output:
        stream = output.add_stream("libvpx", rate=25)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.options = "yuv420p", options
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return demuxed(file.getvalue())


def moving() -> Iterator[np.ndarray]:
    """Noise in parts that move apart, so that the modes and motions of VP8 occur."""
    noise = np.random.default_rng(0).integers(0, 256, (160, 240, 3)).astype(np.uint8)
    noise = noise.repeat(2, axis=0).repeat(2, axis=1)
    for index in range(FRAMES):
        picture = noise[index : index + 101, 2 * index : 2 * index + 139].copy()
        picture[30:70, 40:90] = noise[100 - 3 * index : 140 - 3 * index, 100 + index : 150 + index]
        picture[:20] = 40 * (index % 5)
        yield picture


@cache
def packets(writer: str) -> tuple[bytes, ...]:
    return demuxed(vp8_with_hidden_frames()) if writer == "two passes" else encoded([*moving()], WRITERS[writer])


def flipped(packet: bytes, bit: int) -> bytes:
    changed = bytearray(packet)
    changed[bit // 8] ^= 128 >> bit % 8
    return bytes(changed)


@pytest.mark.parametrize("writer", [*WRITERS, "two passes"])
def test_what_libvpx_writes_is_whole_and_cut_packets_are_not(writer: str) -> None:
    stream = packets(writer)
    assert len(stream) >= FRAMES
    assert first_damaged(stream) is None
    for number in (1, len(stream) // 2, len(stream) - 1):
        for damaged in (stream[number][: len(stream[number]) // 2], stream[number][:4], stream[number] + b"\1", b""):
            assert first_damaged([*stream[:number], damaged, *stream[number + 1 :]]) == number


def heads(writer: str) -> Iterator[Head]:
    reader = HeadReader()
    for packet in packets(writer):
        tag = int.from_bytes(packet[:3], "little")
        start = 3 if tag & 1 else 10
        yield reader.read(Partition(packet[start : start + (tag >> 5)]), is_key=start == 10)


def test_the_streams_have_what_they_are_here_for() -> None:
    assert all(head.partitions == 8 for head in heads("eight partitions"))
    assert any(head.segments for head in heads("resilient, with segments"))
    assert any(any(head.opposite) for head in heads("two passes"))
    assert any(head.probabilities.vectors != Probabilities().vectors for head in heads("searched"))


@pytest.mark.parametrize("writer", ["searched", "two passes", "eight partitions"])
def test_nearly_every_flipped_bit_is_noticed_where_it_is(writer: str) -> None:
    """Not those that are numbers as they stand: the quantizer's, the loop filter's, some signs."""
    stream = packets(writer)
    rng = np.random.default_rng(0)
    noticed = 0
    for _ in range(40):
        number = int(rng.integers(1, 8))
        bit = int(rng.integers(8 * 12, 8 * len(stream[number])))
        found = first_damaged([*stream[:number], flipped(stream[number], bit), *stream[number + 1 : 10]])
        assert found is None or found >= number
        noticed += found == number
    assert noticed >= 36


def test_forged_sizes_and_versions_are_noticed() -> None:
    first, second, *_ = packets("plain")
    assert first_damaged([first, second, flipped(second, 6)]) == 2
    assert first_damaged([first, first[:6] + bytes(4) + first[10:]]) == 1
    assert first_damaged([first, first[:3] + b"\0" + first[4:]]) == 1
    huge = first[:6] + b"\xff\x3f\xff\x3f" + first[10:]
    assert first_damaged([huge] * 100) is None  # all of it would take minutes


def test_joined_streams_of_another_version_are_judged_and_of_another_size_not() -> None:
    plain, other = packets("plain"), packets("profile 1")
    assert first_damaged([*plain, *other]) is None
    assert first_damaged([*plain, *other[:3], other[3][:20]]) == len(plain) + 3
    smaller = packets("two passes")
    assert first_damaged([*plain, *smaller]) is None
    assert first_damaged([*plain, *smaller[:3], smaller[3][:20]]) is None


def test_long_videos_in_which_next_to_nothing_happens_are_judged_in_part() -> None:
    stream = encoded([np.full((720, 1280, 3), 90, np.uint8)] * 20, {"deadline": "realtime", "cpu-used": "8"})
    reading = iter(stream + stream[1:] * 10)
    assert first_damaged(reading) is None
    assert 300_000 // 3600 < 210 - len(list(reading)) < 200
    assert first_damaged([*stream[:10], stream[10][:8], *stream[11:]]) == 10


@pytest.mark.parametrize("unit", [4, 8])
@pytest.mark.parametrize("writer", ["plain", "searched", "two passes"])
def test_zeros_that_align_packets_are_no_damage(writer: str, unit: int) -> None:
    assert first_damaged([packet + bytes(-len(packet) % unit) for packet in packets(writer)]) is None


def test_streams_of_writers_that_end_packets_otherwise_are_not_judged() -> None:
    longer = [packet + b"end" for packet in packets("plain")]
    assert first_damaged(longer) is None
    assert first_damaged([*longer[:5], longer[5][:20], *longer[6:]]) is None

    def in_a_damaged_container() -> Iterator[bytes]:
        yield from longer[:3]
        raise DecodeError("a gap")

    assert first_damaged(in_a_damaged_container()) == 0


def test_a_vector_points_at_most_one_macroblock_out_of_the_frame() -> None:
    """RFC 6386, 5: in quarters of a pixel; a frame of 3 x 4 macroblocks, and the one in row 1 and column 2."""
    place = {"row": 1, "column": 2, "rows": 3, "columns": 4}
    assert clamped((5, -7), **place) == (5, -7)
    assert clamped((-129, -193), **place) == (-128, -192)
    assert clamped((129, 129), **place) == (128, 128)
    assert clamped((-128, 128), **place) == (-128, 128)


def test_what_stands_before_the_first_key_frame_is_not_judged() -> None:
    assert first_damaged([]) is None
    first, *others = packets("plain")
    assert first_damaged([*others[:3], first, *others]) is None
    assert first_damaged([*others[:3], first, others[0], others[1][:20]]) == 5


def test_a_video_ends_before_a_damaged_packet() -> None:
    data = video(48, codec="libvpx", container="webm", options={"g": "12", "cpu-used": "8"})
    stream = demuxed(data)
    assert inspect_video(data).info.complete
    damaged = data.replace(stream[30], flipped(stream[30], 8 * 30))
    info = inspect_video(damaged).info
    assert (len(info.pts), info.complete) == (30, False)
    with pytest.raises(DecodeError, match="a packet is damaged"):
        transcode_video(damaged, Transcode())
    with pytest.raises(DecodeError, match="not one frame decodes: a packet is damaged"):
        inspect_video(data.replace(stream[0], flipped(stream[0], 8 * 100)))
