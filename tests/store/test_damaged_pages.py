"""Damaged pages and strange keys of a store: the bad item is listed with its reason, the others as usual."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import lmdb
import numpy as np
import pytest
from made_media import video
from running import Clipbert

from clipbert_cli.errors import DecodeError, StoreError
from clipbert_cli.loading.dataset import FailedItem, GroupDataset, Item, MediaSettings, Position, load_clips
from clipbert_cli.media.sampling import ClipSampling
from clipbert_cli.store.lmdb_store import open_media, open_store
from clipbert_cli.store.packing import pack_media
from clipbert_cli.store.verify import scan_store, verify_store
from clipbert_cli.types import Example, Group

PAGE = 4096
NAMES = ["a", "b", "c", "d", "e"]
SETTINGS = MediaSettings(sampling=ClipSampling("start", num_clips=1, num_frames=2, fps=2), frame_size=32)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    (folder / "videos").mkdir()
    for number, name in enumerate(NAMES):
        (folder / "videos" / f"{name}.mp4").write_bytes(video(6 + number))
    return pack_media([folder / "videos"], folder / "store").store


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without records."""
    store = tmp_path_factory.mktemp("original") / "store"
    with lmdb.open(str(store), map_size=2**24, lock=False) as environment, environment.begin(write=True) as txn:
        for number, name in enumerate(NAMES):
            txn.put(name.encode(), video(6 + number))
    return store


def page_of(store: Path, name: str) -> int:
    """Return the first page of an item's value, which begins on a page of its own."""
    content = (store / "data.mdb").read_bytes()
    with lmdb.open(str(store), readonly=True, lock=False) as environment, environment.begin() as txn:
        value = bytes(txn.get(name.encode()))
    return content.index(value) // PAGE


def damaged(store: Path, pages: list[int], to: Path) -> Path:
    shutil.copytree(store, to)
    content = bytearray((to / "data.mdb").read_bytes())
    for page in pages:
        content[page * PAGE : page * PAGE + 64] = b"\xff" * 64
    (to / "data.mdb").write_bytes(content)
    return to


@pytest.mark.parametrize("bad", ["a", "c", "e", "ab", "bd"])
def test_an_item_on_a_damaged_page_hides_no_other(bad: str, clipbert: Clipbert, whole: Path, tmp_path: Path) -> None:
    pages = sorted({page_of(whole, name) for name in bad})
    store = damaged(whole, pages, tmp_path / "store")
    done = clipbert("store", "ls", store, "--json")
    rows = {row["id"]: row["damage"] for row in json.loads(done.stdout)}
    assert done.returncode == 1
    assert "pages are damaged" in done.stderr
    assert list(rows) == NAMES
    assert {name for name, damage in rows.items() if damage} == set(bad)
    assert all("its page of the store is damaged" in rows[name] for name in bad)
    checked = verify_store(store)
    assert {name for name, _ in checked.wrong} == {*bad, ""}
    assert checked.items == len(NAMES)


@pytest.mark.parametrize("bad", NAMES)
def test_training_takes_another_item_in_place_of_one_on_a_damaged_page(bad: str, whole: Path, tmp_path: Path) -> None:
    source = open_media(damaged(whole, [page_of(whole, bad)], tmp_path / "store"), kind="video")
    assert source.missing(NAMES) == []
    groups = [Group(name, (Example(None, name, ("text",)),)) for name in NAMES]
    for index, name in enumerate(NAMES):
        plain = GroupDataset(groups, source, SETTINGS, seed=1)[Position(0, index)]
        assert isinstance(plain, FailedItem if name == bad else Item)
    replaced = GroupDataset(groups, source, SETTINGS, seed=1, on_bad_media="replace")[Position(0, NAMES.index(bad))]
    assert isinstance(replaced, Item)
    assert [each.group.media_id for each in replaced.instead_of] == [bad] * len(replaced.instead_of)
    with pytest.raises(DecodeError, match=f"video '{bad}' in .*: its page of the store is damaged"):
        load_clips(source, bad, SETTINGS, np.random.default_rng(0))


@pytest.mark.parametrize("bad", NAMES)
def test_a_scan_reports_damaged_pages_and_writes_nothing_among_them(bad: str, original: Path, tmp_path: Path) -> None:
    store = damaged(original, [page_of(original, bad)], tmp_path / "store")
    before = (store / "data.mdb").read_bytes()
    checked = scan_store(store)
    assert "" in {name for name, _ in checked.wrong}
    assert (store / "data.mdb").read_bytes() == before


@pytest.mark.parametrize(
    "key", [b"\xff\xfe", b"k" * 511, b"\x1b[31m", b"/other/thing", b"#", "e\u0301.mp4".encode(), b"x#t=1,2"]
)
def test_a_strange_key_is_listed_and_verified(key: bytes, clipbert: Clipbert, original: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(original, store)
    with lmdb.open(str(store), map_size=2**24, lock=False) as environment, environment.begin(write=True) as txn:
        txn.put(key, b"no video")
    name = key.decode(errors="surrogateescape")
    assert sorted(open_store(store)) == sorted([*NAMES, name])
    assert clipbert("store", "ls", store).returncode == 0
    assert [wrong for wrong, _ in verify_store(store).wrong] == [name]
    done = clipbert("store", "scan", store, "--workers", 0)
    assert done.returncode == 1
    assert "scanned 6 items: 1 wrong" in done.stderr
    assert "\x1b" not in done.stderr
    assert all(open_store(store).record(each) for each in NAMES)


def _pages_of_keys(content: bytes) -> list[int]:
    """Return the pages whose flags (the bytes 10 and 11) say branch or leaf."""
    return [page for page in range(2, len(content) // PAGE) if content[page * PAGE + 10] & 3]


@pytest.mark.parametrize("bad", ["keys", "meta pages", "cut off", "text", "zeros"])
def test_a_store_of_which_nothing_can_be_known_is_one_message(
    bad: str, clipbert: Clipbert, whole: Path, tmp_path: Path
) -> None:
    content = (whole / "data.mdb").read_bytes()
    pages = {"keys": _pages_of_keys(content), "meta pages": [0, 1]}.get(bad, [])
    store = damaged(whole, pages, tmp_path / "store")
    others = {"cut off": content[: len(content) // 2], "text": b"no store\n" * 999, "zeros": bytes(len(content))}
    if bad in others:
        (store / "data.mdb").write_bytes(others[bad])
    for command in (("ls",), ("verify", "--workers", 0), ("scan",)):
        done = clipbert("store", command[0], store, *command[1:])
        assert done.returncode == 1
        assert done.stderr.startswith(f"error: {store} cannot be read as a media store: ")


@pytest.mark.parametrize("command", ["ls", "verify", "scan", "show"])
@pytest.mark.parametrize("is_folder", [True, False])
def test_a_store_of_no_length_is_called_empty(
    command: str, clipbert: Clipbert, tmp_path: Path, *, is_folder: bool
) -> None:
    file = tmp_path / ("store/data.mdb" if is_folder else "store")
    file.parent.mkdir(exist_ok=True)
    file.touch()
    words = ["a", "-o", tmp_path / "a.png"] if command == "show" else []
    done = clipbert("store", command, tmp_path / "store", *words)
    assert done.returncode == 1
    assert "data.mdb is empty" in done.stderr or "store is empty" in done.stderr
    with pytest.raises(StoreError, match="is empty"):
        open_media(tmp_path / "store", kind="video")
