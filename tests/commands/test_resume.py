"""Resuming a run after signals, kills, damage and mistakes, and what is refused."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from forking import ForkedPopen, variables
from running import TINY, Clipbert, Signal, as_options, different, records

from clipbert_cli import files
from clipbert_cli.errors import InterruptionError
from clipbert_cli.loading.loader import BatchLoader
from clipbert_cli.recipe.load import load_recipe
from clipbert_cli.recipe.schema import Recipe
from clipbert_cli.runtime.distributed import World
from clipbert_cli.train import resume as train_resume
from clipbert_cli.train.optim import learning_rates
from clipbert_cli.train.training import Training
from clipbert_cli.types import Batch

SETTINGS = (
    *TINY,
    "model.bert.hidden_dropout=0.1",
    "train.batch_size=2",
    "train.epochs=3",
    "train.save_every_steps=1",
    "train.keep_last=4",
    "train.ema_decay=0.9",
)
STEPS = 12


def recipe(made_data: Path, *more: str) -> Recipe:
    return load_recipe("demo_qa", overrides=[*SETTINGS, *more], data_root=made_data)


@pytest.fixture(scope="module")
def whole(made_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was not interrupted. Tests must not change it."""
    run = tmp_path_factory.mktemp("whole") / "run"
    Training(recipe(made_data), run).run()
    return run


