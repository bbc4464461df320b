"""Other systems than Linux do not have all of Python's functions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import lmdb
import pytest
import torch
from running import Clipbert

from clipbert_cli.commands import demo
from clipbert_cli.runtime import launch
from clipbert_cli.runtime.process_exit import Ended
from clipbert_cli.store.environment import StoreWriter

# Functions of `os` that the typing stubs of Python know for Linux and not for macOS.
LINUX_ONLY = (
    *("sched_getaffinity", "sched_setaffinity", "sched_yield", "posix_fallocate", "posix_fadvise", "pipe2", "eventfd"),
    *("memfd_create", "getrandom", "copy_file_range", "splice", "pidfd_open", "setresuid", "getxattr", "setxattr"),
)


@pytest.fixture(autouse=True)
def other_system(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LINUX_ONLY:
        monkeypatch.delattr(os, name, raising=False)


def test_media_are_packed_by_one_process_per_core(clipbert: Clipbert, videos: Path, tmp_path: Path) -> None:
    done = clipbert("pack", videos, tmp_path / "store")
    assert done.returncode == 0, done.stderr
    assert "packed 8 videos" in done.stderr


def test_the_demo_trains_and_predicts(clipbert: Clipbert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(demo.SIZES, "smallest", demo.DemoSize(train=6, val=2, test=2, epochs=1))
    done = clipbert("demo", "--size", "smallest", "--json", tmp_path / "demo")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("per_node", "gpus", "cores", "started", "threads"),
    [
        ("2", 0, 8, "2", "4"),
        ("9", 0, 8, "9", "1"),
        ("gpu", 4, 64, "4", "16"),
        ("gpu", 1, 6, "1", "6"),
        ("gpu", 8, 4, "8", "1"),
    ],
)
def test_launched_processes_share_the_cores(
    per_node: str, gpus: int, cores: int, started: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of GPUs is counted like a number on the command line."""
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(launch, "available_cores", lambda: cores)
    options: list[str] = []

    def launch_processes(module: str, arguments: Sequence[str], given: Sequence[str]) -> Ended:
        options.extend(given)
        return Ended()

    monkeypatch.setattr(launch, "launch_processes", launch_processes)
    launch.launch(["finetune"], launch.Processes(per_node=per_node))
    assert os.environ["OMP_NUM_THREADS"] == str(threads)
    assert options[options.index("--nproc-per-node") + 1] == started
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    launch.launch(["finetune"], launch.Processes(per_node=per_node))
    assert os.environ["OMP_NUM_THREADS"] == "3"


def test_a_write_that_fails_for_another_reason_than_space_keeps_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = StoreWriter(tmp_path)
    writer.put({b"a": bytes(3_000_000)})
    writer.commit()
    size = (tmp_path / "data.mdb").stat().st_size
    writer.put({b"": b"a key that LMDB does not take"})
    with pytest.raises(lmdb.BadValsizeError):
        writer.commit()
    assert (tmp_path / "data.mdb").stat().st_size == size
    writer.close()
