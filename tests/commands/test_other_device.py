"""Runs that change their device, and the exit codes of commands that use one."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
from running import TINY, Clipbert, ClipbertProcess, Signal, as_options, records

from clipbert_cli.errors import InterruptionError
from clipbert_cli.recipe.load import load_recipe
from clipbert_cli.runtime.distributed import World
from clipbert_cli.train.training import Training

CUDA = pytest.mark.cuda


@pytest.mark.parametrize(
    "more", ["train.ema_decay=0.9", "train.gradient_accumulation_steps=2", "train.max_grad_norm=null"]
)
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("cpu", "cpu"),
        pytest.param("cpu", "cuda", marks=CUDA),
        pytest.param("cuda", "cpu", marks=CUDA),
        pytest.param("cuda", "cuda", marks=CUDA),
    ],
)
def test_a_run_continues_on_another_device_and_back(
    first: str, second: str, more: str, clipbert: Clipbert, made_data: Path, tmp_path: Path
) -> None:
    settings = [*TINY, "train.max_steps=4", "train.precision=fp32", more]
    losses = {}
    for name, devices in (("moved", (first, second)), ("stayed", ("cpu", "cpu"))):
        run = tmp_path / name
        world = World(0, 1, torch.device(devices[0]))
        training = Training(load_recipe("demo_qa", overrides=settings, data_root=made_data), run, world=world)
        with pytest.raises(InterruptionError):
            training.run([Signal(2, signal.SIGTERM)])
        done = clipbert("finetune", "--run", run, "--resume", "--json", "--device", devices[1])
        assert done.returncode == 0, done.stderr
        losses[name] = [record["loss"] for record in records(run, "train")]
    assert len(losses["moved"]) == 4
    assert losses["moved"] == pytest.approx(losses["stayed"], rel=1e-2)


@pytest.mark.parametrize(
    ("device", "decoder"),
    [
        ("cpu", "pyav"),
        pytest.param("cuda", "dali", marks=[CUDA, pytest.mark.dali]),
        pytest.param("cuda", "pyav", marks=CUDA),
    ],
)
def test_a_process_that_used_a_device_ends_with_the_right_code(
    device: str, decoder: str, clipbert_process: ClipbertProcess, made_data: Path, tmp_path: Path
) -> None:
    """DALI destroys its decoders when a process ends: a good end must stay one, and so must a refusal."""
    options = as_options([*TINY, "train.max_steps=1", f"data.decoder={decoder}"])
    common = ["-r", "demo_qa", "--data-root", made_data, "--device", device, *options]
    process = clipbert_process("finetune", "--run", tmp_path / "run", *common)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    process = clipbert_process("infer", "--run", tmp_path / "run", "--split", "test", "--device", device)
    said, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert len(said.splitlines()) == 48
    process = clipbert_process("infer", "--run", tmp_path / "run", "--split", "nowhere", "--device", device)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 2, errors
