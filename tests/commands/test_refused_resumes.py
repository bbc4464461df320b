"""A run that cannot be resumed, whatever the reason, stays as it is, byte by byte."""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import subprocess
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from running import TINY, Clipbert, contents, train
from safetensors.torch import load_file, save_file

LONGER = ("--set", "train.epochs=3")


@pytest.fixture(scope="module")
def averaged(made_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an average of its weights. Not to be changed."""
    settings = (*TINY, "train.ema_decay=0.9", "train.precision=auto")
    return train("demo_qa", settings, made_data, tmp_path_factory.mktemp("averaged") / "run")


@pytest.fixture
def run(averaged: Path, tmp_path: Path) -> Path:
    """A run in which resuming has much to do: a later checkpoint is damaged, a process was killed, a link is wrong."""
    run = shutil.copytree(averaged, tmp_path / "run", symlinks=True)
    last = (run / "latest").resolve()
    later = shutil.copytree(last, last.with_name("step_99"))
    os.truncate(later / "training.pt", 10)
    (run / "latest").unlink()
    (run / "latest").symlink_to("checkpoints/step_99")
    with (run / "metrics.jsonl").open("a") as stream:
        stream.write('{"event": "train", "step": 99, "loss": 1.0}\n')
    ended = subprocess.Popen(["true"])
    ended.wait()
    (run / f"checkpoints/.step_100.unfinished-{socket.gethostname()}-{ended.pid}").mkdir()
    (run / ".lock").unlink(missing_ok=True)
    return run


def sound(run: Path) -> Path:
    """The last checkpoint that is not damaged."""
    return max((each for each in run.glob("checkpoints/step_?")), key=lambda each: each.name)


def state(run: Path, name: str, change: Callable[[Any], object]) -> None:
    """Change a JSON file."""
    value = json.loads((run / name).read_text())
    change(value)
    (run / name).write_text(json.dumps(value))


def replace(run: Path, name: str, content: bytes | None = None) -> None:
    """Give a file of the last sound checkpoint another content, or none that is new, with the right checksum."""
    file = sound(run) / name
    if content is not None:
        file.write_bytes(content)
    stated = {"bytes": file.stat().st_size, "crc32": zlib.crc32(file.read_bytes())}
    state(sound(run), "state.json", lambda value: value["files"].update({name: stated}))


def tensors(run: Path, name: str, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the tensors of a file of weights."""
    weights = load_file(sound(run) / name)
    change(weights)
    save_file(weights, sound(run) / name)
    replace(run, name)


def training(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the state of the optimiser and the counters."""
    file = sound(run) / "training.pt"
    value = torch.load(file, weights_only=True)
    change(value)
    torch.save(value, file)
    replace(run, "training.pt")


def other_answers(run: Path) -> None:
    state(run, "answers.json", lambda value: value.update({"a new answer": len(value)}))


def other_vocabulary(run: Path) -> None:
    with (run / "vocab.txt").open("a") as stream:
        stream.write("another\n")


def all_damaged(run: Path) -> None:
    for file in run.glob("checkpoints/*/model.safetensors"):
        file.unlink()


def first_shape(weights: dict[str, torch.Tensor]) -> None:
    name = min(weights)
    weights[name] = torch.zeros(3, 7)


def not_finite(weights: dict[str, torch.Tensor]) -> None:
    weights[min(weights)].fill_(float("nan"))


def bad_validation(run: Path) -> None:
    step = sound(run).name.removeprefix("step_")
    (run / "metrics.jsonl").write_text(f'{{"event": "validation", "step": {step}, "accuracy": "much"}}\n')


def folder_of_measurements(run: Path) -> None:
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").mkdir()


WEIGHTS, AVERAGE = "model.safetensors", "average.safetensors"
REASONS: dict[str, tuple[Callable[[Path], object], str]] = {
    "other vocabulary": (other_vocabulary, "vocab"),
    "other answers": (other_answers, "answer"),
    "other recipe": (
        lambda run: state(sound(run), "state.json", lambda value: value.update(recipe="x")),
        "recipe.yaml",
    ),
    "other data": (lambda run: state(sound(run), "state.json", lambda value: value.update(data="x")), "records"),
    "other precision": (lambda run: training(run, lambda value: value.update(precision="fp16")), "train.precision"),
    "no weights file": (all_damaged, "is missing"),
    "damaged weights": (lambda run: replace(run, WEIGHTS, b"\xff" * 5000), WEIGHTS),
    "weights of another shape": (lambda run: tensors(run, WEIGHTS, first_shape), "shape"),
    "missing tensors": (lambda run: tensors(run, WEIGHTS, lambda value: value.popitem()), WEIGHTS),
    "weights that are not finite": (lambda run: tensors(run, WEIGHTS, not_finite), "finite"),
    "damaged config": (lambda run: replace(run, "config.json", b"{"), "config.json"),
    "damaged average": (lambda run: replace(run, AVERAGE, b"\xff" * 5000), AVERAGE),
    "average of another shape": (lambda run: tensors(run, AVERAGE, first_shape), AVERAGE),
    "damaged training state": (lambda run: replace(run, "training.pt", b"\xff" * 500), "training.pt"),
    "training state without an entry": (lambda run: training(run, lambda value: value.pop("optimizer")), "training.pt"),
    "another optimiser": (lambda run: training(run, lambda value: value.update(optimizer={})), "training.pt"),
    "a score that is no number": (bad_validation, "accuracy"),
    "measurements that are a folder": (folder_of_measurements, "metrics.jsonl"),
}


def refuse(clipbert: Clipbert, run: Path, data: Path, message: str, *options: str) -> None:
    before = contents(run)
    done = clipbert("finetune", "--resume", "--run", run, "--data-root", data, *(options or LONGER))
    assert done.returncode in (1, 2), done.stderr
    assert message in done.stderr
    assert done.stderr.count("error: ") == 1
    assert contents(run) == before


@pytest.mark.parametrize("reason", REASONS)
def test_a_run_that_is_refused_is_as_it_was(clipbert: Clipbert, made_data: Path, run: Path, reason: str) -> None:
    spoil, message = REASONS[reason]
    spoil(run)
    refuse(clipbert, run, made_data, message)


@pytest.mark.parametrize(("before", "named"), [("bf16", "bf16"), ("bf16", "fp32"), ("fp16", "fp16"), ("fp16", "bf16")])
def test_a_run_of_another_device_continues_only_in_a_precision_that_is_named(
    clipbert: Clipbert, made_data: Path, run: Path, before: str, named: str
) -> None:
    training(run, lambda value: value.update(precision=before))
    says = f"train.precision is auto: the run was trained with {before}, but this machine computes with fp32"
    refuse(clipbert, run, made_data, says)
    resume = ("finetune", "--resume", "--run", run, "--data-root", made_data, *LONGER)
    done = clipbert(*resume, "--set", f"train.precision={named}")
    assert done.returncode == 0, done.stderr
    assert torch.load(run / "latest/training.pt", weights_only=True)["precision"] == named


@pytest.mark.parametrize("setting", ["train.epochs=1", "train.learning_rate=1", "train.best_metric=none"])
def test_settings_that_are_refused_leave_the_run_as_it_was(
    clipbert: Clipbert, made_data: Path, run: Path, setting: str
) -> None:
    refuse(clipbert, run, made_data, setting.partition("=")[0], "--set", setting)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file grow beyond a size, as on a disk with so much space left."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", [".lock", "environment.json", "metrics.jsonl"])
def test_a_run_for_which_there_is_no_space_is_as_it_was(
    clipbert: Clipbert, made_data: Path, run: Path, name: str
) -> None:
    space = 0
    if name != ".lock":
        # This file is larger than the space, and the others are not.
        large = {"environment.json": json.dumps(["a" * 20_000]), "metrics.jsonl": '{"step": 0}\n' * 2000}
        (run / name).write_text(large[name])
        space = 10_000
    with largest_file(space):
        refuse(clipbert, run, made_data, "File too large")


def test_what_was_refused_goes_on_once_it_is_put_right(clipbert: Clipbert, made_data: Path, run: Path) -> None:
    good = (run / "vocab.txt").read_bytes()
    other_vocabulary(run)
    refuse(clipbert, run, made_data, "vocab")
    (run / "vocab.txt").write_bytes(good)
    done = clipbert("finetune", "--resume", "--run", run, "--data-root", made_data, *LONGER)
    assert done.returncode == 0, done.stderr
    assert "step_99: training.pt has 10 bytes" in done.stderr
    assert not [name for name in os.listdir(run / "checkpoints") if name.startswith(".")]
    assert not (run / ".lock").exists()
    steps = [json.loads(line).get("step") for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert 99 not in steps
