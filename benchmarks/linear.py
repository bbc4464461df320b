"""How the cost of scoring every text with every video grows with texts, videos and clips.

    python benchmarks/linear.py [--repeats 2] [--json] [--plot FILE] [--device cuda]

This project's inference alone, on 448 pixels, clips of 2 frames that are decoded already, texts of 11 tokens in the
mean. Each size has twice the sequences (a text with a clip) of the one before: twice the clips, then the videos, then
the texts. The texts of the largest are those of the others twice, so that all have the same mixture of lengths. In each
repeat a size runs as often as it takes to score as many sequences as the largest, in turns with the others, and all of
its runs count: the fastest of some short runs would be compared with the mean of a long one on a noisy machine.

`growth` is how much more a sequence costs the transformer at the largest size than at the cheapest of the others;
`overhead` is the share of the time that neither the CNN nor the transformer nor packing its weights took. The exit code
is 1 where either reaches 5%.
"""

from __future__ import annotations

import statistics
import sys
from dataclasses import replace
from typing import Any

import torch
from charts import bars
from device import name_of
from reporting import command_line, show
from scoring import Case, Engine, engine_work, make_frames, make_model, make_texts

from clipbert_cli.batch import Texts
from clipbert_cli.model import ClipBert

LIMIT = 0.05
SIZES = {"cpu": (32, 2, 2), "cuda": (256, 16, 16)}
"""Texts (of all sizes but the largest, which has twice as many), videos, clips."""


@torch.inference_mode()
def measure(model: ClipBert, largest: Case, repeats: int) -> list[dict[str, Any]]:
    """A row a size, over all of its runs."""
    torch.manual_seed(2)
    half = replace(largest, texts=largest.texts // 2)
    texts, frames = make_texts(half), make_frames(largest)
    doubled = Texts(texts.ids.repeat(2, 1), texts.mask.repeat(2, 1))
    small = replace(half, videos=largest.videos // 2, clips=largest.clips // 2)
    cases = [(small, texts), (replace(small, clips=largest.clips), texts), (half, texts), (largest, doubled)]
    engines = [Engine(model, case, own) for case, own in cases]
    Engine(model, small, texts)(frames[: small.videos, : small.clips])  # the first gets its memory from the system
    rates, most = [largest.product_rate()], largest.sequences // small.sequences
    for number in range(1, repeats * most + 1):
        for engine in engines:
            if number % (engine.case.sequences // small.sequences) == 0:
                engine(frames[: engine.case.videos, : engine.case.clips])
        if number % most == 0:
            rates.append(largest.product_rate())
    return [row(model, engine, repeats * largest.sequences, statistics.mean(rates)) for engine in engines]


def row(model: ClipBert, engine: Engine, sequences: int, rate: float) -> dict[str, Any]:
    """What `sequences` in all took at one size."""
    case, transformer = engine.case, engine.seconds["transformer"]
    runs = sequences // case.sequences
    return {
        "texts": case.texts,
        "videos": case.videos,
        "clips": case.clips,
        "sequences": case.sequences,
        "runs": runs,
        "seconds": engine.seconds["whole"] / runs,
        "ms_per_sequence": 1000 * transformer / sequences,
        "transformer_mfu": runs * engine_work(model, case, engine.texts)[1] / transformer / rate,
        "overhead": engine.overhead,
    }


def main() -> int:
    parser = command_line(__doc__, chart="milliseconds a sequence at each size")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    device = torch.device(options.device)
    texts, videos, clips = SIZES[device.type]
    case = Case("linear", device, 2 * texts, videos, clips)
    rows = measure(make_model().to(device), case, max(1, options.repeats))
    *smaller, last = (each["ms_per_sequence"] for each in rows)
    growth, overhead = last / min(smaller) - 1, max(each["overhead"] for each in rows)
    if options.plot:
        bars(options.plot, "ms a sequence", [(said(each), each["ms_per_sequence"]) for each in rows])
    report = {"benchmark": "linear", "device": name_of(device), "growth": growth, "overhead": overhead, "rows": rows}
    lines = [
        f"{said(each)}  {each['seconds']:6.1f} s a run  {each['ms_per_sequence']:6.2f} ms a sequence  "
        f"MFU {each['transformer_mfu']:.2f}  overhead {each['overhead']:.1%}"
        for each in rows
    ]
    result = f"a sequence costs {growth:+.1%} at the largest size, overhead {overhead:.1%} at most (limit {LIMIT:.0%})"
    show(options, report, lines=lines, result=result)
    return int(growth >= LIMIT or overhead >= LIMIT)


def said(row: dict[str, Any]) -> str:
    return f"{row['texts']:4} texts x {row['videos']:2} videos x {row['clips']:2} clips"


if __name__ == "__main__":
    sys.exit(main())
