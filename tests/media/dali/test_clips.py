"""Segments hold the clips' frames and no more; PyAV decodes what DALI cannot decode or decodes wrongly."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import av
import numpy as np
import pytest
from dali_cases import CLIPS, OPEN_GOP, VP9, probed
from made_media import read_index, video

from clipbert_cli.errors import DecodeError
from clipbert_cli.media.backend import DeviceType
from clipbert_cli.media.bitstream import NalFormat, is_one_shown_frame
from clipbert_cli.media.dali.clips import Segment, is_decodable, video_segments
from clipbert_cli.media.sampling import FrameIndices
from clipbert_cli.store.records import packet_table, packets_record


def segments_of(data: bytes, clips: FrameIndices, *, device_type: DeviceType) -> tuple[Segment, ...]:
    known = probed(data)
    encoded = video_segments(data, clips, info=known.info, table=known.packets, device_type=device_type)
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
    segments = segments_of(video(48, height=144, width=192, **settings), CLIPS, device_type="cuda")
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
    (segment,) = segments_of(data, ((17,),), device_type="cuda")
    with av.open(io.BytesIO(segment.data)) as container:
        assert 1 <= sum(1 for packet in container.demux(video=0) if packet.size) <= 6
    assert len(segment.data) < len(data) / 3


@pytest.mark.parametrize(
    "settings",
    [
        OPEN_GOP | {"height": 144, "width": 192},  # parameter sets reach NVDEC with IDR pictures alone
        VP9,  # 96 x 64 is too small for NVDEC
        {"height": 152, "width": 192},  # coded with padding: DALI could take the decoder of 160 rows for it
        {"height": 144, "width": 192, "options": {"x264-params": "interlaced=1"}},  # coded in 160 rows
    ],
)
def test_videos_that_dali_decodes_wrongly_on_a_gpu_are_left_to_pyav(settings: dict[str, Any]) -> None:
    data = video(48, **settings)
    known = probed(data)
    assert video_segments(data, CLIPS, info=known.info, table=known.packets, device_type="cuda") is None


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


def test_formats_that_dali_cannot_decode_are_refused() -> None:
    h264 = probed(video(12))
    assert h264.packets is not None
    assert not is_decodable(b"", h264.info, h264.packets, "cpu")
    assert is_decodable(b"", h264.info, h264.packets, "cuda")
    ten_bits = probed(video(12, options={"g": "12"}, pix_fmt="yuv420p10le"))
    assert ten_bits.packets is not None
    assert not is_decodable(b"", ten_bits.info, ten_bits.packets, "cuda")
    for settings, is_taken in ((VP9, True), (VP9 | {"pix_fmt": "yuv444p"}, False), (VP9 | {"codec": "mpeg4"}, False)):
        data = video(
            12,
            height=144,
            width=144,
            **(settings | ({"container": "avi", "options": {}} if "mpeg4" in settings.values() else {})),
        )
        known = probed(data)
        assert known.packets is not None
        assert is_decodable(data, known.info, known.packets, "cuda") is is_taken


def test_hidden_frames_are_left_to_pyav() -> None:
    data = video(24, **VP9)
    known = probed(data)
    assert known.packets is not None
    hides_one = dataclasses.replace(known.packets, shows=np.array([0, -1, *range(1, 23)]))
    options = {"info": known.info, "device_type": "cpu"}
    assert video_segments(data, ((20,),), table=hides_one, **options) is not None  # from an entry behind it
    assert video_segments(data, ((20,), (5,)), table=hides_one, **options) is None


def test_changed_bytes_do_not_become_segments() -> None:
    data = bytearray(video(24, **VP9))
    known = probed(bytes(data))
    assert known.packets is not None
    data[int(known.packets.offsets[3]) + 2] ^= 1
    options = {"info": known.info, "table": known.packets, "device_type": "cpu"}
    assert video_segments(bytes(data), ((2,),), **options) is not None
    with pytest.raises(DecodeError, match="not those that were packed"):
        video_segments(bytes(data), ((3,),), **options)
