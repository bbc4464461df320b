"""`clipbert store` as a person runs it."""

from __future__ import annotations

import json
from pathlib import Path

import lmdb
import numpy as np
import pytest
from made_media import marked_frame, read_index, video
from PIL import Image
from running import Clipbert

from clipbert_cli.store.lmdb_store import open_media


def test_a_store_is_verified_listed_and_shown(clipbert: Clipbert, videos: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert clipbert("pack", videos, store, "--workers", 1).returncode == 0
    done = clipbert("store", "verify", store, "--workers", 0)
    assert (done.returncode, done.stdout) == (0, "")
    assert "verified 8 items: 0 wrong, 0 damaged" in done.stderr
    listed = clipbert("store", "ls", store).stdout.splitlines()
    assert len(listed) == 8
    assert listed[0].split("\t")[2:] == ["96x64", "h264", "30 fps", "6 frames", "0.2 s", "packets"]
    rows = json.loads(clipbert("store", "ls", store, "--json").stdout)
    assert [row["id"] for row in rows] == [f"video{index}" for index in range(8)]
    assert rows[0] == {
        "id": "video0",
        "kind": "video",
        "codec": "h264",
        "width": 96,
        "height": 64,
        "rotation": 0,
        "frames": 6,
        "first_seconds": 0.0,
        "last_seconds": round(5 / 30, 6),
        "rate": 30.0,
        "bytes": (videos / "video0.mp4").stat().st_size,
        "decoded_by": "packets",
        "damage": None,
        "not_on_gpu": "",
    }
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


def test_every_kind_of_item_is_listed_with_the_same_keys(clipbert: Clipbert, videos: Path, tmp_path: Path) -> None:
    whole = video(60)
    (videos / "damaged.mp4").write_bytes(whole[: len(whole) // 2] + bytes(200) + whole[len(whole) // 2 + 200 :])
    (videos / "broadcast.ts").write_bytes(video(9, container="mpegts"))
    clipbert("pack", videos, tmp_path / "store", "--workers", 0)
    (tmp_path / "images").mkdir()
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(marked_frame(1)).save(tmp_path / "images/turned.jpg", exif=turned)
    clipbert("pack", tmp_path / "images", tmp_path / "pictures", "--workers", 0)
    with lmdb.open(str(tmp_path / "theirs"), map_size=2**28) as environment, environment.begin(write=True) as txn:
        txn.put(b"one", video(9))
    rows = {}
    for name in ("store", "pictures", "theirs"):
        rows |= {row["id"]: row for row in json.loads(clipbert("store", "ls", tmp_path / name, "--json").stdout)}
    assert len({tuple(row) for row in rows.values()}) == 1
    assert rows["broadcast"]["decoded_by"] == "linear"
    assert (rows["broadcast"]["frames"], rows["broadcast"]["damage"]) == (9, None)
    assert 0 < rows["damaged"]["frames"] < 60
    assert rows["damaged"]["damage"].startswith(f"decoding fails after frame {rows['damaged']['frames']} of 60: ")
    picture = rows["turned"]
    assert (picture["codec"], picture["width"], picture["height"], picture["rotation"]) == ("JPEG", 96, 64, 90)
    assert (rows["one"]["kind"], rows["one"]["frames"]) == ("video", None)
    said = {name: row["not_on_gpu"] for name, row in rows.items() if name in ("video0", "broadcast", "turned", "one")}
    assert said == {"video0": "", "broadcast": "it has no packet table", "turned": "", "one": None}
    said_last = clipbert("store", "ls", tmp_path / "store").stderr.splitlines()[-1]
    assert "a usual GPU decodes 8 of 10 videos; not 2: it has no packet table" in said_last
    assert "GPU" not in clipbert("store", "ls", tmp_path / "theirs").stderr


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
def test_chosen_frames_are_drawn_side_by_side_as_they_are_coded(
    clipbert: Clipbert, tmp_path: Path, container: str
) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/a.mkv").write_bytes(video(40, container=container))
    store, sheet = tmp_path / "store", tmp_path / "sheet.png"
    clipbert("pack", tmp_path / "videos", store, "--workers", 0)
    done = clipbert("store", "show", store, "a", "--frames", "39,0,17,17", "--plain", "-o", sheet)
    assert done.returncode == 0, done.stderr
    with Image.open(sheet) as picture:
        assert picture.size == (4 * 96, 64)
        pixels = np.asarray(picture)
    assert [read_index(pixels[:, 96 * i : 96 * (i + 1)]) for i in range(4)] == [39, 0, 17, 17]
    done = clipbert("store", "show", store, "a", "--frames", "39,0", "-o", sheet, "--overwrite", "--json")
    assert [frame["frame"] for frame in json.loads(done.stdout)["clips"][0]] == [39, 0]
    for frames, code, message in (
        ("0,40", 1, f"video 'a' in {store}: there is no frame 40"),
        ("0,x", 2, "--frames is '0,x'"),
        ("-1", 2, "--frames is '-1'"),
        ("", 2, "--frames is empty"),
    ):
        done = clipbert("store", "show", store, "a", f"--frames={frames}", "-o", tmp_path / "none.png")
        assert (done.returncode, message in done.stderr) == (code, True), done.stderr
    done = clipbert("store", "show", store, "a", "--plain", "-o", tmp_path / "none.png")
    assert done.returncode == 2
    assert not (tmp_path / "none.png").exists()


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
    assert "scanned 1 item:" in done.stderr
    assert open_media(store, kind="video").has_records
    assert clipbert("store", "scan", store).returncode == 1
