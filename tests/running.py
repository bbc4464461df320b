"""What tests that run commands share: a model that trains in seconds, and how a finished command looks."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from forking import SERVER

Clipbert = Callable[..., "Finished"]
ClipbertProcess = Callable[..., "subprocess.Popen[str]"]

# The shipped recipes whose visual encoder comes from the Hugging Face Hub.
SIGLIP = ("msrvtt_qa_siglip", "msrvtt_retrieval_siglip", "vqa_siglip")

# Task -> the shipped recipe that trains it on the demo's data.
DEMO_RECIPES = {
    "open_ended_qa": "demo_qa",
    "image_qa": "demo_vqa",
    "multiple_choice": "demo_mc",
    "retrieval": "demo_retrieval",
    "pretraining": "demo_pretrain",
}

# The shipped recipes for a person's own data, which name no data.
KINDS = ("video_qa", "image_qa", "multiple_choice", "retrieval", "pretraining")

# A transformer and a training that take seconds; everything else is the demo's recipe.
SHORT = (
    "model.bert.hidden_size=16",
    "model.bert.num_attention_heads=2",
    "model.bert.intermediate_size=32",
    "model.bert.num_hidden_layers=1",
    "data.frame_size=64",
    "data.workers=0",
    "train.batch_size=4",
    "train.epochs=2",
    "train.validate_every_steps=null",
    "train.log_every_steps=1",
    "train.blind_baseline=false",
)

# The same with the published visual encoder, as small.
TINY = ("model.visual.stem_size=8", "model.visual.hidden_sizes=[8,8,16,16]", *SHORT)


def as_options(overrides: Sequence[str]) -> list[str]:
    """`--set` for each of them."""
    return [word for override in overrides for word in ("--set", override)]


def link_videos(source: Path, folder: Path, *, cut: str) -> Path:
    """A new folder with the videos of another, of which the one named `cut` ends after 900 bytes."""
    folder.mkdir()
    for video in source.iterdir():
        if video.name == cut:
            (folder / cut).write_bytes(video.read_bytes()[:900])
        else:
            (folder / video.name).symlink_to(video)
    return folder


def children_of(process: int) -> list[int]:
    """Return the children of a process by id, the oldest first, without the one that forks others for a test."""
    found = []
    for thread in Path(f"/proc/{process}/task").glob("*/children"):
        for child in map(int, _text(thread).split()):
            name, _, rest = _text(Path(f"/proc/{child}/stat")).rpartition(")")
            state, *fields = rest.split() or "Z"
            if state != "Z" and not name.endswith(f"({SERVER}"):
                found.append((int(fields[18]), child))  # its start
    return [child for _, child in sorted(found)]


def is_running(process: int) -> bool:
    """Return whether a process has not ended. Nobody may have asked how it ended."""
    return _text(Path(f"/proc/{process}/stat")).rpartition(")")[2].split()[:1] not in ([], ["Z"])


def _text(file: Path) -> str:
    """Return what the system says of a process, nothing if it has ended meanwhile."""
    try:
        return file.read_text()
    except OSError:
        return ""


def fill(file: Path) -> None:
    """Write a file that takes all the space of its disk."""
    with suppress(OSError), file.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(4096))


def more_space(disk: Path, *, megabytes: int = 64) -> None:
    subprocess.run(["mount", "-o", f"remount,size={megabytes}m", str(disk)], check=True)


def eventually(condition: Callable[[], object], *, seconds: float = 30) -> None:
    """Wait for something that another process or thread does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def under_other_memory(code: str) -> list[str]:
    """Return what a Python program prints where new memory holds one value, and where it holds another.

    What reads memory that it never wrote differs, whatever else is equal.
    """
    # glibc fills the memory that it gives out and takes back with this byte or its complement.
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "MALLOC_PERTURB_": byte, "PYTHONPATH": str(Path(__file__).parents[1])},
            stdout=subprocess.PIPE,
            text=True,
        )
        for byte in ("1", "170")
    ]
    printed = [process.communicate(timeout=120)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    return printed


@cache
def can_be_without_network() -> bool:
    """Return whether this user may start a process that has no network: `unshare -rn COMMAND`."""
    found = shutil.which("unshare")
    return found is not None and subprocess.run([found, "-rn", "true"], check=False).returncode == 0


class Signal:
    """A sink that sends this process a signal after a step."""

    def __init__(self, step: int, number: signal.Signals) -> None:
        self.step, self.number = step, number

    def advance(self, step: int) -> None:
        if step == self.step:
            signal.raise_signal(self.number)

    def write(self, record: Mapping[str, Any]) -> None:
        pass

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Finished:
    """What a command left: exit code, stdout, stderr."""

    returncode: int
    stdout: str
    stderr: str


@cache
def command_line() -> Any:
    """Return the command, which is made from functions once: that takes longer than most commands of tests."""
    from typer.main import get_command

    from clipbert_cli.commands.app import app

    return get_command(app)


def run_clipbert(*arguments: object, cwd: Path | None = None, stdin: str = "", **environment: str) -> Finished:
    """Run the command line without a terminal, in this process."""
    stdout, stderr = io.StringIO(), io.StringIO()
    logger = logging.getLogger("clipbert")
    handlers, propagate = logger.handlers[:], logger.propagate
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(stdout), redirect_stderr(stderr):
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        for name, value in environment.items():
            patch.setenv(name, value)
        if cwd:
            patch.chdir(cwd)
        with pytest.raises(SystemExit) as exited:
            command_line()([str(argument) for argument in arguments], prog_name="clipbert")
    logger.handlers[:], logger.propagate = handlers, propagate
    return Finished(int(exited.value.code or 0), stdout.getvalue(), stderr.getvalue())


LARGEST = 2**27
"""The bytes of a file that is read to see whether it has changed."""


def contents(folder: Path) -> dict[str, str]:
    """Return every entry below a folder: a digest of a file's bytes, the target of a link, the word `folder`."""
    found = {}
    for here, folders, files in os.walk(folder):
        # Text, because paths as objects take most of the time.
        for path in (f"{here}/{name}" for name in (*folders, *files)):
            facts = os.lstat(path)
            if stat.S_ISLNK(facts.st_mode):
                content = f"link to {os.readlink(path)}"
            elif stat.S_ISDIR(facts.st_mode):
                content = "folder"
            elif not stat.S_ISREG(facts.st_mode) or facts.st_size > LARGEST:
                content = "no file, or a large one"
            else:
                content = _digest(path, facts)
            found[path.removeprefix(f"{folder}/")] = content
    return dict(sorted(found.items()))


_digests: dict[tuple[int, ...], str] = {}


def _digest(path: str, facts: os.stat_result) -> str:
    """Return the digest of a file's bytes, which are read again when its time of change is another."""
    key = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
    if key not in _digests:
        _digests[key] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return _digests[key]


def train(recipe: str, settings: Sequence[str], data: Path, run: Path) -> Path:
    """Train a shipped recipe with other settings on made data, and return the run's folder."""
    from clipbert_cli.recipe.load import load_recipe
    from clipbert_cli.train.training import Training

    Training(load_recipe(recipe, overrides=settings, data_root=data), run).run()
    return run


def different(whole: Path, run: Path) -> list[str]:
    """Return the parts that differ between two finished runs: links, weights, training state and records."""
    import torch

    parts: dict[str, Callable[[Path], Any]] = {
        "latest": lambda run: os.readlink(run / "latest"),
        "best": lambda run: os.readlink(run / "best"),
        "model.safetensors": lambda run: (run / "latest" / "model.safetensors").read_bytes(),
        "average.safetensors": lambda run: (run / "latest" / "average.safetensors").read_bytes(),
        "training.pt": lambda run: _plain(torch.load(run / "latest" / "training.pt", weights_only=True)),
        "metrics.jsonl": records,
    }
    return [name for name, read in parts.items() if read(whole) != read(run)]


def _plain(state: Any) -> Any:
    """Return a nested state with its tensors as their types and bytes."""
    if isinstance(state, dict):
        return {key: _plain(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [_plain(value) for value in state]
    return (state.dtype, state.numpy().tobytes()) if hasattr(state, "numpy") else state


def records(run: Path, *events: str) -> list[dict[str, Any]]:
    """Return the records of training and validation, or of these events, without what depends on the clock."""
    timed = {"examples_per_second", "data_wait", "peak_memory_mib"}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    kept = [line for line in lines if line["event"] in (events or ("train", "validation"))]
    return [{name: value for name, value in line.items() if name not in timed} for line in kept]
