"""What the meta file of predictions says about them."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from running import Clipbert

from clipbert_cli.infer.made_by import MAX_COMPARED, meta_file, read_meta


@pytest.mark.parametrize("size", [MAX_COMPARED + 1, 2**33, 2**40])
@pytest.mark.parametrize("stated", [True, False])
def test_predictions_that_are_too_large_are_not_compared(size: int, stated: bool, tmp_path: Path) -> None:
    path = tmp_path / "preds.jsonl"
    with path.open("wb") as file:
        file.truncate(size)
    written = {"bytes": size if stated else size - 1, "crc32": 0}
    meta_file(path).write_text(json.dumps({"predictions": written}))
    started = time.process_time()
    made = read_meta(path)
    assert time.process_time() - started < 1
    assert made.meta is None
    assert made.unknown == f"unknown: {path} is too large to be compared with preds.jsonl.meta.json"


@pytest.fixture
def moved(trained_run: Path, made_data: Path, tmp_path: Path, clipbert: Clipbert) -> Path:
    """A folder with a run and predictions of its best checkpoint. Every command of the tests runs in it."""
    shutil.copytree(trained_run, tmp_path / "run", symlinks=True)
    command = ("infer", "--run", "run", "--split", "test", "--data-root", made_data, "-o", "preds.jsonl")
    assert clipbert(*command, cwd=tmp_path).returncode == 0
    return tmp_path


def use_another_best(folder: Path) -> str:
    best = (folder / "run/best").readlink()
    other = next(each for each in (folder / "run/checkpoints").iterdir() if each.name != best.name)
    (folder / "run/best").unlink()
    (folder / "run/best").symlink_to(Path("checkpoints") / other.name)
    return f"preds.jsonl was made with checkpoint {best.name}, and the best of {folder}/run is {other.name}"


def train_again(folder: Path) -> str:
    state = folder / "run/best/state.json"
    content = json.loads(state.read_text())
    content["files"]["model.safetensors"]["crc32"] += 1
    state.write_text(json.dumps(content))
    step = (folder / "run/best").readlink().name
    return f"made with checkpoint {step}, and the best of {folder}/run is another {step}, trained since"


def move_and_use_another(folder: Path) -> str:
    says = use_another_best(folder)
    (folder / "run").rename(folder / "moved")
    (folder / "run").symlink_to("nowhere")
    return says.replace(f"{folder}/run", "moved")


@pytest.mark.parametrize("change", [use_another_best, train_again, move_and_use_another])
def test_predictions_older_than_the_best_checkpoint_are_warned_of_once(
    moved: Path, made_data: Path, clipbert: Clipbert, change: Callable[[Path], str]
) -> None:
    says = change(moved)
    named = ["--run", "moved"] if (moved / "moved").exists() else []
    for command in (["eval", "preds.jsonl"], ["report", "preds.jsonl", "--examples", "1", "-o", "new.html"]):
        done = clipbert(*command, *named, "--data-root", made_data, cwd=moved)
        assert done.returncode == 0
        assert done.stderr.count("warning: preds.jsonl was made with") == 1
        assert says in done.stderr
        assert "clipbert infer --run" in done.stderr


def test_predictions_of_the_best_checkpoint_or_of_a_run_that_is_gone_are_not_warned_of(
    moved: Path, made_data: Path, clipbert: Clipbert
) -> None:
    command = ("eval", "preds.jsonl", "--data-root", made_data)
    assert "was made with" not in clipbert(*command, cwd=moved).stderr
    shutil.rmtree(moved / "run")
    assert clipbert(*command, cwd=moved).returncode == 0
    assert "was made with" not in clipbert(*command, cwd=moved).stderr


def test_predictions_of_a_checkpoint_that_was_asked_for_are_not_warned_of(
    moved: Path, made_data: Path, clipbert: Clipbert
) -> None:
    best = (moved / "run/best").readlink().name
    other = next(each.name for each in (moved / "run/checkpoints").iterdir() if each.name != best)
    made = ("--run", "run", "--split", "test", "--data-root", made_data, "-o", "other.jsonl")
    assert clipbert("infer", *made, "--checkpoint", other, cwd=moved).returncode == 0
    done = clipbert("eval", "other.jsonl", "--data-root", made_data, cwd=moved)
    assert done.returncode == 0
    assert "was made with" not in done.stderr
