"""`clipbert pack` as a person runs it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from made_media import image, marked_frame, video
from running import Clipbert

from clipbert_cli.store.lmdb_store import open_media

COMMAND = [sys.executable, "-m", "clipbert_cli", "pack"]


def test_the_store_is_on_stdout_and_the_summary_on_stderr(clipbert: Clipbert, videos: Path, tmp_path: Path) -> None:
    (videos / "empty.mp4").touch()
    for name in ("a.jxl", "b.JXL", "LICENSE"):
        (videos / name).touch()
    result = clipbert("pack", "--workers", 0, videos, tmp_path / "store")
    assert result.returncode == 0
    assert result.stdout == f"{tmp_path / 'store'}\n"
    assert "packed 8 videos" in result.stderr
    assert "skipped 1" in result.stderr
    assert "not taken, because of their endings: 2 .jxl, 1 no ending" in " ".join(result.stderr.split())
    assert "empty.mp4: the file is empty" in " ".join(result.stderr.split())
    assert "\x1b" not in result.stderr
    assert len(open_media(tmp_path / "store", kind="video")) == 8


def test_json_is_one_document(clipbert: Clipbert, videos: Path, tmp_path: Path) -> None:
    (videos / "empty.mp4").touch()
    result = clipbert("pack", "--workers", 0, videos, tmp_path / "store", "--json")
    document = json.loads(result.stdout)
    assert document["store"] == str(tmp_path / "store")
    assert (document["kind"], document["packed"]) == ("video", 8)
    assert document["skipped"] == [{"file": str(videos / "empty.mp4"), "reason": "the file is empty"}]


def test_strict_fails_after_packing_the_rest(clipbert: Clipbert, videos: Path, tmp_path: Path) -> None:
    (videos / "empty.mp4").touch()
    result = clipbert("pack", "--workers", 0, videos, tmp_path / "store", "--strict")
    assert result.returncode == 1
    assert "--strict" in result.stderr
    assert len(open_media(tmp_path / "store", kind="video")) == 8


def test_strict_is_content_with_whole_files(clipbert: Clipbert, videos: Path, tmp_path: Path) -> None:
    assert clipbert("pack", "--workers", 0, videos, tmp_path / "store", "--strict").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["{0}/videos", "{0}/videos"], 1, "exists"),
        (["{0}/nowhere", "{0}/store"], 2, "nowhere, which does not exist"),
        (["{0}/videos"], 2, "STORE"),
        (["{0}/videos", "{0}/store", "--kind", "sound"], 2, "--kind"),
        (["{0}/mixed", "{0}/store"], 2, "1 video and 1 image"),
        (["{0}/videos", "{0}/videos/video0.mp4/store"], 1, "is not a folder"),
    ],
)
def test_mistakes_are_one_message_without_a_traceback(
    clipbert: Clipbert,
    arguments: list[str],
    code: int,
    message: str,
    videos: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed/a.mp4").write_bytes(video(2))
    (tmp_path / "mixed/b.png").write_bytes(image(marked_frame(1)))
    result = clipbert("pack", "--workers", 0, *(part.format(tmp_path) for part in arguments))
    assert result.returncode == code
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mixed", "videos"]


def test_an_interrupt_exits_130_and_the_same_command_goes_on(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    data = video(300, height=240, width=320)
    for index in range(300):
        (videos / f"{index}.mp4").write_bytes(data)
    with subprocess.Popen([*COMMAND, videos, tmp_path / "store"], stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".store.unfinished/data.mdb")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [".store.unfinished", "videos"]


def test_options_of_packing_reach_it(clipbert: Clipbert, videos: Path, tmp_path: Path) -> None:
    (videos / "sub").mkdir()
    (videos / "sub/video0.mkv").write_bytes(video(12))
    store = tmp_path / "store"
    options = ["--workers", 1, "--on-duplicate", "longest", "--transcode", "64:4:30", "--json"]
    done = clipbert("pack", videos, store, *options)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["packed"] == 8
    source = open_media(store, kind="video")
    assert (source.info("video0").width, len(source.info("video0").pts)) == (64, 12)
    del source
    (tmp_path / "more").mkdir()
    (tmp_path / "more/new.mp4").write_bytes(video(3))
    assert clipbert("pack", "--add", tmp_path / "more", store, "--workers", 0).returncode == 0
    assert len(open_media(store, kind="video")) == 9
    wrong = clipbert("pack", videos, tmp_path / "other", "--transcode", "448")
    assert wrong.returncode == 2
    assert "SIDE:GOP:CRF" in wrong.stderr


@pytest.mark.parametrize("name", ["index", "verify", "ls"])
def test_a_folder_of_any_name_can_be_packed(clipbert: Clipbert, videos: Path, tmp_path: Path, name: str) -> None:
    videos.rename(tmp_path / name)
    assert clipbert("pack", name, "store", "--workers", 0, cwd=tmp_path).returncode == 0
    assert len(open_media(tmp_path / "store", kind="video")) == 8
