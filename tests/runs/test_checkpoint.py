from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from clipbert_cli.errors import PathError, RunError
from clipbert_cli.runs.checkpoint import (
    damage,
    mark_best,
    remove_old_checkpoints,
    save_checkpoint,
    saved_steps,
    set_aside,
    strangers,
)
from clipbert_cli.runs.folder import RunFolder


def save(run: Path, step: int, *, best: bool = False) -> Path:
    folder = save_checkpoint(
        run / "checkpoints",
        step=step,
        write=lambda folder: (folder / "model").write_text(f"weights of {step}") and None,
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
    state = json.loads((run.checkpoint("best") / "state.json").read_text())
    assert (state["step"], state["epoch"]) == (5, 3)
    assert state["files"]["model"]["bytes"] == len("weights of 5")


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
        save_checkpoint(run.checkpoints, step=10, write=fail, state={})
    assert [path.name for path in run.checkpoints.iterdir()] == ["step_5"]
    assert run.checkpoint("latest").name == "step_5"


def test_a_checkpoint_that_is_not_there_is_an_error_that_lists_those_that_are(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run")
    with pytest.raises(RunError, match="has no checkpoint yet"):
        run.checkpoint("best")
    save(run.path, 5)
    with pytest.raises(RunError, match="no checkpoint 'step_7'; it has step_5"):
        run.checkpoint("step_7")


def test_a_new_run_takes_no_folder_that_exists(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="exists already"):
        RunFolder.absent(tmp_path)
    with pytest.raises(PathError, match="is an empty folder: a run is expected"):
        RunFolder.existing(tmp_path)


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run")
    folder = save(run.path, 5)
    (folder / "model").write_text("changed")
    assert (save(run.path, 5) / "model").read_text() == "weights of 5"
    assert [path.name for path in run.checkpoints.iterdir()] == ["step_5"]


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda folder: (folder / "model").write_text("weights of"), "model has 10 bytes, 13 were written"),
        (lambda folder: (folder / "model").write_text("weights 0f 10"), "model has changed since it was written"),
        (lambda folder: (folder / "model").unlink(), "model is missing"),
        (lambda folder: (folder / "state.json").write_text('{"step"'), "state.json cannot be read"),
        (lambda folder: (folder / "state.json").unlink(), "state.json cannot be read"),
        (lambda folder: (folder / "state.json").write_text("[]"), "state.json is not a JSON object"),
        *[
            (lambda folder, text=text: (folder / "state.json").write_text(text), "state.json lists no files")
            for text in ("{}", '{"files": 7}', '{"files": ["model"]}')
        ],
        *[
            (lambda folder, text=text: (folder / "state.json").write_text(text), "are not stated")
            for text in ('{"files": {"model": 13}}', '{"files": {"a": []}}', '{"files": {"model": {"bytes": 13}}}')
        ],
    ],
)
def test_a_damaged_checkpoint_is_known_and_the_one_before_it_is_used(tmp_path: Path, break_it, said: str) -> None:
    run = run_folder(tmp_path / "run")
    for step in (5, 10):
        save(run.path, step)
    assert damage(run.checkpoints / "step_10") is None
    break_it(run.checkpoints / "step_10")
    found, problems = run.newest_sound_checkpoint()
    assert found == run.checkpoints / "step_5"
    assert list(problems) == [run.checkpoints / "step_10"]
    assert said in problems[run.checkpoints / "step_10"]


def test_a_run_with_nothing_but_damaged_checkpoints_says_so(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run")
    assert run.newest_sound_checkpoint() == (None, {})
    (save(run.path, 5) / "model").unlink()
    with pytest.raises(RunError, match=r"every checkpoint is damaged:\n.*step_5: model is missing"):
        run.newest_sound_checkpoint()


def test_what_is_set_aside_is_kept_under_a_name_of_its_own(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run")
    names = [set_aside(save(run.path, 5)).name for _ in range(2)]
    assert names == ["step_5.damaged1", "step_5.damaged2"]
    assert run.newest_sound_checkpoint() == (None, {})


def test_records_of_later_steps_and_a_torn_line_are_forgotten(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run")
    lines = [json.dumps({"event": "train", "step": step}) for step in (1, 2, 3)]
    run.metrics.write_text("\n".join(lines) + '\n{"event": "tr')
    run.begin({}, after=2)
    assert run.metrics.read_text() == "\n".join(lines[:2]) + "\n"
    assert [record["step"] for record in run.records()] == [1, 2]


def test_a_folder_is_locked_by_one_process_and_free_when_it_ends(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run")
    code = (
        "import sys, pathlib; from clipbert_cli.runs.folder import RunFolder\n"
        "with RunFolder(pathlib.Path(sys.argv[1])).locked():\n    print('held', flush=True); sys.stdin.read()"
    )
    assert not run.is_locked()
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(run.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout
    assert other.stdout.readline() == "held\n"
    assert run.is_locked()
    with pytest.raises(RunError, match=f"is in use by process {other.pid} on "), run.locked():
        pass
    other.kill()
    other.communicate()
    assert not run.is_locked()
    with run.locked():
        pass


def a_file(path: Path) -> None:
    path.write_text("x")


def state_of(content: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.mkdir()
        (path / "state.json").write_text(content)

    return make


NAMES = ("step_007", "step_abc", "step_", "step_-9", "step_9.5", "step_\u0669", "step_" + "9" * 30)
NO_FOLDERS = (a_file, lambda path: path.symlink_to("nowhere"), lambda path: path.symlink_to(path))


@pytest.mark.parametrize(
    ("name", "make"), [*product(NAMES, (Path.mkdir, *NO_FOLDERS)), *product(["step_7"], NO_FOLDERS)]
)
def test_what_is_only_called_like_a_checkpoint_is_ignored(
    name: str, make: Callable[[Path], object], tmp_path: Path
) -> None:
    run = run_folder(tmp_path / "run")
    save(run.path, 5)
    make(run.checkpoints / name)
    assert run.newest_sound_checkpoint() == (run.checkpoints / "step_5", {})
    assert saved_steps(run.checkpoints) == [5]
    assert strangers(run.checkpoints) == [name]


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (Path.mkdir, "state.json cannot be read"),
        (state_of(""), "state.json cannot be read"),
        (state_of("{}"), "state.json lists no files"),
        (state_of('{"files": {}}'), "state.json lists no files"),
        (state_of('{"files": ["model.safetensors"]}'), "state.json lists no files"),
        (
            state_of('{"files": {"model.safetensors": 5}}'),
            "the size and the CRC-32 of model.safetensors are not stated",
        ),
        (
            state_of('{"files": {"model.safetensors": {"bytes": 5}}}'),
            "the size and the CRC-32 of model.safetensors are not stated",
        ),
        (state_of('{"files": {"a\\u0000b": {"bytes": 5, "crc32": 5}}}'), "is missing"),
        (state_of('{"files": {"model.safetensors": {"bytes": 5, "crc32": 5}}}'), "model.safetensors is missing"),
    ],
)
def test_the_checkpoint_before_a_damaged_one_is_taken(
    make: Callable[[Path], object], problem: str, tmp_path: Path
) -> None:
    run = run_folder(tmp_path / "run")
    save(run.path, 5)
    make(run.checkpoints / "step_7")
    found, damaged = run.newest_sound_checkpoint()
    assert found == run.checkpoints / "step_5"
    assert list(damaged) == [run.checkpoints / "step_7"]
    assert problem in damaged[run.checkpoints / "step_7"]