@pytest.fixture(scope="module")
def stopped_once(made_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("stopped") / "run"
    stop(made_data, run, after=6)
    return run


@pytest.fixture
def stopped(stopped_once: Path, tmp_path: Path) -> Path:
    """A run that SIGTERM stopped after step 6, a copy for each test."""
    return shutil.copytree(stopped_once, tmp_path / "stopped", symlinks=True)


def stop(made_data: Path, run: Path, *, after: int, number: signal.Signals = signal.SIGTERM) -> InterruptionError:
    with pytest.raises(InterruptionError) as interrupted:
        Training(recipe(made_data), run, resume=run.exists()).run([Signal(after, number)])
    return interrupted.value


@pytest.mark.parametrize(("name", "command"), [("demo_pretrain", "pretrain"), ("demo_retrieval", "finetune")])
def test_a_stopped_training_names_the_command_that_goes_on(
    made_data: Path, tmp_path: Path, name: str, command: str
) -> None:
    run = tmp_path / "run"
    with pytest.raises(InterruptionError) as interrupted:
        Training(load_recipe(name, overrides=TINY, data_root=made_data), run).run([Signal(1, signal.SIGTERM)])
    assert interrupted.value.hint == f"resume with: clipbert {command} --run {run} --resume"


def resume(clipbert: Clipbert, run: Path, *more: object) -> str:
    """Resume to the end with the command, and return its stderr."""
    done = clipbert("finetune", "--run", run, "--resume", *more)
    assert done.returncode == 0, done.stderr
    return done.stderr


# ------------------------------------------------------------------------------------------------ interruptions


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_loses_no_step_and_the_result_is_bitwise_equal(
    number: signal.Signals, clipbert: Clipbert, made_data: Path, whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    error = stop(made_data, run, after=5, number=number)
    assert str(error) == f"interrupted by {number.name} after step 5 of {STEPS}; everything is saved in {run}"
    assert error.hint == f"resume with: clipbert finetune --run {run} --resume"
    assert error.exit_code == (130 if number is signal.SIGINT else 143)
    assert os.readlink(run / "latest") == "checkpoints/step_5"
    assert [record["step"] for record in records(run) if record["event"] == "train"] == [1, 2, 3, 4, 5]
    stop(made_data, run, after=9)
    assert "resumed after step 9" in resume(clipbert, run)
    assert different(whole, run) == []
    starts = json.loads((run / "environment.json").read_text())
    assert [start["step"] for start in starts] == [0, 5, 9]
    assert {"torch", "tokenizers"} <= starts[0]["libraries"].keys()
    assert [each["device"] for each in starts[0]["processes"]] == ["cpu"]


def test_an_interruption_before_the_first_step_leaves_nothing(
    made_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(recipe(made_data), tmp_path / "run")
    batches = BatchLoader.__iter__

    def interrupted(loader: BatchLoader) -> Iterator[Batch]:
        signal.raise_signal(signal.SIGTERM)
        yield from batches(loader)

    monkeypatch.setattr(BatchLoader, "__iter__", interrupted)
    with pytest.raises(InterruptionError, match="interrupted by SIGTERM before the first step: nothing is kept"):
        training.run()
    assert not (tmp_path / "run").exists()


@pytest.fixture
def is_killed(made_data: Path) -> Callable[..., bool]:
    """Starts or resumes a run in a process of its own. Returns whether it was killed, after a time or in a save."""
    settings = [*SETTINGS, "train.gradient_accumulation_steps=2", "train.save_every_steps=2", "train.max_steps=24"]
    script = Path(__file__).parents[1] / "killed_training.py"

    def killed(run: Path, *, call: int = 0, seconds: float | None = None) -> bool:
        words = [sys.executable, script, str(call), run, made_data, *settings, "train.validate_every_steps=7"]
        process = ForkedPopen(words, env=variables())
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        process.kill()
        assert process.wait() in (0, -signal.SIGKILL)
        return process.returncode != 0

    return killed


def test_kill_at_ten_random_moments_saves_included(is_killed: Callable[..., bool], tmp_path: Path) -> None:
    """Half of the kills come at a random time, half at a random moment inside the saving of a checkpoint.

    A run that ends before its kill is compared with the undisturbed one, and the next run begins.
    """
    rng, kills, inside_saves = random.Random(0), 0, 0
    begin = time.monotonic()
    assert not is_killed(tmp_path / "whole")
    duration = time.monotonic() - begin
    while kills < 10:
        run = tmp_path / f"run{kills}"
        while is_killed(run, **random_moment(rng, kills, duration)):
            inside_saves += bool(kills % 2 or any(run.glob("checkpoints/.step_*")))
            kills += 1
        assert different(tmp_path / "whole", run) == []
        shutil.rmtree(run)
    assert inside_saves >= 3


def random_moment(rng: random.Random, kills: int, duration: float) -> dict[str, Any]:
    """Return the moment of the next kill; none after the tenth."""
    if kills >= 10:
        return {}
    return {"call": rng.randrange(1, 30)} if kills % 2 else {"seconds": rng.uniform(0, duration / 2)}


def test_a_validation_that_was_interrupted_is_done_on_resume(
    clipbert: Clipbert, made_data: Path, whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    training = Training(recipe(made_data), run)

    def interrupt(*_: Any) -> Any:
        raise KeyboardInterrupt

    training.setup.task.score = interrupt  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        training.run()
    assert os.readlink(run / "latest") == "checkpoints/step_4"
    assert not (run / "best").exists()
    resume(clipbert, run)
    assert different(whole, run) == []


def test_a_run_without_a_checkpoint_starts_again(clipbert: Clipbert, whole: Path, stopped: Path) -> None:
    shutil.rmtree(stopped / "checkpoints")
    assert "started again: it has no checkpoint yet" in resume(clipbert, stopped)
    assert different(whole, stopped) == []


def test_resuming_a_finished_run_changes_nothing(clipbert: Clipbert, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run, symlinks=True)
    done = clipbert("finetune", "--run", run, "--resume", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["last"]["step"] == STEPS
    assert different(whole, run) == []


# ------------------------------------------------------------------------------------------------ threads


class Threads(Signal):
    """A sink that notes the number of threads of each step, and stops the run after one."""

    def __init__(self, last: int) -> None:
        super().__init__(last, signal.SIGTERM)
        self.used: list[int] = []

    def advance(self, step: int) -> None:
        self.used.append(torch.get_num_threads())
        super().advance(step)


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_a_run_goes_on_with_the_threads_that_it_began_with(
    made_data: Path, tmp_path: Path, set_threads: Callable[[int], None]
) -> None:
    set_threads(1)
    stop(made_data, tmp_path / "run", after=2)
    assert json.loads((tmp_path / "run" / "environment.json").read_text())[0]["threads"] == 1
    set_threads(2)
    # Stopped twice: the second start has recorded the threads of the first.
    for last in (4, 6):
        used = Threads(last)
        with pytest.raises(InterruptionError):
            Training(recipe(made_data), tmp_path / "run", resume=True).run([used])
        assert used.used == [1, 1]
        assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("recorded", "cores", "used", "warns"),
    [
        ({"processes": 1, "threads": 3}, 4, 3, False),
        ({"processes": 1, "threads": 3}, 2, 3, True),
        ({"processes": 1, "threads": 64}, 8, 64, True),
        ({"processes": 2, "threads": 3}, 4, 2, False),
        ({"processes": 1, "threads": 10**9}, 4, 2, False),
        ({"processes": 1, "threads": "3"}, 4, 2, False),
        ({"processes": 1, "threads": 0}, 4, 2, False),
        (None, 4, 2, False),
    ],
)
def test_recorded_threads_are_used_whatever_cores_are_here(
    recorded: object,
    cores: int,
    used: int,
    warns: bool,
    made_data: Path,
    set_threads: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With another number of processes, results differ in any case; nonsense in a file is not used."""
    monkeypatch.setattr(train_resume, "available_cores", lambda: cores)
    set_threads(2)
    resumption = train_resume.Resumption(None, {"computing": recorded}, {}, recipe(made_data))
    with train_resume.same_threads(resumption, World(0, 1, torch.device("cpu"))):
        assert torch.get_num_threads() == used
    assert torch.get_num_threads() == 2
    assert ("threads per process" in caplog.text) == warns
    assert (f"{cores} cores" in caplog.text) == warns


# ------------------------------------------------------------------------------------------------ damage


def test_a_truncated_checkpoint_is_reported_and_renamed_and_the_previous_one_is_used(
    clipbert: Clipbert, whole: Path, stopped: Path
) -> None:
    weights = stopped / "checkpoints" / "step_6" / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    said = resume(clipbert, stopped)
    assert "resumed after step 5" in said
    assert f"warning: {weights.parent}: model.safetensors has" in said
    assert "it is renamed to step_6.damaged1" in said
    assert (stopped / "checkpoints" / "step_6.damaged1" / "model.safetensors").exists()
    assert different(whole, stopped) == []


def test_only_damaged_checkpoints_are_an_error_that_changes_nothing(clipbert: Clipbert, stopped: Path) -> None:
    for file in stopped.glob("checkpoints/*/training.pt"):
        file.write_bytes(b"")
    before = sorted(stopped.rglob("*"))
    done = clipbert("finetune", "--run", stopped, "--resume")
    assert done.returncode == 1
    assert "every checkpoint is damaged" in done.stderr
    assert "step_6: training.pt has 0 bytes" in done.stderr
    assert sorted(stopped.rglob("*")) == before


def test_a_disk_that_fills_up_while_saving_loses_no_checkpoint(
    clipbert: Clipbert, whole: Path, stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(files, "fsync", full)
        done = clipbert("finetune", "--run", stopped, "--resume")
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "free some space" in done.stderr
    assert os.readlink(stopped / "latest") == "checkpoints/step_6"
    assert not list(stopped.glob("checkpoints/.*"))
    resume(clipbert, stopped)
    assert different(whole, stopped) == []


# ------------------------------------------------------------------------------------------------ refusals


def test_another_recipe_is_refused_with_every_difference(clipbert: Clipbert, stopped: Path) -> None:
    other = as_options(["train.learning_rate=0.1", "model.bert.num_hidden_layers=2", "data.workers=1"])
    done = clipbert("finetune", "--run", stopped, "--resume", *other)
    assert done.returncode == 1
    assert "train.learning_rate was 0.0005, now 0.1" in done.stderr
    assert "model.bert.num_hidden_layers was 1, now 2" in done.stderr
    assert "data.workers" not in done.stderr
    assert os.readlink(stopped / "latest") == "checkpoints/step_6"


def test_batches_and_loading_may_change_on_resume(clipbert: Clipbert, whole: Path, stopped: Path) -> None:
    said = resume(clipbert, stopped, *as_options(["train.batch_size=1", "data.workers=1", "train.keep_last=3"]))
    assert "2 groups per step: 1 process, 2 forward passes of up to 1 groups" in said
    losses = [[record["loss"] for record in records(run) if record["event"] == "train"] for run in (whole, stopped)]
    assert losses[1][:6] == losses[0][:6]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)  # dropout is drawn batch by batch


def test_a_checkpoint_of_another_run_is_refused(
    clipbert: Clipbert, made_data: Path, stopped: Path, tmp_path: Path
) -> None:
    larger = tmp_path / "larger"
    Training(recipe(made_data, "model.bert.num_hidden_layers=2"), larger).run()
    shutil.copytree(larger / "checkpoints" / f"step_{STEPS}", stopped / "checkpoints" / f"step_{STEPS}")
    done = clipbert("finetune", "--run", stopped, "--resume")
    assert done.returncode == 1
    assert f"step_{STEPS} was not made with this run's recipe.yaml" in done.stderr


def test_other_training_records_are_refused(clipbert: Clipbert, made_data: Path, stopped: Path, tmp_path: Path) -> None:
    moved = tmp_path / "data"
    shutil.copytree(made_data, moved)
    train = moved / "txt_db" / "train.jsonl"
    train.write_text("".join(train.read_text().splitlines(keepends=True)[:-1]))
    done = clipbert("finetune", "--run", stopped, "--resume", "--data-root", moved)
    assert done.returncode == 1
    assert "the training records are not those that" in done.stderr


def test_a_run_folder_in_use_is_refused(clipbert: Clipbert, stopped: Path) -> None:
    code = (
        "import sys, pathlib; from clipbert_cli.runs.folder import RunFolder\n"
        "with RunFolder(pathlib.Path(sys.argv[1])).locked():\n    print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(stopped)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as other:
        assert other.stdout
        other.stdout.readline()
        done = clipbert("finetune", "--run", stopped, "--resume")
        other.kill()
    assert done.returncode == 1
    assert f"run folder {stopped} is in use by process {other.pid} on " in done.stderr


@pytest.mark.parametrize("given", [[], ["--recipe", "demo_qa"]])
def test_resume_without_a_run_says_so(clipbert: Clipbert, tmp_path: Path, given: list[str]) -> None:
    done = clipbert("finetune", "--run", tmp_path / "absent", "--resume", *given)
    assert done.returncode == 2
    assert str(tmp_path / "absent") in done.stderr
    assert "run" in done.stderr
    assert not (tmp_path / "absent").exists()


def test_neither_recipe_nor_run_is_a_wrong_usage(clipbert: Clipbert) -> None:
    for given, missing in ((["--resume"], "--run is missing"), ([], "--recipe is missing")):
        done = clipbert("finetune", *given)
        assert done.returncode == 2
        assert missing in done.stderr


# ------------------------------------------------------------------------------------------------ SLURM


def test_a_preempted_job_is_requeued_and_resumes_by_itself(
    clipbert: Clipbert, made_data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    (tools / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    run = tmp_path / "run"
    with pytest.raises(InterruptionError) as stopped:
        Training(recipe(made_data), run).run([Signal(3, signal.SIGUSR1)], ask_requeue=True)
    assert stopped.value.hint == "SLURM was asked to start the job again"
    assert (tmp_path / "asked").read_text() == "requeue 4711\n"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    common = ["--recipe", "demo_qa", "--run", run, "--data-root", made_data, *as_options(SETTINGS)]
    done = clipbert("finetune", *common, "--requeue")
    assert done.returncode == 0, done.stderr
    assert "resumed after step 3" in done.stderr
    assert different(whole, run) == []


def test_requeue_outside_slurm_is_a_wrong_usage(
    clipbert: Clipbert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    done = clipbert("finetune", "--recipe", "demo_qa", "--run", tmp_path / "run", "--requeue")
    assert done.returncode == 2
    assert "SLURM_JOB_ID is not set" in done.stderr


# ------------------------------------------------------------------------------------------ longer than planned


@pytest.mark.parametrize("setting", ["train.epochs=3", "train.max_steps=10"])
def test_a_finished_run_that_is_made_longer_is_as_if_it_had_been_long(
    clipbert: Clipbert, made_data: Path, tmp_path: Path, setting: str
) -> None:
    """With a constant rate: a linear one falls more slowly in a longer training, from the first step on."""
    Training(recipe(made_data, "train.schedule=constant", setting), tmp_path / "long").run()
    Training(recipe(made_data, "train.schedule=constant", "train.max_steps=8"), tmp_path / "run").run()
    more = ["train.max_steps=null", setting] if "epochs" in setting else [setting]
    stderr = resume(clipbert, tmp_path / "run", *as_options(more))
    assert ", resumed after step 8; 1" in stderr
    assert "steps in place of 8, whose learning rates hold from step 9 on" in stderr
    for name in ("model.safetensors", "average.safetensors"):
        assert (tmp_path / "run/latest" / name).read_bytes() == (tmp_path / "long/latest" / name).read_bytes()


def test_the_rates_of_the_longer_training_hold_from_the_next_step_on(
    clipbert: Clipbert, made_data: Path, tmp_path: Path
) -> None:
    settings = ("train.warmup_ratio=0.5", "train.max_steps=4")
    Training(recipe(made_data, *settings), tmp_path / "run").run()
    resume(clipbert, tmp_path / "run", *as_options(["train.max_steps=8"]))
    rates = {each["step"]: each["learning_rate"] for each in records(tmp_path / "run") if each["event"] == "train"}
    config = load_recipe(tmp_path / "run" / "recipe.yaml").train
    assert config.max_steps == 8
    for step, rate in rates.items():
        expected = learning_rates(config, step, total=4 if step <= 4 else 8)
        assert rate == pytest.approx(expected["transformer"])


def test_an_interrupted_run_that_was_made_longer_stays_longer(
    clipbert: Clipbert, made_data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    Training(recipe(made_data, "train.epochs=1"), run).run()
    longer = load_recipe(run / "recipe.yaml", overrides=["train.epochs=3"])
    training = Training(longer, run, resume=True)
    with pytest.raises(InterruptionError):
        training.run([Signal(6, signal.SIGTERM)])
    resume(clipbert, run)
    assert os.readlink(run / "latest") == "checkpoints/step_12"


@pytest.mark.parametrize("setting", ["train.epochs=1", "train.max_steps=5"])
def test_a_run_cannot_be_made_shorter_than_it_is(clipbert: Clipbert, stopped: Path, setting: str) -> None:
    before = (stopped / "recipe.yaml").read_bytes()
    done = clipbert("finetune", "--run", stopped, "--resume", "--set", setting)
    assert done.returncode == 1
    assert "step_6 has 6 steps done, but train.epochs and train.max_steps now give" in done.stderr
    assert (stopped / "recipe.yaml").read_bytes() == before
