"""`finetune --profile`: its output, its files, and that it leaves runs alone."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import TINY, Clipbert, ClipbertProcess, Finished, as_options

from clipbert_cli.model import flops

PHASES = ["data", "copy", "forward", "backward", "communication", "optimizer", "other"]
STEPS = "train.max_steps=12"  # 3 to warm up, 1 after those that are timed: up to 8 are


@pytest.fixture(scope="module", autouse=True)
def small_matrices() -> Iterator[None]:
    """Measure the machine with small matrices: the large ones take seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(flops.MATRIX_SIDE, "cpu", 256)
        yield


def arguments(made_data: Path, run: Path, *overrides: str) -> list[str]:
    options = as_options([*TINY, STEPS, *overrides])
    return ["finetune", "-r", "demo_qa", "--run", str(run), "--data-root", str(made_data), *options]


@pytest.fixture(scope="module")
def profiled(clipbert: Clipbert, made_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Finished, Path]:
    """Three steps profiled, and the folder beside which that was done."""
    folder = tmp_path_factory.mktemp("profiled")
    done = clipbert(*arguments(made_data, folder / "run"), "--profile", 3, "--json")
    assert done.returncode == 0, done.stderr
    return done, folder


def test_the_phases_of_a_step_add_up_to_its_time(profiled: tuple[Finished, Path]) -> None:
    result = json.loads(profiled[0].stdout)
    assert list(result["phases"]) == PHASES
    assert sum(phase["share"] for phase in result["phases"].values()) == pytest.approx(1)
    assert sum(phase["ms"] for phase in result["phases"].values()) == pytest.approx(result["step_ms"])
    assert sum(result["steps_ms"]) == pytest.approx(3 * result["step_ms"])
    assert (result["steps"], len(result["steps_ms"]), result["warm_up_steps"]) == (3, 3, 3)
    for name in ("data", "forward", "backward", "optimizer"):
        assert result["phases"][name]["ms"] > 0
    assert result["phases"]["communication"] == {"ms": 0, "share": 0}


def test_speed_memory_and_use_of_the_machine_agree(profiled: tuple[Finished, Path]) -> None:
    result = json.loads(profiled[0].stdout)
    assert result["examples_per_step"] == 48  # 4 groups of 12
    assert result["examples_per_second"] == pytest.approx(48_000 / result["step_ms"])
    assert result["peak_memory_mib"] > 0
    assert result["flop_per_second"] == pytest.approx(1000 * result["flop_per_step"] / result["step_ms"])
    assert result["mfu"] == pytest.approx(result["flop_per_second"] / result["matrix_flop_per_second"])
    assert 0 < result["mfu"] < 1
    assert result["data_ms_by_process"] == [pytest.approx(result["phases"]["data"]["ms"])]
    assert (result["precision"], result["training"]["steps"]) == ("fp32", 12)


def test_the_table_is_on_stderr_plain_and_narrow(profiled: tuple[Finished, Path]) -> None:
    lines = profiled[0].stderr.splitlines()
    start = next(number for number, line in enumerate(lines) if line.split() == ["phase", "ms", "share"])
    table = lines[start + 1 : start + 9]
    assert [line.split()[0] for line in table] == [*PHASES, "step"]
    assert all(line.endswith("%") and len(line) <= 80 for line in table)
    assert [line.split()[0] for line in lines[start + 9 :]] == ["speed", "memory", "compute", "MFU"]
    assert any(line.startswith("training   12 steps") for line in lines[:start])
    assert "\x1b" not in profiled[0].stderr


def test_only_the_profile_is_written_beside_the_run_folder(profiled: tuple[Finished, Path]) -> None:
    done, folder = profiled
    assert [path.name for path in folder.iterdir()] == ["run-profile.json"]
    said = json.loads(done.stdout)
    assert said.pop("profile") == str(folder / "run-profile.json")
    assert json.loads((folder / "run-profile.json").read_text()) == said


