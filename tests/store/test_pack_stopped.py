"""A pack that is interrupted, killed or out of disk leaves no store, and the next one ends as an undisturbed one."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from made_media import video
from store_content import content, names

from clipbert_cli.errors import StoreError
from clipbert_cli.store.ingest import Transcode
from clipbert_cli.store.lmdb_store import open_media
from clipbert_cli.store.packing import pack_media
from clipbert_cli.store.verify import verify_store


def test_an_interrupt_keeps_what_is_done_and_the_next_pack_goes_on(videos: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack_media([videos], tmp_path / "store", on_progress=interrupt)
    assert names(tmp_path) == [".store.unfinished", "videos"]
    assert pack_media([videos], tmp_path / "store").packed == 8
    assert names(tmp_path) == ["store", "videos"]


# In processes of their own: packing that waits where the test wants it, so that the test can kill it there.
WAITING = """
import sys, time
from pathlib import Path
from clipbert_cli.store import packing
from clipbert_cli.store import environment as store_writer
where = sys.argv[3]
store_writer._COMMIT_KEYS = 1
if where == "publish":
    finish = store_writer.StoreWriter.close
    def close(self):
        finish(self)
        print("here", flush=True)
        time.sleep(60)
    store_writer.StoreWriter.close = close
def wait(done, total):
    if where == str(done):
        print("here", flush=True)
        time.sleep(60)
packing.pack_media([Path(sys.argv[1])], Path(sys.argv[2]), on_progress=wait)
"""


def packing_until(where: str, videos: Path, store: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING, str(videos), str(store), where], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    return process


@pytest.mark.parametrize(("where", "resumed"), [("1", 1), ("5", 5), ("8", 8), ("publish", 8)])
def test_a_killed_pack_leaves_no_store_and_the_next_one_goes_on(
    where: str, resumed: int, videos: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    with packing_until(where, videos, store) as process:
        process.send_signal(signal.SIGKILL)
    assert names(tmp_path) == [".store.unfinished", "videos"]
    if where != "publish":
        with pytest.raises(StoreError, match="not complete"):
            open_media(tmp_path / ".store.unfinished", kind="video")
    summary = pack_media([videos], store)
    assert (summary.packed, summary.resumed) == (8, resumed)
    assert names(tmp_path) == ["store", "videos"]
    assert names(store) == ["data.mdb"]
    assert content(store) == content(pack_media([videos], tmp_path / "undisturbed").store)


def test_what_changed_since_a_pack_was_stopped_is_packed_again(videos: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    with packing_until("5", videos, store) as process:
        process.send_signal(signal.SIGKILL)
    changed = video(9)
    (videos / "video1.mp4").write_bytes(changed)
    assert pack_media([videos], store).resumed == 4
    assert open_media(store, kind="video").read("video1") == changed


def test_a_stopped_pack_goes_on_only_with_its_own_settings(videos: Path, tmp_path: Path) -> None:
    with packing_until("5", videos, tmp_path / "store") as process:
        process.send_signal(signal.SIGKILL)
    with pytest.raises(StoreError, match="other settings"):
        pack_media([videos], tmp_path / "store", transcode=Transcode())


def test_a_second_pack_of_a_store_is_refused_while_the_first_runs(videos: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    with packing_until("4", videos, store) as process:
        try:
            with pytest.raises(StoreError, match=f"another pack \\(process {process.pid} on "):
                pack_media([videos], store)
            assert (tmp_path / ".store.unfinished").is_dir()
        finally:
            process.kill()


def test_a_killed_addition_leaves_a_whole_store_and_goes_on(videos: Path, tmp_path: Path) -> None:
    store, more = tmp_path / "store", tmp_path / "more"
    more.mkdir()
    for index in range(3):
        (more / f"new{index}.mp4").write_bytes(video(7))
    pack_media([videos], store)
    script = WAITING.replace("Path(sys.argv[2]), ", "Path(sys.argv[2]), add=True, ")
    arguments = [sys.executable, "-c", script, str(more), str(store), "2"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        with pytest.raises(StoreError, match="another pack"):
            open_media(store, kind="video")
        process.kill()
    assert len(open_media(store, kind="video")) == 10
    assert verify_store(store).wrong == ()
    summary = pack_media([more], store, add=True)
    assert (summary.packed, summary.resumed) == (3, 2)
    assert len(open_media(store, kind="video")) == 11


FULL_DISK = """
import resource, sys
from pathlib import Path
from clipbert_cli.store import packing
from clipbert_cli.store import environment as store_writer
from clipbert_cli.errors import OutputError
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
store_writer._COMMIT_BYTES = int(sys.argv[4])
try:
    packing.pack_media([Path(sys.argv[1])], Path(sys.argv[2]), add="add" in sys.argv)
