"""Reading media: stores of this project and of the original, and folders."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import subprocess
import sys
import unicodedata
from multiprocessing import get_context
from pathlib import Path

import lmdb
import numpy as np
import pytest
from made_media import image, info_of, marked_frame, video
from store_content import original_store

from clipbert_cli.errors import ClipbertError, DecodeError, PathError, StoreError
from clipbert_cli.media.probe import ProbedVideo, probe_video
from clipbert_cli.store import records
from clipbert_cli.store.lmdb_store import open_media
from clipbert_cli.store.packing import pack_media
from clipbert_cli.store.source import MediaSource


@pytest.fixture(scope="module")
def clips() -> dict[str, bytes]:
    return {name: video(frames) for name, frames in (("b", 12), ("a", 20), ("日本", 6))}


@pytest.fixture
def folder(tmp_path: Path, clips: dict[str, bytes]) -> Path:
    folder = tmp_path / "videos"
    (folder / "deep").mkdir(parents=True)
    for name, data in clips.items():
        (folder / ("deep" if name == "b" else "") / f"{name}.MP4").write_bytes(data)
    (folder / "notes.txt").write_text("no video")
    return folder


@pytest.fixture
def store(tmp_path: Path, folder: Path) -> Path:
    pack_media([folder], tmp_path / "store")
    return tmp_path / "store"


def put(store: Path, key: bytes, value: bytes) -> None:
    with lmdb.open(str(store), map_size=2**28, lock=False) as environment, environment.begin(write=True) as txn:
        txn.put(key, value)


def check(source: MediaSource, clips: dict[str, bytes]) -> None:
    assert list(source) == sorted(clips)
    assert len(source) == len(clips)
    for name, data in clips.items():
        assert name in source
        assert source.read(name) == data
        assert source.info(name) == info_of(data)
    assert source.missing(["a", "nowhere", "b", "nowhere", ""]) == ["nowhere", ""]
    with pytest.raises(StoreError, match="no video 'nowhere'"):
        source.read("nowhere")


def test_a_packed_store_is_read(store: Path, clips: dict[str, bytes]) -> None:
    source = open_media(store, kind="video")
    assert source.has_records
    check(source, clips)


def test_an_original_store_is_read(tmp_path: Path, clips: dict[str, bytes]) -> None:
    source = open_media(original_store(tmp_path / "theirs", clips), kind="video")
    assert not source.has_records
    check(source, clips)


def test_a_folder_is_read(folder: Path, clips: dict[str, bytes]) -> None:
    source = open_media(folder, kind="video")
    assert not source.has_records
    check(source, clips)


def test_a_store_of_one_file_is_read(tmp_path: Path, store: Path, clips: dict[str, bytes]) -> None:
    (store / "data.mdb").rename(tmp_path / "single.lmdb")
    check(open_media(tmp_path / "single.lmdb", kind="video"), clips)


def test_plain_lmdb_reads_what_pack_writes(store: Path, clips: dict[str, bytes]) -> None:
    with lmdb.open(str(store), readonly=True, lock=False) as environment, environment.begin() as txn:
        for name, data in clips.items():
            assert txn.get(name.encode()) == data
        manifest = json.loads(txn.get(b"/clipbert/manifest"))
    assert manifest == {"format": records.FORMAT, "kind": "video"}


def test_a_media_record_is_used_in_place_of_probing(store: Path, clips: dict[str, bytes]) -> None:
    for key, value in records.sealed({records.info_key("a"): records.video_record(probe_video(clips["b"]))}).items():
        put(store, key, value)
    assert open_media(store, kind="video").info("a") == info_of(clips["b"])


def test_an_empty_value_is_an_unreadable_video(tmp_path: Path) -> None:
    source = open_media(original_store(tmp_path / "theirs", {"gone": b""}), kind="video")
    assert source.read("gone") == b""
    with pytest.raises(DecodeError, match="empty"):
        source.info("gone")


def test_an_image_needs_no_information(tmp_path: Path) -> None:
    data = image(marked_frame(2), "jpeg")
    (tmp_path / "cat.jpg").write_bytes(data)
    for source in (open_media(tmp_path, kind="image"), open_media(_packed(tmp_path), kind="image")):
        assert list(source) == ["cat"]
        assert source.info("cat") is None
        assert source.read("cat") == data
        assert source.locate("cat") == f"image 'cat' in {source.path}"


def _packed(folder: Path) -> Path:
    return pack_media([folder / "cat.jpg"], folder / "store").store


def test_two_sources_share_a_store(store: Path) -> None:
    first, second = open_media(store, kind="video"), open_media(store, kind="video")
    assert first.read("a") == second.read("a")
    del first
    assert len(second) == 3


def test_a_replaced_store_is_seen(store: Path, tmp_path: Path) -> None:
    old = open_media(store, kind="video")
    store.rename(tmp_path / "old")
    (tmp_path / "one").mkdir()
    (tmp_path / "one/new.mp4").write_bytes(video(3))
    pack_media([tmp_path / "one"], store)
    assert list(open_media(store, kind="video")) == ["new"]
    assert len(old) == 3


def _lengths(source: MediaSource) -> tuple[int, list[int]]:
    return os.getpid(), [len(source.read(name)) for name in source]


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_source_travels_to_other_processes(method: str, store: Path) -> None:
    source = open_media(store, kind="video")
    here = _lengths(source)
    with get_context(method).Pool(1) as pool:
        there = pool.apply(_lengths, (source,))
    assert there[1] == here[1]
    assert there[0] != here[0]


FORKING = """
import os, sys
from pathlib import Path
from clipbert_cli.store.lmdb_store import open_media
source, again = (open_media(Path(sys.argv[1]), kind="video") for _ in range(2))
source.read("a")
children = [os.fork() for _ in range(2)]
for _ in range(200):
    assert len(source.read("a")) == len(again.read("a")) > 0
