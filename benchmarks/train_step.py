"""A training step of this project's engine against the plain way, both from the same weights on the same batches.

    python benchmarks/train_step.py [--case cpu cuda] [--steps 5] [--json] [--plot FILE]

The recipe is msrvtt_qa: ResNet-50 and BERT-base at random weights, questions of 7 to 13 tokens. Each side runs in a
process of its own; they take turns step by step, so that a busy machine slows all alike. One step comes first to warm
up, one whose FLOPs are counted comes last; of the --steps between them the median counts, and memory is the most up to
their end. Losses are compared over all of them.

    cpu     2 videos x 2 clips x 2 frames of 448 pixels in float32
    cuda    16 x 8 x 2 in bf16, the plain way in fp16; where there is a GPU

    plain   plain torch: clips in a loop, frames normalised in float32 on the CPU, questions padded to the recipe's 100
            tokens, BatchNorm2d in evaluation mode, attention written out, BERT's AdamW written out, in 8 groups
    engine  clipbert_cli.engine.train.Trainer

`plain, 20 tokens` pads to 20: what remains when padding is not the point. FLOPs are counted by torch; the machine's
rate is that of a product of two large matrices, measured between the steps; MFU is the share of it that a step reaches.
The exit code is 1 where the CPU's case does not reach what WANTED says.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from charts import bars
from reporting import command_line, show
from training_sides import CASES, SIDES, Case, batches

from clipbert_cli.engine.flops import flop_counter, matrix_product_rate, synchronize
from clipbert_cli.engine.precision import Precision

WANTED = {"speedup": 1.3, "memory": 0.8, "loss_difference": 1e-5}


def serve(side: str, case: Case) -> None:
    """One side: a step for every line on stdin, answered by a line of JSON."""
    step, stream = SIDES[side](case), batches(case)
    for order in sys.stdin:
        batch = next(stream)
        if case.device == "cuda":
            batch = batch.pin_memory()
        operations = flop_counter() if order.strip() == "count" else None
        synchronize(case.place)
        begin = time.perf_counter()
        with operations or nullcontext():
            loss = step(batch)
        synchronize(case.place)
        answer = {"loss": loss, "seconds": time.perf_counter() - begin, "memory_mib": peak_memory(case)}
        if operations:
            answer["flops"] = operations.get_total_flops()
        print(json.dumps(answer), flush=True)


def peak_memory(case: Case) -> int:
    """The most that the process has used, in MiB: of the GPU, or of the machine."""
    if case.device == "cuda":
        return torch.cuda.max_memory_allocated() // 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**10


# ------------------------------------------------------------------------------------------------ measuring


class Side:
    """A process that takes one side's steps."""

    def __init__(self, name: str, case: str) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--side", name, "--case", case],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ,
        )
        self.steps: list[dict[str, float]] = []

    def step(self, order: str = "step") -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name}: its process ended with exit code {self.process.wait()}")
        self.steps.append(json.loads(line))

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def measure(name: str, steps: int) -> dict[str, Any]:
    """Everything of one case: a row a side, and the machine's rate."""
    case = CASES[name]
    dtype = Precision(case.precision).dtype
    sides = [Side(side, name) for side in case.sides]
    rates = [matrix_product_rate(case.place, dtype)]
    try:
        for order in ["step"] * (1 + steps) + ["count"]:
            for side in sides:
                side.step(order)
            rates.append(matrix_product_rate(case.place, dtype))
    finally:
        for side in sides:
            side.close()
    rate, last = max(rates), sides[-1]
    rows = {side.name: summary(side.steps, rate) for side in sides}
    for side in sides:
        row = rows[side.name]
        row["speedup"] = round(row["step_ms"] / rows[last.name]["step_ms"], 2)
        row["memory"] = round(rows[last.name]["memory_mib"] / row["memory_mib"], 2)
        pairs = zip(last.steps, side.steps, strict=True)
        row["loss_difference"] = max(abs(one["loss"] / other["loss"] - 1) for one, other in pairs)
    return {"product_gflops": round(rate / 1e9, 1), "steps": steps, "warm_up_steps": 1, "sides": rows}


def summary(steps: list[dict[str, float]], rate: float) -> dict[str, Any]:
    """Of a step to warm up, those that are timed, and one whose operations are counted, which takes more memory."""
    _, *timed, counted = steps
    seconds, flops = statistics.median(step["seconds"] for step in timed), counted["flops"]
    return {
        "step_ms": round(1000 * seconds),
        "gflops": round(flops / 1e9),
        "floor_ms": round(1000 * flops / rate),
        "mfu": round(flops / rate / seconds, 3),
        "memory_mib": timed[-1]["memory_mib"],
    }


def reached(report: Mapping[str, Any]) -> bool:
    """Whether the CPU's case holds what is wanted of it."""
    row = report["sides"]["plain"]
    return bool(
        row["speedup"] >= WANTED["speedup"]
        and row["memory"] <= WANTED["memory"]
        and row["loss_difference"] <= WANTED["loss_difference"]
    )


# ------------------------------------------------------------------------------------------------ the command


def lines(name: str, report: Mapping[str, Any]) -> Iterator[str]:
    """A line a side, and the machine's rate."""
    last = CASES[name].sides[-1]
    for side, row in report["sides"].items():
        yield (
            f"{name:10} {side:18} {row['step_ms']:7} ms a step, floor {row['floor_ms']} ms, MFU {row['mfu']:.2f}, "
            f"{row['memory_mib']} MiB  {last}: x{row['speedup']:.2f}, memory x{row['memory']:.2f}, "
            f"loss differs by {row['loss_difference']:.1e}"
        )
    yield f"{name:10} matrix product     {report['product_gflops']} GFLOP/s"


def result(name: str, report: Mapping[str, Any]) -> str:
    """The last side against the first."""
    first, *_, last = CASES[name].sides
    row = report["sides"][first]
    return (
        f"{name}: {last} against {first} x{row['speedup']:.2f} as fast, memory x{row['memory']:.2f}, losses within "
        f"{row['loss_difference']:.1e} over {report['steps'] + report['warm_up_steps']} steps"
    )


def plot(report: Mapping[str, Any], file: str) -> None:
    """Step times and their floors by operations."""
    kinds = (("step", "step_ms"), ("floor by operations", "floor_ms"))
    rows = [
        (f"{name}, {side}, {said}", row[key])
        for name, each in report.items()
        for side, row in each["sides"].items()
        for said, key in kinds
    ]
    bars(file, "milliseconds", rows, digits=0)


def main() -> int:
    parser = command_line(__doc__, chart="step times and their floor by operations")
    parser.add_argument("--steps", type=int, default=5, help="steps that are timed, after one that is not")
    parser.add_argument("--case", choices=CASES, nargs="+", help="default: those that this machine has")
    parser.add_argument("--side", choices=SIDES, help="internal: take this side's steps for another process")
    options = parser.parse_args()
    here = options.case or (["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
    if options.side:
        serve(options.side, CASES[here[0]])
        return 0
    report = {name: measure(name, max(1, options.steps)) for name in here}
    if options.plot:
        plot(report, options.plot)
    said = [line for name, each in report.items() for line in lines(name, each)]
    show(options, report, lines=said, result="; ".join(result(name, each) for name, each in report.items()))
    return 0 if "cpu" not in report or reached(report["cpu"]) else 1


if __name__ == "__main__":
    sys.exit(main())