def test_a_run_can_begin_and_exist_beside_its_profile(clipbert: Clipbert, made_data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = arguments(made_data, run)
    first = clipbert(*command, "--profile", 1)
    assert first.returncode == 0, first.stderr
    assert first.stdout == f"{tmp_path / 'run-profile.json'}\n"
    trained = clipbert(*command)
    assert trained.returncode == 0, trained.stderr
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    again = clipbert(*command, "--profile", 2, "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads((tmp_path / "run-profile.json").read_text())["steps"] == 2
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    listed = clipbert("runs", "ls", tmp_path, "--json")
    assert [each["run"] for each in json.loads(listed.stdout)] == [str(run)]


def test_two_processes_report_the_time_of_their_communication(
    clipbert_process: ClipbertProcess, made_data: Path, tmp_path: Path
) -> None:
    command = [*arguments(made_data, tmp_path / "run", "train.batch_size=2"), "--profile", 2, "--json"]
    process = clipbert_process(*command, "--nproc-per-node", 2)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    result = json.loads(stdout)
    assert result["processes"] == len(result["data_ms_by_process"]) == 2
    assert result["phases"]["communication"]["ms"] > 0
    assert result["phases"]["backward"]["ms"] > 0
    assert sum(phase["share"] for phase in result["phases"].values()) == pytest.approx(1)
    assert result["examples_per_step"] == 48
    assert stderr.count("waits longest for data") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["run-profile.json"]


def test_ctrl_c_leaves_nothing(clipbert_process: ClipbertProcess, made_data: Path, tmp_path: Path) -> None:
    overrides = ["train.max_steps=100000", "data.workers=1"]
    process = clipbert_process(*arguments(made_data, tmp_path / "run", *overrides), "--profile", 90000)
    assert process.stderr is not None
    assert any("are timed after 5 that warm up" in line for line in process.stderr)
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert "error: interrupted by SIGINT" in stderr
    assert "Traceback" not in stderr
    assert stdout == ""
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------ refusals


def test_a_training_with_too_few_steps_is_measured_as_far_as_it_goes(
    clipbert: Clipbert, made_data: Path, tmp_path: Path
) -> None:
    done = clipbert(*arguments(made_data, tmp_path / "run"), "--profile", 100, "--json")
    assert done.returncode == 0, done.stderr
    assert "warning: this training has 12 steps: 8 are timed instead of 100" in done.stderr
    assert json.loads(done.stdout)["steps"] == 8


def test_a_training_without_a_step_to_measure_is_wrong_usage(
    clipbert: Clipbert, made_data: Path, tmp_path: Path
) -> None:
    done = clipbert(*arguments(made_data, tmp_path / "run", "train.max_steps=4"), "--profile", 10)
    assert done.returncode == 2
    assert "--profile is 10, but this training has only 4 steps, and a profile needs 4 more" in done.stderr
    assert "set train.max_steps to 14" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("other", ["--resume", "--dry-run", "--requeue"])
def test_a_profile_excludes_options_that_need_a_run(
    clipbert: Clipbert, made_data: Path, tmp_path: Path, other: str
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/recipe.yaml").touch()
    done = clipbert(*arguments(made_data, tmp_path / "run"), "--profile", 2, other)
    assert done.returncode == 2
    assert f"--profile and {other} do not go together" in done.stderr


def test_a_profile_of_no_steps_is_wrong_usage(clipbert: Clipbert, made_data: Path, tmp_path: Path) -> None:
    done = clipbert(*arguments(made_data, tmp_path / "run"), "--profile", 0)
    assert done.returncode == 2
    assert "--profile" in done.stderr


def test_a_file_that_cannot_be_written_is_an_error_after_the_table(
    clipbert: Clipbert, made_data: Path, tmp_path: Path
) -> None:
    (tmp_path / "run-profile.json").mkdir()
    done = clipbert(*arguments(made_data, tmp_path / "run"), "--profile", 2)
    assert done.returncode == 1
    assert f"{tmp_path / 'run-profile.json'} cannot be written: Is a directory" in done.stderr
    assert "phase" in done.stderr
