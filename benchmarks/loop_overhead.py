"""How much of a training step is the loop's own: everything but data, forward and loss, backward, optimiser.

    python benchmarks/loop_overhead.py [--steps 60] [--json] [--plot FILE]      the demo's model and data, on the CPU

Every part is timed inside the real training loop. What is left of a step after them is the loop's own: moving and
weighing batches, the gradient's norm, clipping, booking, logging. The exit code is 1 where it is 3% or more.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from charts import shares
from reporting import command_line, show

sys.path.insert(0, str(Path(__file__).parents[1]))

from clipbert_cli.assets.demo_media import write_demo_media
from clipbert_cli.recipe.load import load_recipe
from clipbert_cli.runtime.distributed import start_world
from clipbert_cli.runtime.interrupts import Interrupts
from clipbert_cli.store.pack import pack_media
from clipbert_cli.train.loop import Trainer
from clipbert_cli.train.setup import prepare_training

LIMIT = 0.03
WARM_UP = 5  # steps that are not counted


class Clock:
    """Seconds by part of a step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, its time booked for `part`."""

        def call(*arguments: Any, **options: Any) -> Any:
            begin = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - begin

        return call

    def fetching(self, batches: Any) -> Iterator[Any]:
        """The same batches, the wait for them booked as `data`."""
        stream = iter(batches)
        fetch = self.timed("data", lambda: next(stream))
        while True:
            yield fetch()


class Steps:
    """The loop's callbacks: they start the clock after the warm-up and stop it at the end."""

    def __init__(self, clock: Clock, last: int) -> None:
        self.clock, self.last = clock, last
        self.begin = self.total = 0.0

    def advance(self, step: int) -> None:
        if step == WARM_UP:
            self.clock.seconds.clear()
            self.begin = time.perf_counter()
        if step == self.last:
            self.total = time.perf_counter() - self.begin

    def log(self, record: Any) -> None:
        json.dumps(record)

    def save(self) -> None:
        pass

    def validate(self) -> None:
        pass


def measure(folder: Path, steps: int) -> dict[str, Any]:
    """Milliseconds of a step by part, and the loop's share of it."""
    write_demo_media(folder, videos={"train": 40, "val": 2, "test": 1}, seed=1, progress=lambda: None)
    pack_media([folder / "videos"], folder / "vis_db", kind="video")
    recipe = load_recipe("demo_qa", overrides=[f"train.max_steps={steps + WARM_UP}"], data_root=folder)
    training = prepare_training(recipe, folder / "run", world=start_world("cpu"))
    clock = Clock()
    training.model.forward = clock.timed("forward", training.model.forward)  # type: ignore[method-assign]
    loss = clock.timed("forward", training.setup.task.loss)
    trainer = Trainer(training.model, loss, config=recipe.train, plan=training.plan, world=training.world)
    optimizer = trainer.optimizer
    optimizer.step = clock.timed("optimizer", optimizer.step)  # type: ignore[method-assign]
    steps_clock = Steps(clock, steps + WARM_UP)
    backward = torch.Tensor.backward
    torch.Tensor.backward = clock.timed("backward", backward)  # type: ignore[method-assign]
    try:
        trainer.train(clock.fetching(training.train_loader), steps_clock, interrupts=Interrupts())
    finally:
        torch.Tensor.backward = backward  # type: ignore[method-assign]
    parts = {part: seconds / steps * 1000 for part, seconds in clock.seconds.items()}
    whole = steps_clock.total / steps * 1000
    own = whole - sum(parts.values())
    return {
        "step_ms": round(whole, 2),
        **{f"{part}_ms": round(milliseconds, 2) for part, milliseconds in parts.items()},
        "loop_ms": round(own, 2),
        "loop_share": round(own / whole, 4),
        "data_wait_share": round(parts["data"] / whole, 4),
    }


def main() -> int:
    parser = command_line(__doc__, chart="the parts of a step")
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="clipbert-loop-"))
    try:
        report = measure(folder, max(1, options.steps))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    parts = {name.removesuffix("_ms"): report[name] for name in report if name.endswith("_ms") and name != "step_ms"}
    if options.plot:
        shares(options.plot, {"a step": parts}, lambda milliseconds: f"{milliseconds:.0f} ms")
    lines = [f"{name:10} {milliseconds:8.2f} ms" for name, milliseconds in parts.items()]
    result = (
        f"the loop's own is {report['loop_share']:.1%} of a step of {report['step_ms']:.0f} ms (limit {LIMIT:.0%}), "
        f"waiting for data {report['data_wait_share']:.1%}"
    )
    show(options, report, lines=lines, result=result)
    return int(report["loop_share"] >= LIMIT)


if __name__ == "__main__":
    sys.exit(main())
