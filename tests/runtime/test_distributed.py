"""Several processes under the real torchrun compute what one computes: steps, weights, predictions and scores."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import several
import torch
from colour_data import NAMES, SMALL, write_colour_data
from forking import run_python, variables
from running import TINY, Clipbert, as_options, records
from safetensors.torch import load_file

from clipbert_cli.errors import UsageError
from clipbert_cli.runtime.distributed import World, start_world
from clipbert_cli.runtime.process_exit import report


def torchrun(processes: int, *command: object) -> subprocess.CompletedProcess[str]:
    several = ["--standalone", "--nproc-per-node", str(processes)]
    return run_python("-m", "torch.distributed.run", *several, *command, env={**variables(), "OMP_NUM_THREADS": "1"})


@pytest.fixture(scope="module", params=[2, 3])
def answers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The answers of each process of tests/several.py, by rank."""
    folder = tmp_path_factory.mktemp("answers")
    done = torchrun(request.param, Path(__file__).parents[1] / "several.py", folder)
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(request.param)]


def test_every_process_receives_what_the_others_sent(answers: list[dict[str, Any]]) -> None:
    processes = len(answers)
    for rank, answer in enumerate(answers):
        assert answer["messages"] == {
            "gathered": [{"rank": each} for each in range(processes)],
            "sum": [processes, sum(range(processes))],
            "from_main": {"from": 0},
            "calls": [0] if rank == 0 else [],
            "failure": ["rank 0 fails", "as asked"],
            "shard": [rank, processes],
        }


def expected_predictions(count: int) -> list[list[Any]]:
    return [[f"m{index}", 2.0 * index] for index in range(count)]


def test_every_example_is_predicted_once_and_in_order_by_several_processes(answers: list[dict[str, Any]]) -> None:
    for answer in answers:
        for count in (1, 7, 8, 13):
            assert answer["predictions"][str(count)] == expected_predictions(count)


@pytest.mark.parametrize("count", [1, 7, 8, 13])
def test_every_example_is_predicted_once_and_in_order_by_a_single_process(count: int) -> None:
    assert several.predictions(World(0, 1, torch.device("cpu")), count) == expected_predictions(count)


def test_a_process_ends_well_while_threads_still_hold_tensors(answers: list[dict[str, Any]]) -> None:
    """The exit codes are checked by the fixture: each process ends while 2,000 sums are under way."""
    assert [answer["sums_under_way"] for answer in answers] == [2000] * len(answers)


# ------------------------------------------------------------------------------------------------ training


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("colours")
    write_colour_data(folder)
    return folder


def check_same_training(one: Path, other: Path, *, steps: int) -> None:
    """Losses and weights within 1e-5, relative; scores to the last digit."""
    losses = [[record["loss"] for record in records(run, "train")] for run in (one, other)]
    assert len(losses[0]) == steps
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    norms = [[record["grad_norm"] for record in records(run, "train")] for run in (one, other)]
    assert norms[1] == pytest.approx(norms[0], rel=1e-4)
    weights = [load_file(run / "latest" / "model.safetensors") for run in (one, other)]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        # Some biases have no gradient but rounding (the keys'): Adam moves them all the same, so a few 1e-6.
        torch.testing.assert_close(
            weights[1][name], value, rtol=1e-5, atol=5e-6, msg=lambda text, name=name: f"{name}: {text}"
        )
    whole = [torch.cat([value.flatten() for value in each.values()]) for each in weights]
    assert (whole[0] - whole[1]).norm() / whole[0].norm() < 1e-5
    validations = [records(run, "validation") for run in (one, other)]
    losses = [[record.pop("loss") for record in each] for each in validations]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert validations[1] == validations[0]


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        ("msrvtt_retrieval", ["data.num_clips=2", "train.max_steps=20"]),
        ("vqa", [f"objective.num_labels={len(NAMES)}", "train.max_steps=20", "data.max_examples_per_group=2"]),
    ],
)
def test_two_processes_train_as_one_with_the_same_global_batch(
    clipbert: Clipbert, recipe: str, settings: Sequence[str], colours: Path, tmp_path: Path
) -> None:
    shared = ["--recipe", recipe, "--data-root", colours]
    # Adam divides by the size of the gradient and so makes a full step of the rounding of a gradient that is almost 0.
    # With a larger eps such steps stay small, while any wrong gradient changes the steps even more than before.
    steps = ["train.learning_rate=0.001", "train.eps=0.001", "train.gradient_accumulation_steps=2"]
    shared += as_options([*SMALL, *settings, *steps])
    # 5 groups a batch: nothing divides the 24 groups of the split, so an epoch's last step is a short one.
    alone = clipbert("finetune", *shared, "--set", "train.batch_size=5", "--run", tmp_path / "alone")
    assert alone.returncode == 0, alone.stderr
    settings = ["--set", "train.batch_size=5", "--set", "train.gradient_accumulation_steps=1"]
    command = ["-m", "--", "clipbert_cli", "finetune", *shared, *settings, "--run", tmp_path / "two of them"]
    two = torchrun(2, *command)
    assert two.returncode == 0, two.stderr
    assert "10 groups per step: 2 processes, 1 forward pass of up to 5 groups" in two.stderr
    check_same_training(tmp_path / "alone", tmp_path / "two of them", steps=20)


