"""Segments hold the clips' frames and no more; PyAV decodes what DALI cannot decode or decodes wrongly."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import av
import numpy as np
import pytest
from dali_cases import CLIPS, ON_CPU, ON_GPU, OPEN_GOP, VP9, probed
from made_media import read_index, video

from clipbert_cli.errors import DecodeError
from clipbert_cli.media.backend import Decoder
from clipbert_cli.media.bitstream import NalFormat, is_one_shown_frame
from clipbert_cli.media.dali.clips import EncodedClips, Segment, video_segments, why_not
from clipbert_cli.media.frames import rgb_frames
from clipbert_cli.media.probe import probe_video
from clipbert_cli.media.sampling import FrameIndices
from clipbert_cli.store.records import packet_table, packets_record


def segments_of(data: bytes, clips: FrameIndices, *, decoder: Decoder) -> tuple[Segment, ...]:
    known = probed(data)
    encoded = video_segments(data, clips, info=known.info, table=known.packets, decoder=decoder)
    assert encoded is not None
    return encoded.segments


@pytest.mark.parametrize(
    "settings",
    [
        {"options": {"g": "12", "bf": "2"}},
        {"container": "matroska", "options": {"g": "16", "bf": "0"}},
        {"codec": "libx265", "options": {"x265-params": "keyint=12:bframes=3:log-level=none"}},
        {"codec": "libx265", "options": {"x265-params": "keyint=12:min-keyint=12:open-gop=1:log-level=none"}},
        {"codec": "libvpx", "container": "webm", "options": {"g": "12", "cpu-used": "8"}},
        VP9,
    ],
)
def test_the_frames_of_segments_are_those_of_the_clips(settings: dict[str, object]) -> None:
    segments = segments_of(video(48, height=144, width=192, **settings), CLIPS, decoder=ON_GPU)
    found: dict[int, int] = {}
    for segment in segments:
        assert list(segment.frames) == sorted(set(segment.frames))
        with av.open(io.BytesIO(segment.data)) as container:
            frames = [read_index(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
        for number, slots in zip(segment.frames, segment.slots, strict=True):
            found |= dict.fromkeys(slots, frames[number])
    assert found == dict(enumerate(index for clip in CLIPS for index in clip))


def test_a_segment_holds_no_more_packets_than_its_frames_need() -> None:
    data = video(48, options={"g": "12", "bf": "2"})
    (segment,) = segments_of(data, ((17,),), decoder=ON_GPU)
    with av.open(io.BytesIO(segment.data)) as container:
        assert 1 <= sum(1 for packet in container.demux(video=0) if packet.size) <= 6
    assert len(segment.data) < len(data) / 3


@pytest.mark.parametrize(
    "settings",
    [
        OPEN_GOP | {"height": 144, "width": 192},  # parameter sets reach NVDEC with IDR pictures alone
        VP9,  # 96 x 64 is too small for NVDEC
        {"height": 144, "width": 192, "options": {"x264-params": "interlaced=1"}},
    ],
)
def test_videos_that_dali_decodes_wrongly_on_a_gpu_are_left_to_pyav(settings: dict[str, Any]) -> None:
    data = video(48, **settings)
    known = probed(data)
    assert video_segments(data, CLIPS, info=known.info, table=known.packets, decoder=ON_GPU) is None


def test_packets_with_hidden_frames_and_with_fields_are_recognised() -> None:
    shown, hidden, again = b"\x82" + bytes(9), b"\x80" + bytes(9), b"\x88"
    several = hidden + shown + b"\xc1\x0a\x0a\xc1"  # with an index at the end
    assert [is_one_shown_frame(packet) for packet in (shown, hidden, again, several)] == [True, False, False, False]
    first, later = b"\0\0\0\4\x41\x9a\1\1", b"\0\0\0\4\x41\x5a\1\1"  # slices that begin at macroblock 0, and at 1
    assert [NalFormat("h264", 4).fields(packet) for packet in (first, first + later, first + first)] == [1, 1, 2]


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({"height": 144, "width": 192}, (144, 192)),
        ({"height": 90, "width": 132}, (96, 144)),
        ({"height": 90, "width": 132, "options": {"profile": "baseline"}}, (96, 144)),
        ({"height": 144, "width": 192, "options": {"x264-params": "interlaced=1:bframes=3"}}, (160, 192)),
        ({"height": 144, "width": 192, "options": {"x264-params": "bframes=0:keyint=1"}}, (144, 192)),
    ],
)
def test_the_size_of_coded_pictures_is_in_the_table(settings: dict[str, Any], size: tuple[int, int]) -> None:
    known = probed(video(12, **settings))
    assert known.packets is not None
    assert packet_table(packets_record(known.packets)).coded_size == size


PADDED = {
    "h264": {"height": 360, "width": 640},
    "h264 baseline": {"height": 252, "width": 448, "options": {"profile": "baseline", "g": "12"}},
    "h264 both sides": {"height": 90, "width": 130},
    "h264 matroska": {"height": 150, "width": 196, "container": "matroska"},
    "hevc": {
        "codec": "libx265",
        "height": 146,
        "width": 200,
        "options": {"x265-params": "keyint=12:bframes=3:ctu=32:min-cu-size=32:log-level=none"},
    },
}


@pytest.mark.parametrize("settings", PADDED.values(), ids=PADDED)
def test_padded_pictures_are_decoded_whole_and_cut_afterwards(settings: dict[str, Any]) -> None:
    data = video(30, **settings)
    known = probed(data)
    assert known.packets is not None
    clips = ((3, 17), (29, 3))
    encoded = video_segments(data, clips, info=known.info, table=known.packets, decoder=ON_GPU)
    assert encoded is not None
    assert encoded.coded != (encoded.height, encoded.width) == (settings["height"], settings["width"])
    assert not (encoded.coded[0] | encoded.coded[1]) % 16
    right = dict(rgb_frames(data, {3, 17, 29}, info=known.info))
    for slot, frame in shown_frames(encoded).items():
        wanted = right[clips[slot // 2][slot % 2]]
        assert read_index(frame) == read_index(wanted)
        # The scaler reads chroma beyond the cut, so the last columns and rows may differ by rounding.
        assert np.array_equal(frame[:-2, :-2], wanted[:-2, :-2])


def shown_frames(encoded: EncodedClips) -> dict[int, np.ndarray]:
    """Slot -> the shown part of the picture that FFmpeg decodes from the segments."""
    found = {}
    (top, left), (height, width) = encoded.offset, (encoded.height, encoded.width)
    for segment in encoded.segments:
        with av.open(io.BytesIO(segment.data)) as container:
            pictures = [
                frame.to_ndarray(format="rgb24", src_colorspace="ITU601", dst_colorspace="ITU601")
                for frame in container.decode(video=0)
            ]
        assert {picture.shape[:2] for picture in pictures} == {encoded.coded}
        for place, slots in zip(segment.frames, segment.slots, strict=True):
            found |= dict.fromkeys(slots, pictures[place][top : top + height, left : left + width])
    return found


@pytest.mark.parametrize(
    ("settings", "decoder", "reason"),
    [
        ({}, ON_CPU, "cpu does not decode h264"),
        ({"codec": "mpeg4", "container": "avi", "options": {}}, ON_GPU, "cuda:0 does not decode mpeg4"),
        ({"pix_fmt": "yuv420p10le", "options": {"g": "12"}}, ON_GPU, "profile 110"),
        ({"pix_fmt": "gray", "options": {"profile": "high"}}, ON_GPU, "4:2:0"),
        ({"pix_fmt": "yuv444p", "options": {"g": "12"}}, ON_GPU, "profile"),
        ({"pix_fmt": "yuvj420p"}, ON_GPU, "full range"),
        ({"options": {"x264-params": "interlaced=1"}}, ON_GPU, "interlaced"),
        ({"container": "mpegts"}, ON_GPU, "packet table"),
        ({"width": 32}, ON_GPU, "does not decode h264 of 32 x 64"),
        ({"codec": "libx265", "options": {"x265-params": "log-level=none"}}, ON_GPU, "does not decode hevc of 96 x 64"),
        (VP9, ON_GPU, "does not decode vp9 of 96 x 64"),
        (VP9 | {"height": 152, "width": 192}, ON_GPU, "not multiples of 16"),
        (
            {"codec": "libx265", "height": 152, "width": 200, "options": {"x265-params": "log-level=none"}},
            ON_GPU,
            "not multiples of 16",
        ),
        ({}, ON_GPU, ""),
        (VP9, ON_CPU, ""),
        (VP9 | {"height": 144, "width": 144}, ON_GPU, ""),
    ],
)
def test_the_reason_why_pyav_decodes_is_stated(settings: dict[str, Any], decoder: Decoder, reason: str) -> None:
    known = probe_video(video(12, **settings))
    said = why_not(known.info, known.packets, decoder)
    assert reason in said if reason else said == ""


def test_vp9_of_another_profile_is_left_to_pyav() -> None:
    for pix_fmt, is_taken in (("yuv420p", True), ("yuv444p", False)):
        data = video(12, height=144, width=144, **VP9 | {"pix_fmt": pix_fmt})
        known = probed(data)
        assert known.packets is not None
        found = video_segments(data, ((3,),), info=known.info, table=known.packets, decoder=ON_GPU)
        assert (found is not None) == is_taken


def test_padded_pictures_whose_packets_repeat_the_parameter_sets_are_left_to_pyav() -> None:
    repeated = {"options": {"x264-params": "repeat-headers=1:keyint=12", "flags": "-global_header"}}
    for height, is_taken in ((144, True), (136, False)):
        data = video(24, height=height, width=192, **repeated)
        known = probed(data)
        assert known.packets is not None
        nal_format = NalFormat.of("h264", known.packets.extradata)
        assert nal_format is not None
        if not nal_format.parameter_sets(known.packets.packet(data, 0)):
            pytest.skip("this muxer removes repeated parameter sets")
        found = video_segments(data, ((3,),), info=known.info, table=known.packets, decoder=ON_GPU)
        assert (found is not None) == is_taken


def test_hidden_frames_are_left_to_pyav() -> None:
    data = video(24, **VP9)
    known = probed(data)
    assert known.packets is not None
    hides_one = dataclasses.replace(known.packets, shows=np.array([0, -1, *range(1, 23)]))
    options = {"info": known.info, "decoder": ON_CPU}
    assert video_segments(data, ((20,),), table=hides_one, **options) is not None  # from an entry behind it
    assert video_segments(data, ((20,), (5,)), table=hides_one, **options) is None


def test_changed_bytes_do_not_become_segments() -> None:
    data = bytearray(video(24, **VP9))
    known = probed(bytes(data))
    assert known.packets is not None
    data[int(known.packets.offsets[3]) + 2] ^= 1
    options = {"info": known.info, "table": known.packets, "decoder": ON_CPU}
    assert video_segments(bytes(data), ((2,),), **options) is not None
    with pytest.raises(DecodeError, match="not those that were packed"):
        video_segments(bytes(data), ((3,),), **options)
