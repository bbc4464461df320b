"""What does `infer --shortlist` save, and which recall does it lose, against scoring every text with every video?

    python benchmarks/shortlist.py [--lists 2 4 8] [--json]                                    the demo's retrieval run
    python benchmarks/shortlist.py --run runs/msrvtt_retrieval --split val --lists 50 100      your own run

Without --run, the smallest `clipbert demo --task retrieval` trains a model first, and a video has 4 clips. `--set` sets
settings of the run, such as infer.num_clips. Recall is text to video, in percent, on the split's ground truth; `lost`
is the recall that a shortlist costs. `missed` is the percentage of the texts whose own video is not on their shortlist.
`pairs_per_second` counts all texts times all videos, whether or not a pair was scored with all clips; its time includes
decoding and the first scoring that makes the shortlists. The ways take turns twice; the faster time of each counts.
"""

from __future__ import annotations

import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from harness import CLIPBERT, Outcome, command_line, cpu_seconds, run

from clipbert_cli.infer.ranking import split_pairs
from clipbert_cli.infer.trained import RunSelection, TrainedRun, open_run

RECALLS = ("recall_at_1", "recall_at_5", "recall_at_10")


def scored(trained: TrainedRun, split: str, size: int | None) -> dict[str, float]:
    """Return recalls, the percentage that the shortlist misses, and the time; `size` None is without a shortlist."""
    begin = time.perf_counter()
    pairs = split_pairs(trained, split).shortlisted(size)
    predictions = list(pairs.predict())
    seconds = time.perf_counter() - begin
    examples = pairs.split.examples
    metrics = trained.setup.task.score({each.key: each.fields for each in predictions}, examples)
    return {
        **{recall: metrics[recall] for recall in RECALLS},
        "missed": pairs.shortlist.missed(examples) if pairs.shortlist else 0.0,
        "seconds": seconds,
        "pairs_per_second": len(examples) * len(pairs.media_ids) / seconds,
    }


def measure(options: Namespace, folder: Path) -> Outcome:
    if not options.run:
        cpu_seconds(CLIPBERT, "demo", folder / "demo", "--task", "retrieval", "--size", "smallest")
        options.run, options.data_root = folder / "demo/runs/demo_retrieval", folder / "demo"
        options.set = ["infer.num_clips=4", *options.set]
    trained = open_run(RunSelection(options.run, overrides=options.set, data_root=options.data_root))
    ways: dict[str, int | None] = {"every video": None} | {f"shortlist of {size}": size for size in options.lists}
    # The first pass reads the files and gets memory from the system.
    scored(trained, options.split, None)
    turns = [{name: scored(trained, options.split, size) for name, size in ways.items()} for _ in range(2)]
    rows: dict[str, Any] = {}
    for name in ways:
        row, whole = (
            min((turn[each] for turn in turns), key=lambda row: row["seconds"]) for each in (name, "every video")
        )
        lost = {f"lost_{recall.removeprefix('recall_')}": whole[recall] - row[recall] for recall in RECALLS}
        rows[name] = {**row, **lost, "speedup": whole["seconds"] / row["seconds"]}
    said = [f"{name} x{row['speedup']:.2f}, R@1 {0.0 - row['lost_at_1']:+.1f}" for name, row in rows.items()][1:]
    return Outcome(rows, f"against every video: {'; '.join(said)}")


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("--run", type=Path, help="a retrieval run; default: the demo's, made now")
    parser.add_argument("--data-root", type=Path, help="of --run")
    parser.add_argument("--split", default="test")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument(
        "--lists", type=int, nargs="+", default=[2, 4, 8], help="lengths of a text's shortlist, in videos"
    )
    run(parser, measure)
