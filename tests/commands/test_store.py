"""`clipbert store` as a person runs it."""

from __future__ import annotations

import json
from pathlib import Path

import lmdb
import pytest
from made_media import video
from PIL import Image
from running import Clipbert

from clipbert_cli.store.lmdb_store import open_media


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    data = video(6)
    for index in range(4):
        (folder / f"video{index}.mp4").write_bytes(data)
    return folder


def test_a_store_is_verified_listed_and_shown(clipbert: Clipbert, videos: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert clipbert("pack", videos, store, "--workers", 1).returncode == 0
    done = clipbert("store", "verify", store, "--workers", 0)
    assert (done.returncode, done.stdout) == (0, "")
    assert "verified 4 items: 0 wrong, 0 damaged" in done.stderr
    listed = clipbert("store", "ls", store).stdout.splitlines()
    assert len(listed) == 4
    assert listed[0].split("\t")[2:] == ["96x64", "h264", "30 fps", "6 frames", "packets"]
    rows = json.loads(clipbert("store", "ls", store, "--json").stdout)
    assert [row["media_id"] for row in rows] == ["video0", "video1", "video2", "video3"]
    sheet = tmp_path / "contact.png"
    done = clipbert("store", "show", store, "video2", "-o", sheet)
    assert (done.returncode, done.stdout) == (0, f"{sheet}\n")
    with Image.open(sheet) as picture:
        assert picture.format == "PNG"
    shown = json.loads(clipbert("store", "show", store, "video2", "-o", sheet, "--overwrite", "--json").stdout)
    assert (shown["media_id"], shown["output"], len(shown["clips"])) == ("video2", str(sheet), 4)
    assert shown["clips"][0] == [{"frame": 0, "seconds": 0.0}, {"frame": 5, "seconds": 5 / 30}]
    assert "exists already" in clipbert("store", "show", store, "video2", "-o", sheet).stderr
    assert "no video 'nowhere'" in clipbert("store", "show", store, "nowhere", "-o", tmp_path / "b.png").stderr


def test_a_store_that_is_not_what_was_packed_fails_to_verify(clipbert: Clipbert, videos: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    clipbert("pack", videos, store, "--workers", 0)
    with lmdb.open(str(store), map_size=2**28, lock=False) as environment, environment.begin(write=True) as txn:
        txn.put(b"video1", video(9))
    done = clipbert("store", "verify", store, "--workers", 0, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["wrong"] == [
        {"media_id": "video1", "reason": "its bytes are not those that were packed"}
    ]


def test_a_store_from_elsewhere_gets_media_records(clipbert: Clipbert, tmp_path: Path) -> None:
    store = tmp_path / "theirs"
    with lmdb.open(str(store), map_size=2**28) as environment, environment.begin(write=True) as txn:
        txn.put(b"one", video(9))
    done = clipbert("store", "scan", store, "--workers", 1)
    assert done.returncode == 0, done.stderr
    assert "scanned 1 items" in done.stderr
    assert open_media(store, kind="video").has_records
    assert clipbert("store", "scan", store).returncode == 1
