"""Verifying and scanning stores, and the contact sheet."""

from __future__ import annotations

from pathlib import Path

import lmdb
import numpy as np
import pytest
from made_media import image, marked_frame, read_index, video
from store_content import content, names, original_store

from clipbert_cli.errors import DecodeError, StoreError
from clipbert_cli.loading.dataset import MediaSettings, load_clips
from clipbert_cli.media.probe import probe_video
from clipbert_cli.media.sampling import ClipSampling, select
from clipbert_cli.store import records
from clipbert_cli.store.lmdb_store import open_media, open_store
from clipbert_cli.store.packing import pack_media
from clipbert_cli.store.sampled_clips import contact_sheet
from clipbert_cli.store.verify import scan_store, verify_store


@pytest.fixture(scope="module")
def clips() -> dict[str, bytes]:
    return {"a": video(30), "b": video(12, container="mpegts"), "c": video(40)}


@pytest.fixture
def videos(tmp_path: Path, clips: dict[str, bytes]) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for name, data in clips.items():
        (folder / f"{name}.mp4").write_bytes(data)
    return folder


@pytest.mark.parametrize("workers", [0, 2])
def test_a_whole_store_verifies(videos: Path, tmp_path: Path, workers: int) -> None:
    whole = video(60)
    (videos / "damaged.mp4").write_bytes(whole[: len(whole) // 2] + bytes(200) + whole[len(whole) // 2 + 200 :])
    pack_media([videos], tmp_path / "store")
    checked = verify_store(tmp_path / "store", workers=workers)
    assert (checked.items, checked.wrong) == (4, ())
    assert [name for name, _ in checked.damaged] == ["damaged"]


def test_what_was_changed_behind_the_store_is_found(videos: Path, tmp_path: Path, clips: dict[str, bytes]) -> None:
    store = pack_media([videos], tmp_path / "store").store
    flipped = bytearray(clips["a"])
    flipped[len(flipped) // 2] ^= 1
    original_store(store, {"a": bytes(flipped), "extra": b"no video"})
    other = records.video_record(probe_video(clips["a"]), bytes=len(clips["c"]), crc32=_crc(clips["c"]))
    original_store(
        store, {name.decode(): value for name, value in records.sealed({records.info_key("c"): other}).items()}
    )
    with lmdb.open(str(store), map_size=2**28, lock=False) as environment, environment.begin(write=True) as txn:
        txn.delete(b"b")
    wrong = dict(verify_store(store).wrong)
    assert wrong.keys() == {"a", "b", "c", "extra"}
    assert "not those that were packed" in wrong["a"]
    assert "other frames" in wrong["c"]
    assert "is not in the store" in wrong["b"]


def _crc(data: bytes) -> int:
    import zlib

    return zlib.crc32(data)


def test_a_scan_makes_a_store_from_elsewhere_as_good_as_a_packed_one(
    tmp_path: Path, videos: Path, clips: dict[str, bytes]
) -> None:
    theirs = original_store(tmp_path / "theirs", clips | {"bad": b"no video"})
    # Opened before, and still open when the scan writes.
    opened = open_media(theirs, kind="video")
    assert not opened.has_records
    checked = scan_store(theirs)
    assert checked.items == 4
    assert [name for name, _ in checked.wrong] == ["bad"]
    assert names(theirs) == ["data.mdb"]
    assert opened.read("a") == clips["a"]
    source, packed = (
        open_media(theirs, kind="video"),
        open_media(pack_media([videos], tmp_path / "store").store, kind="video"),
    )
    assert source.has_records
    assert len(source) == 4
    assert list(source) == ["a", "b", "bad", "c"]
    for name in clips:
        assert source.info(name) == packed.info(name)
        assert (source.packets(name) is None) == (packed.packets(name) is None) == (name == "b")
    with pytest.raises(StoreError, match="has media records"):
        scan_store(theirs)


def test_records_of_an_older_version_are_not_used(
    tmp_path: Path, videos: Path, clips: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    theirs = original_store(tmp_path / "theirs", clips)
    scan_store(theirs)
    sound = content(theirs)
    manifest = sound[records.MANIFEST_KEY].replace(b'"format":%d' % records.FORMAT, b'"format":1')
    # The MPEG-TS file `b` has no packet table: one of an older version must not survive either.
    old = {"/clipbert/manifest": manifest, "/clipbert/info/a": b"{}", "/clipbert/packets/b": b"old"}
    original_store(theirs, old | ({"/clipbert/info/gone": b"{}"}))
    source = open_store(theirs)
    assert not source.has_records
    assert f"clipbert store scan {theirs}" in caplog.text
    assert source.info("a") == probe_video(clips["a"]).info
    assert source.record("a") is None
    assert source.checksum("a") is None
    del source
    with pytest.raises(StoreError, match="no media records"):
        pack_media([videos], theirs, add=True)
    caplog.clear()
    scan_store(theirs)
    assert content(theirs) == sound
    caplog.clear()
    assert open_store(theirs).has_records
    assert not caplog.text


@pytest.mark.parametrize("size", [(16, 96), (96, 16), (16, 128)], ids=["wide", "high", "very wide"])
def test_what_training_refuses_does_not_verify(tmp_path: Path, size: tuple[int, int]) -> None:
    # `pack` refuses such a video too, but a store may come from elsewhere.
    store = original_store(tmp_path / "store", {"strip": video(3, height=size[0] * 2, width=size[1] * 2)})
    ((name, reason),) = verify_store(store).wrong
    settings = MediaSettings(ClipSampling("middle"), 64)
    with pytest.raises(DecodeError) as refused:
        load_clips(open_media(store, kind="video"), "strip", settings, None)
    assert name == "strip"
    assert str(refused.value).endswith(reason)


def test_images_are_scanned_and_verified_too(tmp_path: Path) -> None:
    theirs = original_store(
        tmp_path / "theirs", {"x": image(marked_frame(1), "jpeg"), "y": image(marked_frame(2), "png")}
    )
    assert scan_store(theirs).wrong == ()
    assert open_store(theirs).record("y")["format"] == "PNG"
    assert verify_store(theirs).wrong == ()


def test_a_contact_sheet_shows_the_sampled_frames(videos: Path, tmp_path: Path) -> None:
    store = pack_media([videos], tmp_path / "store").store
    source, sampling = open_media(store, kind="video"), ClipSampling("clips", 3, 2, 4.0)
    sheet, clips = contact_sheet(source, "c", sampling)
    pixels = np.asarray(sheet)
    height, pitch_x, pitch_y = round(64 * 224 / 96), 224 + 6, round(64 * 224 / 96) + 16 + 6
    found = []
    for row in range(3):
        for column in range(2):
            left, top = 6 + column * pitch_x, 6 + row * pitch_y
            picture = sheet.crop((left, top, left + 224, top + height)).resize((96, 64))
            found.append(read_index(np.asarray(picture)))
            label = pixels[top + height : top + height + 16, left : left + 130]
            assert (label < 128).any()
    assert found == [index for clip in select(source.info("c"), sampling) for index in clip]
    assert found == [index for clip in clips.indices for index in clip]
