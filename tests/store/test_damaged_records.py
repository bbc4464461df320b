"""A damaged record of what `pack` learnt is not used, with a warning, and its file is probed again."""

from __future__ import annotations

import json
import logging
import random
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
from made_media import image, marked_frame, video

from clipbert_cli.media.images import ProbedImage
from clipbert_cli.media.probe import probe_video
from clipbert_cli.store import records
from clipbert_cli.store.lmdb_store import open_media, open_store
from clipbert_cli.store.packing import pack_media
from clipbert_cli.store.records import info_key, packets_key
from clipbert_cli.store.verify import verify_store

MIXED = video(30, times=[0, 1, 2, 5, 6, *range(20, 45)])


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(MIXED)
    (tmp_path / "videos" / "b.mp4").write_bytes(video(6))
    return pack_media([tmp_path / "videos"], tmp_path / "store").store


def change(store: Path, key: bytes, value: Callable[[bytes], bytes]) -> None:
    with lmdb.open(str(store), map_size=2**24, lock=False) as environment, environment.begin(write=True) as txn:
        txn.put(key, value(bytes(txn.get(key))))


def check_probed(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The damaged records of `a` are not used, with a warning; those of `b` are; verify names `a` alone."""
    source = open_media(store, kind="video")
    expected = probe_video(MIXED)
    with caplog.at_level(logging.WARNING, logger="clipbert"):
        assert source.info("a") == expected.info
        table = source.packets("a")
    assert expected.packets is not None
    assert table is not None
    assert records.packets_record(table) == records.packets_record(expected.packets)
    assert "the media record of 'a' is damaged and not used" in caplog.text
    assert "'b'" not in caplog.text
    assert [name for name, _ in verify_store(store).wrong] == ["a"]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("key", [info_key("a"), packets_key("a")], ids=["record", "packets"])
def test_one_flipped_bit_is_noticed(key: bytes, seed: int, store: Path, caplog: pytest.LogCaptureFixture) -> None:
    def flip(value: bytes) -> bytes:
        at = random.Random(seed).randrange(8 * len(value))
        return value[: at // 8] + bytes([value[at // 8] ^ 1 << at % 8]) + value[at // 8 + 1 :]

    change(store, key, flip)
    check_probed(store, caplog)


def test_every_flipped_bit_and_every_cut_is_noticed() -> None:
    key = info_key("a")
    value = records.sealed({key: b'{"a": 1}'})[key]
    assert records.unsealed(key, value) == b'{"a": 1}'
    damaged = [value[:at] for at in range(len(value))]
    damaged += [(int.from_bytes(value) ^ 1 << bit).to_bytes(len(value)) for bit in range(8 * len(value))]
    for each in damaged:
        with pytest.raises(ValueError, match="checksum"):
            records.unsealed(key, each)


def test_the_record_of_another_item_is_noticed(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    with lmdb.open(str(store), lock=False) as environment, environment.begin() as txn:
        other = bytes(txn.get(info_key("b")))
    change(store, info_key("a"), lambda value: other)
    check_probed(store, caplog)


def set_field(name: str, value: Any) -> Callable[[bytes], bytes]:
    def changed(record: bytes) -> bytes:
        return json.dumps({**json.loads(record), name: value}).encode()

    return changed


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: b"null",
        lambda record: b"[]",
        lambda record: b"{}",
        lambda record: b"[" * 100_000,
        set_field("average_rate", "1/0"),
        set_field("average_rate", 25),
        set_field("average_rate", "1e999999999"),
        set_field("time_base", "1e-999999999"),
        set_field("time_base", "1/1/1"),
        set_field("average_rate", "9" * 4000 + "x"),
        set_field("time_base", "0"),
        set_field("time_base", None),
        set_field("num_frames", 1e30),
        set_field("num_frames", -5),
        set_field("duration", "long"),
        set_field("width", 0),
        set_field("orientation", 9),
        set_field("complete", 1),
        set_field("pts", {"start": 0, "steps": [[1, 10**12]]}),
        set_field("pts", {"start": 0, "steps": [[0, 10**12]]}),
        set_field("pts", {"start": 0, "steps": [[1, -5]]}),
        set_field("pts", {"start": 0.5, "steps": [[1, 5]]}),
        set_field("pts", {"start": 0, "steps": [1]}),
        set_field("size_changes", [1]),
        set_field("damage", 7),
        set_field("time_base", "1e999999999"),
        set_field("time_base", "1/" + "9" * 40),
        set_field("pts", {"start": 2**62, "steps": [[1, 5]]}),
        set_field("pts", {"start": 0, "steps": [[2**61, 5]]}),
        set_field("pts", {"start": 0, "steps": [[1, 2.5]]}),
        set_field("pts", None),
        set_field("codec", ["h264"]),
        set_field("decode", None),
        lambda record: records.image_record(ProbedImage(96, 64, "PNG", 1), bytes=9, crc32=9),
    ],
)
def test_a_record_that_no_pack_writes_is_not_used(
    damage: Callable[[bytes], bytes], store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever changes a record on purpose makes its checksum as well."""
    key = info_key("a")
    change(store, key, lambda value: records.sealed({key: damage(records.unsealed(key, value))})[key])
    check_probed(store, caplog)
    listed = [(media_id, open_store(store).record(media_id)) for media_id in open_store(store)]
    assert [media_id for media_id, record in listed if record is None] == ["a"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no zlib",
        zlib.compress(b"{}"),
        zlib.compress(b'{"packets": -1}\n'),
        zlib.compress(b'{"packets": 1e30}\n'),
        zlib.compress(b'{"packets": 9}\n' + bytes(20)),
        zlib.compress(bytes(2**28)),
    ],
)
def test_a_packet_table_that_no_pack_writes_is_not_used(
    content: bytes, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = packets_key("a")
    change(store, key, lambda value: records.sealed({key: content})[key])
    check_probed(store, caplog)


def in_header(name: str, value: Any) -> Callable[[bytes], bytes]:
    def changed(content: bytes) -> bytes:
        line, _, arrays = content.partition(b"\n")
        return set_field(name, value)(line) + b"\n" + arrays

    return changed


def in_array(number: int, change_it: Callable[[np.ndarray], None]) -> Callable[[bytes], bytes]:
    def changed(content: bytes) -> bytes:
        line, _, arrays = content.partition(b"\n")
        count = json.loads(line)["packets"]
        sizes = [count * np.dtype(form).itemsize for form in records._ARRAYS]
        start = sum(sizes[:number])
        array = np.frombuffer(arrays[start : start + sizes[number]], records._ARRAYS[number]).copy()
        change_it(array)
        return line + b"\n" + arrays[:start] + array.tobytes() + arrays[start + sizes[number] :]

    return changed


@pytest.mark.parametrize(
    "damage",
    [
        in_header("codec", ["h264"]),
        in_header("tag", 7),
        in_header("bits", "8"),
        in_header("data_size", None),
        in_array(2, lambda distances: distances.__setitem__(3, 769)),
        in_array(2, lambda distances: distances.__setitem__(3, -9)),
        in_array(2, lambda distances: distances.__iadd__(1)),
        in_array(2, lambda distances: distances.fill(records._NO_FRAME)),
        in_array(3, lambda entry: entry.fill(False)),
        in_array(3, lambda entry: entry.__setitem__(0, False)),
    ],
)
def test_a_packet_table_whose_packets_are_in_no_order_is_not_used(
    damage: Callable[[bytes], bytes], store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = packets_key("a")

    def changed(value: bytes) -> bytes:
        return records.sealed({key: zlib.compress(damage(zlib.decompress(records.unsealed(key, value))))})[key]

    change(store, key, changed)
    check_probed(store, caplog)


def test_the_damaged_record_of_an_image_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "images").mkdir()
    for name in ("a", "b"):
        (tmp_path / "images" / f"{name}.png").write_bytes(image(marked_frame(1)))
    store = pack_media([tmp_path / "images"], tmp_path / "store").store
    change(store, info_key("a"), lambda value: b"null")
    assert [name for name, _ in verify_store(store).wrong] == ["a"]
    assert open_store(store).record("a") is None
    assert open_store(store).record("b") is not None