except OutputError as exc:
    print(exc, exc.hint, sep="\\n")
"""


def pack_on_full_disk(videos: Path, store: Path, *, limit: int, commit_bytes: int, add: bool = False) -> None:
    words = [str(videos), str(store), str(limit), str(commit_bytes), *(["add"] if add else [])]
    command = [sys.executable, "-c", FULL_DISK, *words]
    result = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert f"{store} cannot be written: File too large: a file may have up to {limit:,} bytes" in result.stdout
    assert "raise the limit (ulimit -f unlimited, in a new shell), then give the same command again" in result.stdout


@pytest.mark.parametrize("limit", [4096, 20_000])
def test_a_full_disk_is_named_and_leaves_nothing_if_nothing_is_packed(limit: int, videos: Path, tmp_path: Path) -> None:
    pack_on_full_disk(videos, tmp_path / "store", limit=limit, commit_bytes=1)
    assert names(tmp_path) == ["videos"]


@pytest.mark.parametrize("commit_bytes", [1, 15_000], ids=["every item", "a few items"])
def test_what_is_packed_when_the_disk_is_full_is_kept(commit_bytes: int, videos: Path, tmp_path: Path) -> None:
    pack_on_full_disk(videos, tmp_path / "store", limit=49_152, commit_bytes=commit_bytes)
    assert names(tmp_path) == [".store.unfinished", "videos"]
    summary = pack_media([videos], tmp_path / "store")
    assert summary.packed == 8
    assert 0 < summary.resumed < 8
    assert content(tmp_path / "store") == content(pack_media([videos], tmp_path / "undisturbed").store)


def test_an_addition_on_a_full_disk_leaves_a_store_that_can_be_read(videos: Path, tmp_path: Path) -> None:
    store, more = tmp_path / "store", tmp_path / "more"
    more.mkdir()
    for index in range(12):
        (more / f"new{index:02}.mp4").write_bytes((videos / "video0.mp4").read_bytes())
    pack_media([videos], store)
    limit = (store / "data.mdb").stat().st_size + 40_000
    pack_on_full_disk(more, store, limit=limit, commit_bytes=1, add=True)
    held = len(open_media(store, kind="video"))
    assert 8 < held < 20
    summary = pack_media([more], store, add=True)
    assert (summary.packed, summary.resumed) == (12, held - 8)
    assert len(open_media(store, kind="video")) == 20
    assert not (store / "pack.journal").exists()


KILLED = """
import sys
from pathlib import Path
from clipbert_cli.store import packing
from clipbert_cli.store import environment as store_writer
store_writer._COMMIT_KEYS = 1
print("here", flush=True)
packing.pack_media([Path(sys.argv[1])], Path(sys.argv[2]))
"""


def test_packs_killed_at_random_moments_end_as_an_undisturbed_one(videos: Path, tmp_path: Path) -> None:
    store, random = tmp_path / "store", np.random.default_rng(0)
    start = time.perf_counter()
    undisturbed = pack_media([videos], tmp_path / "undisturbed").store
    seconds = time.perf_counter() - start
    for _ in range(3):
        command = [sys.executable, "-c", KILLED, str(videos), str(store)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "here\n"
            time.sleep(random.uniform(0, 1.5 * seconds))
            process.kill()
    if not store.exists():
        pack_media([videos], store)
    assert content(store) == content(undisturbed)
    # A kill between the store's renaming and the removal of its lock leaves the lock, which nobody holds any more.
    assert set(names(store)) <= {"data.mdb", "pack.lock"}
    (store / "pack.lock").touch()
    pack_media([videos], store, add=True, on_duplicate="first")
    assert names(store) == ["data.mdb"]
