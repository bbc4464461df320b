"""Commands on a GPU, from training to a score."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
from running import TINY, Clipbert, Signal, as_options

from clipbert_cli.errors import InterruptionError
from clipbert_cli.recipe.load import load_recipe
from clipbert_cli.runtime.distributed import start_world
from clipbert_cli.train.training import Training

pytestmark = [pytest.mark.cuda, pytest.mark.filterwarnings("ignore")]  # of torch's compiler and kernels

DEVICE = ("--device", "cuda")


@pytest.mark.parametrize("named", [None, "cuda"])
def test_a_process_alone_takes_the_first_gpu(named: str | None) -> None:
    with start_world(named) as world:
        assert world.device == torch.device("cuda:0")


@pytest.mark.parametrize(
    "overrides",
    [
        ["train.precision=fp32"],
        ["train.precision=fp16", "train.gradient_accumulation_steps=2"],
        ["train.precision=bf16", "train.activation_checkpointing=true", "train.ema_decay=0.9"],
        ["data.workers=2", "train.validate_every_steps=2"],
        pytest.param(
            ["train.precision=bf16", "train.compile=true", "model.bert.num_hidden_layers=3"],
            marks=pytest.mark.skipif(shutil.which("gcc") is None, reason="torch.compile needs a C compiler"),
        ),
    ],
)
def test_a_run_is_trained_continued_and_scored(
    clipbert: Clipbert, made_data: Path, tmp_path: Path, overrides: list[str]
) -> None:
    run, predictions = tmp_path / "run", tmp_path / "predictions.jsonl"
    training = Training(
        load_recipe("demo_qa", overrides=[*TINY, "train.max_steps=4", *overrides], data_root=made_data), run
    )
    with pytest.raises(InterruptionError):
        training.run([Signal(2, signal.SIGTERM)])
    assert training.world.device.type == "cuda"
    done = clipbert("finetune", "--run", run, "--resume", "--json", *DEVICE)
    assert done.returncode == 0, done.stderr
    assert "going on after step 2" in done.stderr
    assert json.loads(done.stdout)["last"]["step"] == 4
    done = clipbert("infer", "--run", run, "--split", "test", "-o", predictions, *DEVICE)
    assert done.returncode == 0, done.stderr
    assert "48 predictions written" in done.stderr
    done = clipbert("eval", predictions, "-r", "demo_qa", "--data-root", made_data, "--split", "test", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["count"] == 48


def test_a_step_is_profiled(clipbert: Clipbert, made_data: Path, tmp_path: Path) -> None:
    options = as_options([*TINY, "train.precision=bf16", "train.max_steps=12"])
    command = ["finetune", "-r", "demo_qa", "--run", tmp_path / "run", "--data-root", made_data, *options, *DEVICE]
    done = clipbert(*command, "--profile", 2, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["phases"]["copy"]["ms"] >= 0
    assert result["phases"]["forward"]["ms"] > 0
    assert result["peak_memory_mib"] > 0
