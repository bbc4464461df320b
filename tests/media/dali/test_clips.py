"""Segments hold the clips' frames and no more; PyAV decodes what DALI cannot decode or decodes wrongly."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import av
import numpy as np
import pytest
from dali_cases import (
    CLIPS,
    FULL_RANGE,
    INTERLACED,
    LEFT_TO_PYAV,
    ON_A_GPU,
    ON_CPU,
    ON_GPU,
    VP9,
    encoded_clips,
    made,
    probed,
)
from made_media import read_index, video

from clipbert_cli.errors import DecodeError
from clipbert_cli.media.backend import Decoder
from clipbert_cli.media.bitstream import NalFormat, is_one_shown_frame
from clipbert_cli.media.dali.clips import EncodedClips, video_segments, why_not
from clipbert_cli.media.frames import rgb_frames
from clipbert_cli.media.probe import probe_video
from clipbert_cli.media.sampling import FrameIndices


def encoded_on_a_gpu(data: bytes, clips: FrameIndices) -> EncodedClips:
    encoded = encoded_clips(data, ON_GPU, clips)
    assert encoded is not None
    return encoded


@pytest.mark.parametrize("name", ON_A_GPU)
def test_the_frames_of_segments_are_those_of_the_clips(name: str) -> None:
    """Padded pictures are decoded whole, and cut afterwards."""
    data = made(name)
    encoded = encoded_on_a_gpu(data, CLIPS)
    assert (encoded.coded != (encoded.height, encoded.width)) == ("padded" in name)
    assert not (encoded.coded[0] | encoded.coded[1]) % 16
    right = dict(rgb_frames(data, {index for clip in CLIPS for index in clip}, info=probed(data).info))
    found = shown_frames(encoded)
    assert len(found) == 8
    for slot, frame in found.items():
        index = CLIPS[slot // 2][slot % 2]
        assert read_index(frame) == read_index(right[index]) == index
        # The scaler reads chroma beyond the cut, so the last columns and rows may differ by rounding.
        whole = slice(None, -2 if "padded" in name else None)
        assert np.array_equal(frame[whole, whole], right[index][whole, whole])


def shown_frames(encoded: EncodedClips) -> dict[int, np.ndarray]:
    """Slot -> the shown part of the picture that FFmpeg decodes from the segments."""
    found = {}
    (top, left), (height, width) = encoded.offset, (encoded.height, encoded.width)
    for segment in encoded.segments:
        assert list(segment.frames) == sorted(set(segment.frames))
        with av.open(io.BytesIO(segment.data)) as container:
            pictures = [
                frame.to_ndarray(format="rgb24", src_colorspace="ITU601", dst_colorspace="ITU601")
                for frame in container.decode(video=0)
            ]
        assert {picture.shape[:2] for picture in pictures} == {encoded.coded}
        for place, slots in zip(segment.frames, segment.slots, strict=True):
            found |= dict.fromkeys(slots, pictures[place][top : top + height, left : left + width])
    return found


@pytest.mark.parametrize("name", LEFT_TO_PYAV)
def test_videos_that_dali_decodes_wrongly_on_a_gpu_are_left_to_pyav(name: str) -> None:
    assert encoded_clips(made(name), ON_GPU) is None


def test_a_segment_holds_no_more_packets_than_its_frames_need() -> None:
    data = video(48, options={"g": "12", "bf": "2"})
    (segment,) = encoded_on_a_gpu(data, ((17,),)).segments
    with av.open(io.BytesIO(segment.data)) as container:
        assert 1 <= sum(1 for packet in container.demux(video=0) if packet.size) <= 6
    assert len(segment.data) < len(data) / 3


def test_packets_with_hidden_frames_and_with_fields_are_recognised() -> None:
    shown, hidden, again = b"\x82" + bytes(9), b"\x80" + bytes(9), b"\x88"
    several = hidden + shown + b"\xc1\x0a\x0a\xc1"  # with an index at the end
    assert [is_one_shown_frame(packet) for packet in (shown, hidden, again, several)] == [True, False, False, False]
    first, later = b"\0\0\0\4\x41\x9a\1\1", b"\0\0\0\4\x41\x5a\1\1"  # slices that begin at macroblock 0, and at 1
    assert [NalFormat("h264", 4).fields(packet) for packet in (first, first + later, first + first)] == [1, 1, 2]


@pytest.mark.parametrize(
    ("settings", "decoder", "reason"),
    [
        ({}, ON_CPU, "cpu does not decode h264"),
        ({"codec": "mpeg4", "container": "avi", "options": {}}, ON_GPU, "cuda:0 does not decode mpeg4"),
        ({"pix_fmt": "yuv420p10le", "options": {"g": "12"}}, ON_GPU, "profile 110"),
        ({"pix_fmt": "gray", "options": {"profile": "high"}}, ON_GPU, "4:2:0"),
        ({"pix_fmt": "yuv444p", "options": {"g": "12"}}, ON_GPU, "profile"),
        (FULL_RANGE, ON_GPU, "full range"),
        (INTERLACED, ON_GPU, "interlaced"),
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
