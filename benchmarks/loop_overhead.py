"""Which share of a training step does the loop itself take: everything but data, forward, backward and the update?

    python benchmarks/loop_overhead.py [--steps 60] [--json]

The demo's model is trained on the demo's data on the CPU, in the real training loop, under the profiler of `finetune
--profile`. The loop's own time is what is left of a step: copying and weighing batches, the gradient's norm, clipping,
counting, logging. The exit code is 1 if it takes 3% of a step or more.
"""

from __future__ import annotations

import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from harness import Outcome, command_line, make_demo_data, run

from clipbert_cli.profile.profiler import Profiler
from clipbert_cli.recipe.load import load_recipe
from clipbert_cli.runtime.distributed import start_world
from clipbert_cli.train.training import Training

LIMIT = 0.03


def measure(options: Namespace, folder: Path) -> Outcome:
    make_demo_data(folder, train=40)
    settings = [f"train.max_steps={options.steps + 20}", "train.blind_baseline=false"]
    recipe = load_recipe("demo_qa", overrides=settings, data_root=folder)
    training = Training(recipe, folder / "run", world=start_world("cpu"))
    profiler = Profiler(training, options.steps)
    updates: list[float] = []
    step = profiler.trainer.optimizer.step

    def timed(*arguments: Any, **settings: Any) -> Any:
        begin = time.perf_counter()
        done = step(*arguments, **settings)
        updates.append(time.perf_counter() - begin)
        return done

    profiler.trainer.optimizer.step = timed  # type: ignore[method-assign]
    report = profiler.run()
    spent = {part: report["phases"][part]["ms"] for part in ("data", "forward", "backward")}
    spent["update"] = 1000 * sum(updates[profiler.warm_up :][: options.steps]) / options.steps
    whole = report["step_ms"]
    rows = {
        part: {"ms_per_step": each, "share": each / whole}
        for part, each in {**spent, "loop": whole - sum(spent.values()), "whole": whole}.items()
    }
    result = (
        f"the loop takes {rows['loop']['share']:.1%} of a step of {whole:.0f} ms (limit {LIMIT:.0%}), "
        f"waiting for data {rows['data']['share']:.1%}"
    )
    return Outcome(rows, result, rows["loop"]["share"] < LIMIT)


if __name__ == "__main__":
    run(command_line(__doc__, steps=60), measure)
