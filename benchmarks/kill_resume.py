"""Does a training that is killed and resumed many times end with the same bits as one that is not disturbed?

    python benchmarks/kill_resume.py [--kills 50] [--steps 24] [--json]

Half of the kills come at a random time, half at a random moment inside the saving of a checkpoint. A run that ends
before its kill is compared with the undisturbed one, and the next run begins. Weights, averages, optimiser state, links
and log records must be equal, apart from times and memory; the exit code is 1 if they are not. Processes are forked
from one that has torch in memory already, so that a start costs tenths of a second.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from harness import command_line, make_demo_data, show

from clipbert_cli import files
from clipbert_cli.recipe.load import load_recipe
from clipbert_cli.runs import checkpoint
from clipbert_cli.runtime.distributed import start_world
from clipbert_cli.train.setup import prepare_training

SETTINGS = (
    "model.visual.stem_size=8",
    "model.visual.hidden_sizes=[8,8,16,16]",
    "model.bert.hidden_size=16",
    "model.bert.num_attention_heads=2",
    "model.bert.intermediate_size=32",
    "model.bert.num_hidden_layers=1",
    "model.bert.hidden_dropout=0.1",
    "model.bert.attention_dropout=0.1",
    "data.frame_size=64",
    "data.workers=0",
    "train.batch_size=4",
    "train.gradient_accumulation_steps=2",
    "train.ema_decay=0.9",
    "train.validate_every_steps=7",
    "train.save_every_steps=2",
    "train.log_every_steps=3",
)
TIMED = ("examples_per_second", "data_wait", "peak_memory_mib")
"""Fields of a log record that may differ."""
SAVING = ((checkpoint, "_crc32"), (files, "fsync"), (checkpoint, "point_link"), (checkpoint, "remove"))
"""Functions that the saving of a checkpoint calls."""


def main() -> int:
    parser = command_line(__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="clipbert-kill-") as folder:
        rng = random.Random(options.seed)
        report = kill_and_compare(Path(folder), kills=options.kills, steps=options.steps, rng=rng)
    found = report["differences"]
    result = (
        f"{report['kills']} kills in {report['runs']} runs, {report['inside_saves']} of them inside a save: "
        f"{len(found) or 'no'} differences from an undisturbed run"
    )
    show(options, report, result=result)
    return int(bool(found))


def kill_and_compare(folder: Path, *, kills: int, steps: int, rng: random.Random) -> dict[str, Any]:
    """Kill runs until there are `kills` kills, and compare those that end with an undisturbed one."""
    finish(forked(lambda: make_demo_data(folder, train=22, val=3)))
    whole = folder / "whole"
    begin = time.monotonic()
    finish(forked(lambda: train(folder, whole, steps)))
    seconds = time.monotonic() - begin
    killed = in_saves = runs = 0
    differences: list[str] = []
    while killed < kills:
        runs += 1
        run = folder / f"run{runs}"
        while True:
            inside = killed % 2 == 1
            calls = rng.randrange(1, 30) if inside and killed < kills else None
            child = forked(lambda run=run, calls=calls: train(folder, run, steps, die_at_call=calls))
            if killed < kills and not inside:
                time.sleep(rng.uniform(0, seconds / 2))
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            if os.WIFSIGNALED(status):
                killed += 1
                in_saves += inside or any(run.glob("checkpoints/.step_*"))
            elif os.waitstatus_to_exitcode(status):
                raise SystemExit(f"a training failed with exit code {os.waitstatus_to_exitcode(status)}")
            else:
                break
        differences += [f"run {runs}: {each}" for each in compare(whole, run)]
        shutil.rmtree(run)
    return {"kills": killed, "inside_saves": in_saves, "runs": runs, "differences": differences}


def train(folder: Path, run: Path, steps: int, *, die_at_call: int | None = None) -> None:
    """Start or resume the run; with `die_at_call` kill this process inside a save."""
    if die_at_call is not None:
        die_inside_a_save(die_at_call)
    overrides = [*SETTINGS, f"train.max_steps={steps}"]
    recipe = load_recipe("demo_qa", overrides=overrides, data_root=folder)
    prepare_training(recipe, run, world=start_world("cpu"), resume=run.exists()).run()


def die_inside_a_save(calls: int) -> None:
    """Make this process kill itself at the `calls`-th call of one of the functions in SAVING."""
    left = [calls]

    def counting(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments)

        return call

    for module, name in SAVING:
        setattr(module, name, counting(getattr(module, name)))


def forked(work: Callable[[], None]) -> int:
    """Fork a process that does `work` and ends; return its process id."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    try:
        work()
    except BaseException:  # noqa: BLE001 - a copy must never go on as its parent
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def finish(child: int) -> None:
    """Wait for a process that must succeed."""
    _, status = os.waitpid(child, 0)
    if status:
        raise SystemExit(f"a process failed: status {status}")


def compare(whole: Path, run: Path) -> list[str]:
    """Return the differences between two finished runs."""
    found = []
    for name in ("latest", "best"):
        if os.readlink(whole / name) != os.readlink(run / name):
            found.append(f"{name} is {os.readlink(run / name)}, not {os.readlink(whole / name)}")
    for name in ("model.safetensors", "average.safetensors"):
        if (whole / "latest" / name).read_bytes() != (run / "latest" / name).read_bytes():
            found.append(f"{name} differs")
    states = [torch.load(each / "latest" / "training.pt", weights_only=True) for each in (whole, run)]
    if not same(*states):
        found.append("training.pt differs")
    if records(whole) != records(run):
        found.append("metrics.jsonl differs")
    return found


def same(one: Any, other: Any) -> bool:
    """Return whether two states are equal, tensors bit by bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def records(run: Path) -> list[dict[str, Any]]:
    """Return the log records of training and validation without the fields in TIMED."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [
        {name: value for name, value in line.items() if name not in TIMED}
        for line in lines
        if line["event"] in ("train", "validation")
    ]


if __name__ == "__main__":
    sys.exit(main())
