from __future__ import annotations

import json
from pathlib import Path

import pytest

from clipbert_cli.engine.checkpoint import mark_best, remove_old_checkpoints, save_checkpoint
from clipbert_cli.engine.run_folder import RunFolder
from clipbert_cli.errors import RunError


def save(run: Path, step: int, *, best: bool = False) -> Path:
    folder = save_checkpoint(
        run / "checkpoints",
        step=step,
        write_model=lambda folder: (folder / "model").write_text(f"weights of {step}") and None,
        state={"epoch": 3},
    )
    if best:
        mark_best(run / "checkpoints", step=step)
    return folder


def run_folder(path: Path) -> RunFolder:
    path.mkdir()
    (path / "recipe.yaml").write_text("name: x\n")
    return RunFolder.existing(path)


def test_links_follow_the_latest_and_the_best(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run")
    save(run.path, 5, best=True)
    save(run.path, 10)
    assert run.checkpoint("latest").name == "step_10"
    assert run.checkpoint("best").name == "step_5"
    assert run.checkpoint("step_5").name == "step_5"
    assert json.loads((run.checkpoint("best") / "state.json").read_text()) == {"step": 5, "epoch": 3}


def test_a_run_folder_can_be_moved(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run")
    save(run.path, 5, best=True)
    moved = run.path.rename(tmp_path / "elsewhere")
    assert (RunFolder(moved).checkpoint("best") / "model").read_text() == "weights of 5"


def test_old_checkpoints_go_and_the_best_stays(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run")
    (run.checkpoints / "step_10_mine").mkdir(parents=True)  # a person's own copy
    for step in (5, 10, 20, 100):
        save(run.path, step, best=step == 5)
        remove_old_checkpoints(run.checkpoints, keep_last=2)
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["step_100", "step_10_mine", "step_20", "step_5"]


def test_a_save_that_fails_leaves_no_checkpoint(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run")
    save(run.path, 5, best=True)

    def fail(folder: Path) -> None:
        (folder / "model").write_text("half")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        save_checkpoint(run.checkpoints, step=10, write_model=fail, state={})
    assert [path.name for path in run.checkpoints.iterdir()] == ["step_5"]
    assert run.checkpoint("latest").name == "step_5"


def test_a_checkpoint_that_is_not_there_is_an_error_that_lists_those_that_are(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run")
    with pytest.raises(RunError, match="no checkpoint 'best'; it has none yet"):
        run.checkpoint("best")
    save(run.path, 5)
    with pytest.raises(RunError, match="no checkpoint 'step_7'; it has step_5"):
        run.checkpoint("step_7")


def test_a_new_run_takes_no_folder_that_exists(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="exists already"):
        RunFolder.absent(tmp_path)
    with pytest.raises(RunError, match=r"no recipe\.yaml"):
        RunFolder.existing(tmp_path)
