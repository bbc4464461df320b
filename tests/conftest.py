"""Fixtures that several packages share: a small made data set, packed, and a run trained on it."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

# Compiled kernels of one instruction set crash a process that is limited to another, so each has a cache of its own.
if limit := os.environ.get("ATEN_CPU_CAPABILITY"):
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", f"{tempfile.gettempdir()}/torchinductor-{limit}")
if "PYTEST_XDIST_WORKER" in os.environ:  # one process a core: threads of one would only wait for those of another
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from forking import ForkedPopen, variables
from made_media import video
from running import TINY, Clipbert, ClipbertProcess, run_clipbert, train

from clipbert_cli.assets.demo_media import write_demo_media

REQUIRE = "CLIPBERT_REQUIRE"

pytest.register_assert_rewrite("dali_cases")  # a failed comparison of pixels says by how much


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs where no tests of them are asked for: the numbers of the others are a CPU's."""
    # A shell starts its background jobs without Ctrl-C, and the commands that tests start would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not re.search(r"(?<!not )\bcuda\b", f"{os.environ.get(REQUIRE, '')} {config.option.markexpr}"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine cannot run; `CLIPBERT_REQUIRE=cuda,dali` turns such a skip into a failure."""
    required = os.environ.get(REQUIRE, "").split(",")
    for name, is_there in FOUND.items():
        if item.get_closest_marker(name) and not is_there():
            if name in required:
                pytest.fail(f"{REQUIRE} asks for {name}, and it is not here")
            pytest.skip(f"no {name} here")


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _has_dali() -> bool:
    return importlib.util.find_spec("nvidia.dali") is not None if importlib.util.find_spec("nvidia") else False


def _has_browser() -> bool:
    return chromium() is not None and importlib.util.find_spec("playwright") is not None


@cache
def _has_strace() -> bool:
    """Whether strace is here and may trace: containers can forbid it."""
    command = [shutil.which("strace") or "false", "-f", "-o", os.devnull, "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _has_trackers() -> bool:
    return all(map(importlib.util.find_spec, ("tensorboard", "wandb", "mlflow")))


FOUND = {
    "cuda": _has_cuda,
    "dali": _has_dali,
    "browser": _has_browser,
    "trackers": _has_trackers,
    "strace": _has_strace,
}
"""Whether this machine has what the marker of a test asks for."""


def chromium() -> str | None:
    """The program of a browser whose pages tests look at."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(autouse=True)
def usual_logging() -> Iterator[None]:
    """Undo what a command that ran in this process did to the package's logger: `caplog` sees what reaches the root."""
    logger = logging.getLogger("clipbert")
    handlers, propagate = logger.handlers[:], logger.propagate
    yield
    logger.handlers[:], logger.propagate = handlers, propagate


@pytest.fixture(autouse=True)
def usual_scheduling() -> Iterator[None]:
    """Undo what SVT-AV1 does to the process of a superuser that encodes with it: real-time priority, for children too.

    Threads that wait in a loop, as those of libvpx, then wait for ever for one that gets no processor.
    """
    yield
    if hasattr(os, "sched_getscheduler") and os.sched_getscheduler(0) != os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@pytest.fixture(scope="session")
def clipbert() -> Clipbert:
    """Runs the command line without a terminal, in this process: starting one costs seconds."""
    return run_clipbert


@pytest.fixture
def clipbert_process() -> Iterator[ClipbertProcess]:
    """Starts the command in a process of its own, which ends with the test: for signals, pipes and limits."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object, is_forked: bool = True, **options: Any) -> subprocess.Popen[str]:
        code = "import sys; sys.argv[0] = 'clipbert'; from clipbert_cli.commands.app import main; main()"
        command = [sys.executable, "-c", code, *map(str, arguments)]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
        kind = ForkedPopen if is_forked else subprocess.Popen
        started.append(kind(command, env=variables(), **streams))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait(timeout=60)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


@pytest.fixture(scope="session")
def made_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's data in its smallest form: 8 + 3 + 4 videos, packed. Not to be changed."""
    from clipbert_cli.store.packing import pack_media

    folder = tmp_path_factory.mktemp("made")
    write_demo_media(folder, videos={"train": 8, "val": 3, "test": 4}, seed=1, progress=lambda: None)
    pack_media([folder / "videos"], folder / "vis_db", kind="video")
    return folder


@pytest.fixture(scope="session")
def trained_run(made_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of `demo_qa` on `made_data`. Not to be changed."""
    return train("demo_qa", TINY, made_data, tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="session")
def retrieval_run(made_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `demo_retrieval` with two steps: its scores are no good, but they differ. Not to be changed."""
    settings = (*TINY, "train.max_steps=2", "train.batch_size=2", "model.bert.initializer_range=0.3")
    return train("demo_retrieval", settings, made_data, tmp_path_factory.mktemp("runs") / "retrieval")


@pytest.fixture(scope="session")
def choice_run(made_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `demo_mc` with one step. Not to be changed."""
    return train("demo_mc", (*TINY, "train.max_steps=1"), made_data, tmp_path_factory.mktemp("runs") / "choice")


@pytest.fixture(scope="module")
def clip() -> bytes:
    return video(6)


@pytest.fixture
def videos(tmp_path: Path, clip: bytes) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for index in range(8):
        (folder / f"video{index}.mp4").write_bytes(clip)
    return folder


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def dirty_memory() -> Iterator[None]:
    """New tensors hold the largest value of their type (nan for floats) until something is written."""
    import torch

    torch.use_deterministic_algorithms(True)
    try:
        assert (torch.empty(9, dtype=torch.uint8) == 255).all()
        yield
    finally:
        torch.use_deterministic_algorithms(False)
