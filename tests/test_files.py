"""Files are whole or absent, also where the writer is killed; locks exclude processes and threads."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from clipbert_cli import files
from clipbert_cli.errors import OutputError
from clipbert_cli.system_errors import system_error

HOST = socket.gethostname()


@pytest.mark.parametrize("length", [1, 2, 3])
def test_errors_that_are_each_others_causes_are_looked_at_once(length: int) -> None:
    circle = [RuntimeError(str(number)) for number in range(length)]
    for number, exc in enumerate(circle):
        exc.__cause__ = circle[(number + 1) % length]
    assert system_error(circle[0]) is None
    circle[-1].__context__ = OSError(errno.ENOSPC, "full")  # what a cause replaces
    assert system_error(circle[0]) is None


def test_the_error_of_the_system_is_found_behind_others() -> None:
    full = OSError(errno.ENOSPC, "full")
    outer = RuntimeError("cannot write")
    outer.__context__ = ValueError("while closing")
    outer.__context__.__cause__ = full
    assert system_error(outer) is full


def gone_process() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    with files.atomic_file(tmp_path / "a") as stream:
        stream.write("ä\n")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a").read_bytes() == "ä\n".encode()
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("mode", ["w", "wb"])
def test_an_error_leaves_the_earlier_file_and_nothing_else(tmp_path: Path, mode: str) -> None:
    (tmp_path / "a").write_text("before")
    with pytest.raises(ValueError, match="bad"), files.atomic_file(tmp_path / "a", mode=mode):
        raise ValueError("bad")
    assert (tmp_path / "a").read_text() == "before"
    assert names(tmp_path) == ["a"]


def test_a_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "new").write_text("")
    with files.atomic_path(tmp_path / "a") as temporary:
        temporary.chmod(0o600)  # as safetensors does
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "new").stat().st_mode


def test_a_link_is_replaced_and_its_target_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("mine")
    (tmp_path / "a").symlink_to("outside")
    files.write_json(tmp_path / "a", [1])
    assert (tmp_path / "outside").read_text() == "mine"
    assert json.loads((tmp_path / "a").read_text()) == [1]


def test_a_lock_is_not_taken_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("mine")
    (tmp_path / ".lock").symlink_to("outside")
    with pytest.raises(OSError, match="symbolic"), files.lock(tmp_path / ".lock"):
        pass
    assert (tmp_path / "outside").read_text() == "mine"


def test_a_folder_is_replaced_only_on_request(tmp_path: Path) -> None:
    for text in ("one", "two"):
        with files.atomic_folder(tmp_path / "a", replace=True, durable=True) as folder:
            (folder / "file").write_text(text)
    with pytest.raises(FileExistsError), files.atomic_folder(tmp_path / "a") as folder:
        (folder / "file").write_text("three")
    assert (tmp_path / "a" / "file").read_text() == "two"
    assert names(tmp_path) == ["a"]


def test_leftovers_of_processes_that_are_gone_are_removed_by_the_next_writer(tmp_path: Path) -> None:
    gone, alive = gone_process(), os.getppid()
    leftovers = [f".a.unfinished-{HOST}-{gone}", f".a.removed-{HOST}-{gone}"]
    own_number_used_again = f".a.unfinished-{HOST}-{os.getpid()}"
    kept = [f".a.unfinished-{HOST}-{alive}", f".a.unfinished-other-{gone}", f".b.unfinished-{HOST}-{gone}"]
    for name in [*leftovers[1:], *kept]:
        (tmp_path / name).mkdir()
    (tmp_path / leftovers[0]).write_text("")
    (tmp_path / own_number_used_again).write_text("")
    with files.atomic_file(tmp_path / "a"):
        pass
    assert names(tmp_path) == sorted([*kept, "a"])
    files.remove_leftovers(tmp_path)
    assert names(tmp_path) == sorted([*kept[:2], "a"])


def test_a_killed_writer_leaves_no_file_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    code = "import os, sys, pathlib; from clipbert_cli.files import atomic_file\n"
    code += "with atomic_file(pathlib.Path(sys.argv[1])) as s: s.write('x'); s.flush(); os.kill(os.getpid(), 9)"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert [name.split("-")[0] for name in names(tmp_path)] == [".a.unfinished"]
    files.write_json(tmp_path / "a", 1)
    assert names(tmp_path) == ["a"]


def test_a_link_moves_in_one_step(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / "folder" / name).mkdir(parents=True)
        files.point_link(tmp_path / "latest", tmp_path / "folder" / name)
        assert os.readlink(tmp_path / "latest") == f"folder/{name}"
    assert names(tmp_path) == ["folder", "latest"]


def test_a_lock_excludes_a_thread_and_names_its_owner(tmp_path: Path) -> None:
    owners: list[str] = []

    def try_it() -> None:
        with pytest.raises(files.LockHeldError) as held, files.lock(tmp_path / "lock"):
            pass
        owners.append(held.value.owner)

    with files.lock(tmp_path / "lock"):
        assert files.is_locked(tmp_path / "lock")
        thread = threading.Thread(target=try_it)
        thread.start()
        thread.join()
    assert owners == [f"process {os.getpid()} on {HOST}"]
    assert not (tmp_path / "lock").exists()


def test_a_child_made_by_fork_does_not_hold_the_lock(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with files.lock(tmp_path / "lock"):
        child = os.fork()
        if child == 0:
            os.read(reading, 1)
            os._exit(0)
    try:
        with files.lock(tmp_path / "lock"):  # although the child lives
            pass
    finally:
        os.write(writing, b"x")
        os.waitpid(child, 0)


def test_waiting_for_a_lock_ends_when_it_is_free(tmp_path: Path) -> None:
    holder = files.lock(tmp_path / "lock")
    holder.__enter__()
    timer = threading.Timer(0.3, lambda: holder.__exit__(None, None, None))
    timer.start()
    with files.lock(tmp_path / "lock", wait=True):
        assert timer.finished.is_set()
    assert not (tmp_path / "lock").exists()


# ------------------------------------------------------------------------------------------ full disks


def by_torch(path: Path) -> None:
    with path.open("wb") as stream:
        torch.save({"a": torch.zeros(50_000), "b": torch.ones(50_000)}, stream)


def by_safetensors(path: Path) -> None:
    safetensors.torch.save_file({"a": torch.zeros(50_000)}, path)


def by_pillow(path: Path) -> None:
    Image.effect_noise((300, 300), 90).save(path, format="png")


def by_ffmpeg(path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as output:
        stream = output.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for _ in range(9):
            pixels = np.random.default_rng(0).integers(0, 256, (240, 320, 3)).astype(np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode())


def by_text(path: Path) -> None:
    path.write_text("x" * 200_000)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("write", [by_torch, by_safetensors, by_pillow, by_ffmpeg, by_text])
def test_a_full_disk_is_named_with_its_path_whichever_library_writes(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OSError, match="File too large") as failed, files.atomic_path(tmp_path / "file.x") as path:
            write(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "file.x" in str(failed.value.filename)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "error",
    [
        OutputError("preds.jsonl cannot be written: No space left on device"),
        ValueError("not about a disk"),
        PermissionError(errno.EACCES, os.strerror(errno.EACCES), "other"),
    ],
)
def test_other_errors_stay_what_they_are(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as failed, files.atomic_path(tmp_path / "file.x"):
        raise error
    assert failed.value is error
