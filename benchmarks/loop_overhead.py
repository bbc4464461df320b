"""Which share of a training step the loop itself takes: everything but data, forward and loss, backward, optimiser.

    python benchmarks/loop_overhead.py [--steps 60] [--json]

The demo's model is trained on the demo's data on the CPU, in the real training loop. The loop's own time is what is
left of a step: copying and weighing batches, the gradient's norm, clipping, counting, logging. The exit code is 1 if it
takes 3% of a step or more.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from harness import command_line, make_demo_data, show

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

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"), processes=1)

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

    def validate(self) -> None:
        """Do nothing: only training is measured."""


def measure(folder: Path, steps: int) -> dict[str, float]:
    """Return the milliseconds of a step, in total and by part, and the shares of the loop and of waiting for data."""
    make_demo_data(folder, train=40)
    recipe = load_recipe(
        "demo_qa", overrides=[f"train.max_steps={steps + WARM_UP}", "train.blind_baseline=false"], data_root=folder
    )
    training = prepare_training(recipe, folder / "run", world=start_world("cpu"))
    timer = LoopTimer()
    trainer = training.trainer(phases=timer)
    trainer.optimizer.step = timer.timed(trainer.optimizer.step)  # type: ignore[method-assign]
    trainer.train(training.train_loader, timer, interrupts=Interrupts())
    seconds, each = timer.seconds()
    named = {part: seconds.pop(part) for part in ("data", "forward", "backward", "optimizer")}
    named["loop"] = sum(seconds.values())
    milliseconds = {f"{part}_ms": 1000 * spent / steps for part, spent in named.items()}
    shares = {"loop_share": named["loop"] / sum(each), "data_wait_share": named["data"] / sum(each)}
    return {"step_ms": 1000 * sum(each) / steps, **milliseconds, **shares}


def main() -> int:
    parser = command_line(__doc__)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="clipbert-loop-") as folder:
        report = measure(Path(folder), max(1, options.steps))
    result = (
        f"the loop takes {report['loop_share']:.1%} of a step of {report['step_ms']:.0f} ms (limit {LIMIT:.0%}), "
        f"waiting for data {report['data_wait_share']:.1%}"
    )
    show(options, report, result=result)
    return int(report["loop_share"] >= LIMIT)


if __name__ == "__main__":
    sys.exit(main())
