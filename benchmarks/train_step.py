"""A training step of this project's engine against the plain way, both from the same weights on the same batches.

    python benchmarks/train_step.py [--case cpu cuda] [--steps 5] [--json] [--plot FILE]

The recipe is msrvtt_qa: ResNet-50 and BERT-base at random weights, questions of 7 to 13 tokens. Each side runs in a
process of its own; they take turns of a second, so that a busy machine slows all alike (turns.py). One step (on a GPU
three) comes first to warm up, one whose FLOPs are counted comes last; of the --steps between them the mean counts, and
memory is the most up to their end. Losses are compared over all of them.

    cpu     2 videos x 2 clips x 2 frames of 448 pixels in float32
    cuda    16 x 8 x 2 in bf16, the plain way in fp16; where there is a GPU

    plain   plain torch: clips in a loop, frames normalised in float32 on the CPU, questions padded to the recipe's 100
            tokens, BatchNorm2d in evaluation mode, attention written out, BERT's AdamW written out, in 8 groups
    engine  clipbert_cli.train.loop.Trainer

`plain, 20 tokens` pads to 20: what remains when padding is not the point. FLOPs are counted by torch; the machine's
rate is that of products of two large matrices, measured between the turns; MFU is the share of it that a step reaches.
The exit code is 1 where the CPU's case does not reach what WANTED says.
"""

from __future__ import annotations

import resource
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from charts import bars
from reporting import command_line, show
from training_sides import CASES, SIDES, Case, batches
from turns import MACHINE, Answer, Clock, Turns, serve, serve_products

from clipbert_cli.profile.flops import flop_counter
from clipbert_cli.runtime.precision import Precision

WARM_UP = {"cpu": 1, "cuda": 3}
"""Steps; a GPU's libraries plan for every length of text that they meet."""

WANTED = {"speedup": 1.3, "memory": 0.8, "loss_difference": 1e-5}


def steps_of(side: str, case: Case) -> Callable[[str], dict[str, Any]]:
    """One side: a step for every order."""
    step, stream, clock = SIDES[side](case), batches(case), Clock(case.place)

    def work(order: str) -> dict[str, Any]:
        batch = next(stream)
        if case.device == "cuda":
            batch = batch.pin_memory()
        operations = flop_counter() if order == "count" else None
        clock.spans.clear()
        with clock.timed("step"), operations or nullcontext():
            loss = step(batch)
        flops = operations.get_total_flops() if operations else None
        return {"loss": loss, "spans": clock.spans, "memory_mib": peak_memory(case), "flops": flops}

    return work


def peak_memory(case: Case) -> int:
    """The most that the process has used, in MiB: of the GPU, or of the machine."""
    if case.device == "cuda":
        return torch.cuda.max_memory_allocated() // 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**10


# ------------------------------------------------------------------------------------------------ measuring


def measure(name: str, steps: int) -> dict[str, Any]:
    """Everything of one case: a row a side, and the machine's rate."""
    case = CASES[name]
    warm_up = WARM_UP[case.device]
    with Turns(__file__, case.sides, ["--case", name], device=case.place) as turns:
        for _ in range(warm_up):
            turns.take(dict.fromkeys(case.sides, "step"))
        since = len(turns.machine.answers)
        for _ in range(steps):
            last = {side.name: side.answers[-1].parts()["step"] for side in turns.sides}
            turns.take(dict.fromkeys(case.sides, "step"), last)
        rate = turns.rate(since=since)
        turns.take(dict.fromkeys(case.sides, "count"))
    answers = {side.name: side.answers for side in turns.sides}
    rows = {side: summary(own[warm_up:], rate) for side, own in answers.items()}
    compared = case.sides[-1]
    for side, row in rows.items():
        row["speedup"] = round(row["step_ms"] / rows[compared]["step_ms"], 2)
        row["memory"] = round(rows[compared]["memory_mib"] / row["memory_mib"], 2)
        pairs = zip(answers[compared], answers[side], strict=True)
        row["loss_difference"] = max(abs(one.fields["loss"] / other.fields["loss"] - 1) for one, other in pairs)
    return {"product_gflops": round(rate / 1e9, 1), "steps": steps, "warm_up_steps": warm_up, "sides": rows}


def summary(steps: list[Answer], rate: float) -> dict[str, Any]:
    """Of steps that are timed, and one whose operations are counted, which takes more memory."""
    *timed, counted = steps
    seconds, flops = statistics.mean(step.parts()["step"] for step in timed), counted.fields["flops"]
    return {
        "step_ms": round(1000 * seconds),
        "gflops": round(flops / 1e9),
        "floor_ms": round(1000 * flops / rate),
        "mfu": round(flops / rate / seconds, 3),
        "memory_mib": timed[-1].fields["memory_mib"],
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
    parser.add_argument("--steps", type=int, default=5, help="steps that are timed, after those that warm up")
    parser.add_argument("--case", choices=CASES, nargs="+", help="default: those that this machine has")
    parser.add_argument("--side", choices=(*SIDES, MACHINE), help="internal: work on what another process orders")
    options = parser.parse_args()
    here = options.case or (["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
    if options.side:
        case = CASES[here[0]]
        if options.side == MACHINE:
            serve_products(case.place, Precision(case.precision).dtype)
        else:
            serve(steps_of(options.side, case))
        return 0
    report = {name: measure(name, max(1, options.steps)) for name in here}
    if options.plot:
        plot(report, options.plot)
    said = [line for name, each in report.items() for line in lines(name, each)]
    show(options, report, lines=said, result="; ".join(result(name, each) for name, each in report.items()))
    return 0 if "cpu" not in report or reached(report["cpu"]) else 1


if __name__ == "__main__":
    sys.exit(main())