if 0 in children:
    os._exit(0)
assert all(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0 for child in children)
"""


def test_forked_processes_open_the_store_themselves(store: Path) -> None:
    subprocess.run([sys.executable, "-c", FORKING, str(store)], check=True, timeout=60)


def test_reading_makes_no_file(store: Path) -> None:
    before = sorted(store.iterdir())
    check_only = open_media(store, kind="video")
    check_only.read("a")
    pickle.loads(pickle.dumps(check_only)).read("b")
    assert sorted(store.iterdir()) == before == [store / "data.mdb"]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda path: None, PathError, "does not exist: a folder of media files or a store is expected"),
        (lambda path: path.mkdir(), PathError, "is an empty folder: a folder"),
        (lambda path: path.write_bytes(b"words" * 1000), PathError, "is a file: a folder"),
        (lambda path: (path.mkdir(), (path / "data.mdb").write_bytes(b"")), StoreError, "cannot be read as a media"),
        (lambda path: (path.mkdir(), (path / "data.mdb").write_bytes(b"j" * 9000)), StoreError, "cannot be read as a"),
    ],
    ids=["missing", "empty folder", "text file", "empty store", "junk"],
)
def test_anything_but_a_store_is_refused_with_the_next_step(
    make, error: type[ClipbertError], message: str, tmp_path: Path
) -> None:
    make(tmp_path / "store")
    with pytest.raises(error, match=message) as caught:
        open_media(tmp_path / "store", kind="video")
    assert "clipbert pack" in (caught.value.hint or "")


@pytest.mark.parametrize("part", [0.2, 0.5, 0.95])
def test_a_cut_off_store_is_refused_and_not_a_crash(part: float, store: Path) -> None:
    data = store / "data.mdb"
    os.truncate(data, int(data.stat().st_size * part))
    with pytest.raises(StoreError, match=r"cut off|cannot be read"):
        open_media(store, kind="video")


def test_an_unfinished_store_says_so(store: Path) -> None:
    with lmdb.open(str(store), map_size=2**28, lock=False) as environment, environment.begin(write=True) as txn:
        txn.delete(records.MANIFEST_KEY)
    (store / "pack.journal").mkdir()
    with pytest.raises(StoreError, match="not complete"):
        open_media(store, kind="video")


def test_a_store_of_a_later_format_says_so(store: Path) -> None:
    put(store, records.MANIFEST_KEY, b'{"format":99,"complete":true,"kind":"video"}')
    with pytest.raises(StoreError, match="format 99") as caught:
        open_media(store, kind="video")
    assert "update" in (caught.value.hint or "")


def test_a_damaged_manifest_says_so(store: Path) -> None:
    put(store, records.MANIFEST_KEY, b"[]")
    with pytest.raises(StoreError, match="manifest"):
        open_media(store, kind="video")


def test_the_other_kind_is_refused(store: Path) -> None:
    with pytest.raises(StoreError, match="'video', but 'image' is expected"):
        open_media(store, kind="image")


def test_two_files_of_one_stem_are_refused(folder: Path) -> None:
    (folder / "a.avi").write_bytes(b"")
    with pytest.raises(StoreError, match=r"a\.MP4 and .*a\.avi|a\.avi and .*a\.MP4"):
        open_media(folder, kind="video")


def test_times_of_any_rhythm_survive_storing() -> None:
    probed = probe_video(video(3))
    rng = np.random.default_rng(0)
    for _ in range(50):
        steps = rng.choice([0, 1, 33, 33, 34, 512], size=int(rng.integers(0, 40)))
        pts = tuple(int(time) for time in np.cumsum([int(rng.integers(-5, 99)), *steps]))
        changed = _with_pts(probed, pts)
        assert records.video_info(records.video_record(changed)) == changed.info


def _with_pts(probed: ProbedVideo, pts: tuple[int, ...]) -> ProbedVideo:
    return dataclasses.replace(probed, info=dataclasses.replace(probed.info, pts=pts, average_rate=None))


def test_the_documented_program_reads_a_store_with_plain_lmdb_and_av(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "stores.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    assert "transaction.cursor()" in code
    exec(code.replace("vis_db/pets", str(store)), {})
    assert capsys.readouterr().out.splitlines() == ["a 20", "b 12", "日本 6"]


NAMES = ("Zürich", "Ελλάδα ά", "が", "Å")


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("asked", ["NFC", "NFD"])
def test_ids_are_equal_in_either_unicode_form(
    tmp_path: Path, on_disk: str, asked: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "in").mkdir()
    held = [unicodedata.normalize(on_disk, name) for name in NAMES]
    data = video(3)
    for name in held:
        (tmp_path / f"in/{name}.mp4").write_bytes(data)
    pack_media([tmp_path / "in"], tmp_path / "packed")
    original_store(tmp_path / "theirs", dict.fromkeys(held, data))
    names = [unicodedata.normalize(asked, name) for name in NAMES]
    for place, stored in (("in", "NFC"), ("packed", "NFC"), ("theirs", on_disk)):
        source = open_media(tmp_path / place, kind="video")
        caplog.clear()
        assert source.missing([*names, "nowhere é"]) == ["nowhere é"]
        assert ("4 media ids" in caplog.text) == (stored != asked)
        for name in names:
            assert source.read(name) == data
            assert len(source.info(name).pts) == 3
            assert source.packets(name) is not None
            assert (source.checksum(name) is None) == (place != "packed")


def test_two_forms_of_one_name_are_one_id(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        (tmp_path / f"{unicodedata.normalize(form, 'Zürich')}.mp4").write_bytes(video(3))
    with pytest.raises(StoreError, match="two files have the media id 'Zürich'"):
        pack_media([tmp_path], tmp_path / "store")


def test_names_that_are_not_utf_8_are_named_once_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    names = [b"latin\xfc.mp4", b"\xff.mkv", b"cut\xe3\x81.webm", b"\xed\xa0\xbd.avi", b"a\x80b\xc0.mp4"]
    for name in [*names, b"good.mp4"]:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/in/" + name)).write_bytes(video(3))
    for workers in (0, 1):
        summary = pack_media([tmp_path / "in"], tmp_path / str(workers), workers=workers)
        assert summary.packed == 1
        assert sorted(os.fsencode(path.name) for path, _ in summary.skipped) == sorted(names)
        assert all("rename it" in reason for _, reason in summary.skipped)
    with pytest.raises(StoreError, match="not valid UTF-8"):
        pack_media([tmp_path / "in"], tmp_path / os.fsdecode(b"store\xff"))
