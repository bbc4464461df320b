"""Which share of a training step the loop itself takes: everything but data, forward and loss, backward, optimiser.

    python benchmarks/loop_overhead.py [--steps 60] [--json]

The demo's model is trained on the demo's data on the CPU, in the real training loop. The loop's own time is what is
left of a step: copying and weighing batches, the gradient's norm, clipping, counting, logging. The exit code is 1 if it
takes 3% of a step or more.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from harness import Outcome, command_line, make_demo_data, run

from clipbert_cli.profile.phase_timer import PhaseTimer
from clipbert_cli.recipe.load import load_recipe
from clipbert_cli.runtime.distributed import start_world
from clipbert_cli.runtime.interrupts import Interrupts
from clipbert_cli.train.setup import prepare_training

LIMIT = 0.03
WARM_UP = 5
"""Steps that are not measured."""


class LoopTimer(PhaseTimer):
    """Receives the loop's phases and callbacks.

    Of the phase `optimizer`, only the optimiser's `step` counts as such; the rest belongs to the loop.
    """

    def phase(self, name: Any) -> AbstractContextManager[None]:
        return nullcontext() if name == "optimizer" else super().phase(name)

    def timed(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """Return the optimiser's `step` that is timed."""

        def call(*arguments: Any, **options: Any) -> Any:
            with super(LoopTimer, self).phase("optimizer"):
                return step(*arguments, **options)

        return call

    def advance(self, step: int) -> None:
        if step >= WARM_UP:
            self.step()

    def log(self, record: Mapping[str, Any]) -> None:
        json.dumps(record)

    def save(self) -> None:
        """Do nothing: only training is measured."""

    validate = save


def measure(options: Namespace, folder: Path) -> Outcome:
    steps = max(1, options.steps)
    make_demo_data(folder, train=40)
    settings = [f"train.max_steps={steps + WARM_UP}", "train.blind_baseline=false"]
    recipe = load_recipe("demo_qa", overrides=settings, data_root=folder)
    training = prepare_training(recipe, folder / "run", world=start_world("cpu"))
    timer = LoopTimer(torch.device("cpu"), processes=1)
    trainer = training.trainer(phases=timer)
    trainer.optimizer.step = timer.timed(trainer.optimizer.step)  # type: ignore[method-assign]
    trainer.train(training.train_loader, timer, interrupts=Interrupts())
    seconds, each = timer.seconds()
    named = {part: seconds.pop(part) for part in ("data", "forward", "backward", "optimizer")}
    parts, whole = {**named, "loop": sum(seconds.values()), "whole": sum(each)}, sum(each)
    rows = {part: {"ms_per_step": 1000 * spent / steps, "share": spent / whole} for part, spent in parts.items()}
    result = (
        f"the loop takes {rows['loop']['share']:.1%} of a step of {rows['whole']['ms_per_step']:.0f} ms "
        f"(limit {LIMIT:.0%}), waiting for data {rows['data']['share']:.1%}"
    )
    return Outcome(rows, result, rows["loop"]["share"] < LIMIT)


if __name__ == "__main__":
    run(command_line(__doc__, steps=60), measure)