def test_more_processes_than_groups_in_a_step_train_all_the_same(
    clipbert: Clipbert, made_data: Path, tmp_path: Path
) -> None:
    """Eight groups in steps of three: the last step of an epoch has two, so one of three processes has none."""
    shared = ["--recipe", "demo_qa", "--data-root", made_data, *as_options(TINY)]
    alone = clipbert("finetune", *shared, "--set", "train.batch_size=3", "--run", tmp_path / "alone")
    assert alone.returncode == 0, alone.stderr
    command = ["-m", "--", "clipbert_cli", "finetune", *shared, "--set", "train.batch_size=1"]
    three = torchrun(3, *command, "--run", tmp_path / "three")
    assert three.returncode == 0, three.stderr
    check_same_training(tmp_path / "alone", tmp_path / "three", steps=6)


def test_a_run_resumes_with_another_number_of_processes(clipbert: Clipbert, made_data: Path, tmp_path: Path) -> None:
    """Two processes begin, one resumes: the same global batch, the same steps, the same result."""
    shared = ["--recipe", "demo_qa", "--data-root", made_data]
    shared += as_options([*TINY, "train.batch_size=2", "train.epochs=4", "train.save_every_steps=1"])
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    two = torchrun(2, "-m", "--", "clipbert_cli", "finetune", *shared, "--run", whole)
    assert two.returncode == 0, two.stderr
    shutil.copytree(whole, broken, symlinks=True)
    for later in broken.glob("checkpoints/step_*"):
        if int(later.name.removeprefix("step_")) > 7:
            (later / "training.pt").unlink()
    done = clipbert("finetune", "--run", broken, "--resume")
    assert done.returncode == 0, done.stderr
    assert "4 groups per step: 1 process, 2 forward passes of up to 2 groups" in done.stderr
    assert "resumed after step 7" in done.stderr
    check_same_training(whole, broken, steps=8)


@pytest.mark.parametrize(("named", "number"), [(None, 0), ("cuda", 0), ("cuda:2", 2)])
def test_a_single_process_has_a_gpu_with_an_index(
    monkeypatch: pytest.MonkeyPatch, named: str | None, number: int
) -> None:
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch, "empty", lambda *_, device: None)
    assert start_world(named).device == torch.device("cuda", number)
    assert chosen == [torch.device("cuda", number)]  # of "cuda" alone torch says that it expects an index


@pytest.mark.parametrize(("name", "value"), [("WORLD_SIZE", "two"), ("RANK", ""), ("LOCAL_RANK", "-1")])
def test_an_environment_that_no_launcher_writes_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=f"{name} is '{value}', but must be a whole number"):
        start_world("cpu")


def test_a_rank_is_below_the_number_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="RANK is 2, but must be less than WORLD_SIZE, which is 2"):
        start_world("cpu")


def test_a_failure_without_a_rank_is_not_reported_to_a_launcher(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(file))
    for rank, is_written in (("x", False), ("1", True)):
        monkeypatch.setenv("RANK", rank)
        report("it failed", hint=None, code=2)
        assert file.exists() is is_written
