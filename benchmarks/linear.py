"""How the cost of scoring every text with every video grows with texts, videos and clips.

    python benchmarks/linear.py [--repeats 2] [--json] [--plot FILE] [--device cuda]

This project's inference alone, on 448 pixels, clips of 2 frames that are decoded already, texts of 11 tokens in the
mean. Each size has twice the sequences (a text with a clip) of the one before: twice the clips, then the videos, then
the texts. The texts of the largest are those of the others twice, so that all have the same mixture of lengths. In each
repeat a size runs as often as it takes to score as many sequences as the largest, and all of its runs count. The sizes
are processes that take turns of a second (turns.py), so that a busy machine slows all alike.

`growth` is how much more a sequence costs the transformer at the largest size than at the cheapest of the others;
`overhead` is the share of the time that neither the CNN nor the transformer nor packing its weights took. The exit code
is 1 where either reaches 5%.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from charts import bars
from device import name_of
from reporting import command_line, show
from scoring import Case, Engine, engine_work, make_frames, make_model, make_texts, overhead
from torch import Tensor
from turns import MACHINE, Answer, Turns, serve, serve_products

from clipbert_cli.types import Texts

LIMIT = 0.05
SIZES = {"cpu": (32, 2, 2), "cuda": (256, 16, 16)}
"""Texts (of all sizes but the largest, which has twice as many), videos, clips of the largest."""


def cases(device: torch.device) -> list[Case]:
    """From the smallest to the largest; those before the largest have the same texts."""
    texts, videos, clips = SIZES[device.type]
    sizes = [(texts, videos // 2, clips // 2), (texts, videos // 2, clips), (texts, videos, clips)]
    return [Case(str(number), device, *size) for number, size in enumerate([*sizes, (2 * texts, videos, clips)])]


def inputs(case: Case, texts: int) -> tuple[Texts, Tensor]:
    """`texts` texts, again and again until the case has as many as it wants, and frames."""
    torch.manual_seed(2)
    some, times = make_texts(replace(case, texts=texts)), case.texts // texts
    return Texts(some.ids.repeat(times, 1), some.mask.repeat(times, 1)), make_frames(case)


@torch.inference_mode()
def score(case: Case, texts: Texts, frames: Tensor) -> Callable[[str], dict[str, Any]]:
    """One side: so many runs at one size as the order says."""
    model = make_model().to(case.device)
    Engine(model, case, texts)(frames)  # the first gets its memory from the system

    @torch.inference_mode()
    def work(order: str) -> dict[str, Any]:
        engine = Engine(model, case, texts)
        for _ in range(int(order)):
            engine(frames)
        return {"spans": engine.clock.spans}

    return work


def measure(device: torch.device, repeats: int) -> list[dict[str, Any]]:
    """A row a size, over all of its runs."""
    model, all_cases = make_model().to(device), cases(device)
    most = all_cases[-1].sequences
    with Turns(__file__, [case.name for case in all_cases], ["--device", str(device)], device=device) as turns:
        turns.take({case.name: "1" for case in all_cases})
        since = len(turns.machine.answers)
        answers = turns.take({case.name: str(repeats * most // case.sequences) for case in all_cases})
        rate = turns.rate(since=since)
    with torch.inference_mode():
        work = {case.name: engine_work(model, case, inputs(case, all_cases[0].texts)[0])[1] for case in all_cases}
    return [row(case, answers[case.name], work[case.name], repeats * most, rate) for case in all_cases]


def row(case: Case, answer: Answer, work: float, sequences: int, rate: float) -> dict[str, Any]:
    """What `sequences` in all took at one size; a run is `work` FLOPs of the transformer."""
    runs, seconds = sequences // case.sequences, answer.parts()
    return {
        "texts": case.texts,
        "videos": case.videos,
        "clips": case.clips,
        "sequences": case.sequences,
        "runs": runs,
        "seconds": seconds["whole"] / runs,
        "ms_per_sequence": 1000 * seconds["transformer"] / sequences,
        "transformer_mfu": runs * work / seconds["transformer"] / rate,
        "overhead": overhead(seconds),
    }


def main() -> int:
    parser = command_line(__doc__, chart="milliseconds a sequence at each size")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--side", help="internal: work on what another process orders")
    options = parser.parse_args()
    device = torch.device(options.device)
    if options.side:
        case = cases(device)[-1 if options.side == MACHINE else int(options.side)]
        if options.side == MACHINE:
            serve_products(device, case.precision.dtype)
        else:
            serve(score(case, *inputs(case, cases(device)[0].texts)))
        return 0
    rows = measure(device, max(1, options.repeats))
    *smaller, last = (each["ms_per_sequence"] for each in rows)
    growth, most = last / min(smaller) - 1, max(each["overhead"] for each in rows)
    if options.plot:
        bars(options.plot, "ms a sequence", [(said(each), each["ms_per_sequence"]) for each in rows])
    report = {"benchmark": "linear", "device": name_of(device), "growth": growth, "overhead": most, "rows": rows}
    lines = [
        f"{said(each)}  {each['seconds']:6.1f} s a run  {each['ms_per_sequence']:6.2f} ms a sequence  "
        f"MFU {each['transformer_mfu']:.2f}  overhead {each['overhead']:.1%}"
        for each in rows
    ]
    result = f"a sequence costs {growth:+.1%} at the largest size, overhead {most:.1%} at most (limit {LIMIT:.0%})"
    show(options, report, lines=lines, result=result)
    return int(growth >= LIMIT or most >= LIMIT)


def said(row: dict[str, Any]) -> str:
    return f"{row['texts']:4} texts x {row['videos']:2} videos x {row['clips']:2} clips"


if __name__ == "__main__":
    sys.exit(main())
