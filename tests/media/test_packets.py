"""Decoding through packet tables gives the same pixels as decoding from the start, with less work."""

from __future__ import annotations

import dataclasses
import io
import zlib
from typing import Any

import av
import numpy as np
import pytest
from made_media import marked_frame, read_index, video, vp8_with_hidden_frames

from clipbert_cli.errors import DecodeError
from clipbert_cli.media import probe as scan
from clipbert_cli.media.frames import rgb_frames
from clipbert_cli.media.packets import PacketTable, decode_packets, plan
from clipbert_cli.media.probe import ProbedVideo, probe_video
from clipbert_cli.store.records import packet_table, packets_record


def x264(**options: object) -> dict[str, str]:
    return {"x264-params": ":".join(f"{name.replace('_', '-')}={value}" for name, value in options.items())}


OPEN_GOP = x264(open_gop=1, bframes=3, b_pyramid="none", keyint=20, min_keyint=20, scenecut=0, crf=10)
INTRA_REFRESH = x264(intra_refresh=1, keyint=20, crf=10)

WITH_TABLE: dict[str, dict[str, Any]] = {
    "h264 mp4": {},
    "h264 mkv": {"container": "matroska"},
    "h264 flv": {"container": "flv"},
    "h264 all intra": {"options": {"g": "1"}},
    "h264 b-pyramid": {"options": x264(bframes=5, b_pyramid="normal", keyint=24)},
    "h264 interlaced": {"options": x264(interlaced=1, keyint=20)},
    "h264 open gop": {"options": OPEN_GOP},
    "h264 open gop, pyramid": {"options": OPEN_GOP | x264(open_gop=1, bframes=5, b_pyramid="normal", keyint=20)},
    "h264 intra refresh": {"options": INTRA_REFRESH},
    "h264 variable rate": {"times": [*range(0, 60, 2), *range(90, 120)], "options": {"bf": "0", "g": "9"}},
    "hevc": {"codec": "libx265", "options": {"x265-params": "keyint=20:bframes=3:log-level=none"}},
    "hevc open gop": {
        "codec": "libx265",
        "options": {"x265-params": "keyint=20:min-keyint=20:open-gop=1:log-level=none"},
    },
    "vp8": {"codec": "libvpx", "container": "webm", "options": {"g": "20", "cpu-used": "8"}},
    "vp9": {"codec": "libvpx-vp9", "container": "webm", "options": {"g": "20", "cpu-used": "8"}},
    "mpeg4 avi": {"codec": "mpeg4", "container": "avi", "options": {"bf": "2", "g": "15"}},
}
WITHOUT_TABLE: dict[str, dict[str, Any]] = {
    "h264 ts": {"container": "mpegts"},
    "h264 avi": {"container": "avi"},
    "mpeg2 ps": {"codec": "mpeg2video", "container": "vob", "frames": 30},
    "gif": {"codec": "gif", "container": "gif", "frames": 10},
}


def stored(probed: ProbedVideo) -> PacketTable:
    assert probed.packets is not None
    return packet_table(packets_record(probed.packets))


@pytest.mark.parametrize("name", [*WITH_TABLE, "vp8 with hidden frames"])
def test_any_choice_of_frames_has_the_pixels_of_decoding_from_the_start(name: str) -> None:
    data = video(**{"frames": 60} | WITH_TABLE[name]) if name in WITH_TABLE else vp8_with_hidden_frames()
    probed = probe_video(data)
    table = stored(probed)
    everything = {index: frame.copy() for index, frame in rgb_frames(data, range(60), info=probed.info)}
    assert [read_index(everything[index]) for index in range(60)] == list(range(60))
    rng = np.random.default_rng(0)
    for _ in range(25):
        wanted = set(rng.integers(0, 60, size=int(rng.integers(1, 7))).tolist())
        got = {
            index: frame.to_ndarray(format=frame.format.name) for index, frame in decode_packets(data, table, wanted)
        }
        assert got.keys() == wanted  # through the packets alone: `rgb_frames` would help out
        for index, frame in rgb_frames(data, wanted, info=probed.info, packets=table):
            assert np.array_equal(frame, everything[index])


@pytest.mark.parametrize("name", WITHOUT_TABLE)
def test_videos_with_split_packets_or_without_times_have_no_table(name: str) -> None:
    probed = probe_video(video(**{"frames": 60} | WITHOUT_TABLE[name]))
    assert probed.packets is None
    assert probed.info.complete


