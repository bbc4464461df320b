"""Does a training that is killed and resumed many times end with the same bits as one that is not disturbed?

    python benchmarks/kill_resume.py [--kills 50] [--steps 24] [--seed 0] [--json]

Half of the kills come at a random time, half at a random moment inside the saving of a checkpoint. A run that ends
before its kill is compared with the undisturbed one, and the next run begins. Weights, averages, optimiser state, links
and log records must be equal, apart from times and memory; the exit code is 1 if they are not. Processes are forked
from one that has torch in memory already, so that a start costs tenths of a second.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import time
from argparse import Namespace
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from harness import Outcome, command_line, make_demo_data, run
from running import TINY, different

from clipbert_cli import files
from clipbert_cli.recipe.load import load_recipe
from clipbert_cli.runs import checkpoint
from clipbert_cli.runtime.distributed import start_world
from clipbert_cli.train.setup import prepare_training

SETTINGS = (
    *TINY,
    "train.gradient_accumulation_steps=2",
    "train.ema_decay=0.9",
    "train.validate_every_steps=7",
    "train.save_every_steps=2",
    "train.log_every_steps=3",
)
SAVING = ((checkpoint, "_crc32"), (files, "fsync"), (checkpoint, "point_link"), (checkpoint, "remove"))
"""Functions that the saving of a checkpoint calls."""


def measure(options: Namespace, folder: Path) -> Outcome:
    """Kill runs until there are enough kills, and compare those that end with an undisturbed one."""
    torch.set_num_threads(1)
    rng, whole = random.Random(options.seed), folder / "whole"
    make_demo_data(folder, train=22, val=3)
    begin = time.monotonic()
    is_killed(forked(train, folder, whole, options.steps))
    seconds = time.monotonic() - begin
    killed = in_saves = runs = 0
    differences: list[str] = []
    while killed < options.kills:
        runs += 1
        resumed = folder / f"run{runs}"
        while True:
            inside = killed % 2 == 1
            calls = rng.randrange(1, 30) if inside and killed < options.kills else None
            process = forked(train, folder, resumed, options.steps, calls)
            if killed < options.kills and not inside:
                time.sleep(rng.uniform(0, seconds / 2))
                process.kill()
            if not is_killed(process):
                break
            killed += 1
            in_saves += inside or any(resumed.glob("checkpoints/.step_*"))
        differences += [f"run {runs}: {name} differs" for name in different(whole, resumed)]
        shutil.rmtree(resumed)
    result = (
        f"{killed} kills in {runs} runs, {in_saves} of them inside a save: {len(differences) or 'no'} differences from "
        "an undisturbed run"
    )
    report = {"kills": killed, "inside_saves": in_saves, "runs": runs, "differences": differences}
    return Outcome(report, result, not differences)


def train(folder: Path, run: Path, steps: int, die_at_call: int | None = None) -> None:
    """Start or resume the run; with `die_at_call` kill this process at that call of a function in SAVING."""
    calls = [0]

    def counting(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            calls[0] += 1
            if calls[0] == die_at_call:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments)

        return call

    for module, name in SAVING:
        setattr(module, name, counting(getattr(module, name)))
    recipe = load_recipe("demo_qa", overrides=[*SETTINGS, f"train.max_steps={steps}"], data_root=folder)
    prepare_training(recipe, run, world=start_world("cpu"), resume=run.exists()).run()


def forked(work: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Do the work in a copy of this process."""
    process = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    process.start()
    return process


def is_killed(process: BaseProcess) -> bool:
    """Wait for a process; return whether it was killed.

    Raises:
        SystemExit: it failed.
    """
    process.join()
    assert process.exitcode is not None
    if process.exitcode > 0:
        raise SystemExit(f"a process failed with exit code {process.exitcode}")
    return process.exitcode < 0


if __name__ == "__main__":
    run(command_line(__doc__, kills=50, steps=24, seed=0), measure)