def test_a_damaged_video_has_no_table() -> None:
    data = video(60)
    probed = probe_video(data[: len(data) // 2] + bytes(200) + data[len(data) // 2 + 200 :])
    assert (probed.packets, probed.info.complete) == (None, False)


def test_a_closed_group_is_entered_at_its_idr_and_an_open_one_where_the_pixels_agree() -> None:
    assert probe_video(video(60)).packets.entries == [0, 12, 24, 36, 48]
    opened = probe_video(video(120, options=OPEN_GOP)).packets
    assert opened.entries == [0, 17, 37, 57, 77, 97]
    assert opened.shows[17] == 20
    # Its frames before the entry are decoded from the entry before.
    assert [opened.entry_for(frame) for frame in (18, 19, 20, 21)] == [0, 0, 17, 17]
    assert probe_video(video(60, options=INTRA_REFRESH)).packets.entries == [0]


def test_an_entry_with_other_pixels_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that marks P pictures as key frames, which FFmpeg's muxers never write."""
    read = scan._read_packets

    def lying(*arguments: Any) -> Any:
        table, stated = read(*arguments)
        table.entry[::12] = True
        return table, stated

    monkeypatch.setattr(scan, "_read_packets", lying)
    assert probe_video(video(48, options={"g": "48", "bf": "0"})).packets.entries == [0]
    assert probe_video(video(48, options={"g": "24", "bf": "0"})).packets.entries == [0, 24]
    assert probe_video(video(48, options={"g": "12", "bf": "0"})).packets.entries == [0, 12, 24, 36]


def test_only_needed_packets_are_decoded() -> None:
    data = video(60, options={"g": "20", "bf": "2", "sc_threshold": "0", "b-pyramid": "none"})
    table = probe_video(data).packets
    assert int(table.skippable.sum()) == 36
    (span,) = plan(table, [23])
    assert span.packets[0] == 20
    assert span.packets[-1] == table.packet_of[23]
    # The key frame and P pictures up to it; B pictures only if they are wanted.
    assert all(not table.skippable[packet] or packet in span.frames for packet in span.packets)
    first, second = plan(table, [5, 59])
    assert (first.packets[0], second.packets[0]) == (0, 40)
    assert list(first.frames.values()) == [5]
    assert plan(table, []) == []


def test_overlapping_spans_become_one() -> None:
    table = probe_video(video(60, options=OPEN_GOP)).packets
    (span,) = plan(table, [19, 25])  # 19 is decoded after the entry that gives 25
    assert (span.packets[0], sorted(span.frames.values())) == (0, [19, 25])


def test_a_missing_frame_is_refused() -> None:
    table = probe_video(video(10)).packets
    for frame in (-1, 10):
        with pytest.raises(DecodeError, match="10 frames decode"):
            plan(table, [frame])


def test_a_table_of_other_bytes_is_noticed() -> None:
    data = video(30)
    table = probe_video(data).packets
    with pytest.raises(DecodeError, match="packet table is of a file of"):
        list(decode_packets(data + b"\0", table, [3]))
    moved = dataclasses.replace(table, offsets=table.offsets + 1)
    with pytest.raises(DecodeError):
        list(decode_packets(data, moved, [3]))


def test_frames_that_a_table_does_not_give_are_decoded_from_the_start() -> None:
    data = video(30)
    probed = probe_video(data)
    table = probed.packets
    moved = zip(table.offsets + 1, table.sizes, strict=True)
    checksums = np.array([zlib.crc32(data[start : start + size]) for start, size in moved], dtype=np.uint32)
    broken = dataclasses.replace(table, offsets=table.offsets + 1, checksums=checksums)
    ((index, frame),) = rgb_frames(data, [7], info=probed.info, packets=broken)
    assert (index, read_index(frame)) == (7, 7)


def test_changed_bytes_are_refused() -> None:
    """A decoder often reports no error for a flipped bit in a picture."""
    data = bytearray(video(30))
    probed = probe_video(bytes(data))
    place = int(probed.packets.offsets[7] + probed.packets.sizes[7] // 2)
    data[place] ^= 1
    frame = int(probed.packets.shows[7])
    with pytest.raises(DecodeError, match="not those that were packed"):
        list(rgb_frames(bytes(data), [frame], info=probed.info, packets=probed.packets))
    list(rgb_frames(bytes(data), [0], info=probed.info, packets=probed.packets))  # which does not need them


def test_frames_outside_of_the_edit_list_are_left_out() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options={"use_editlist": "1"}) as output:
        stream = output.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.options = {"g": "30", "bf": "2"}
        for index in range(40):
            frame = av.VideoFrame.from_ndarray(marked_frame(index), format="rgb24")
            frame.pts = index - 10
            for packet in stream.encode(frame):
                output.mux(packet)
        output.mux(stream.encode())
    data = file.getvalue()
    probed = probe_video(data)
    with av.open(io.BytesIO(data)) as container:
        plain = [read_index(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    assert len(probed.info.pts) == len(plain)
    for way in (None, probed.packets):
        frames = dict(rgb_frames(data, range(len(plain)), info=probed.info, packets=way))
        assert [read_index(frames[index]) for index in range(len(plain))] == plain


def test_a_table_is_small() -> None:
    table = probe_video(video(300)).packets
    assert len(packets_record(table)) < 300 * 8
