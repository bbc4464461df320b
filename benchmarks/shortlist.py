"""What does `infer --shortlist` save, and which recall does it lose, against scoring every text with every video?

    python benchmarks/shortlist.py [--size smallest] [--lists 2 4 8] [--json]                  the demo's retrieval run
    python benchmarks/shortlist.py --run runs/msrvtt_retrieval --split val --lists 50 100      your own run

Without --run, `clipbert demo --task retrieval` trains a model first; its test split is scored with 4 clips a video.
Recall is text to video, in percent, on the split's ground truth; `lost` is the recall that a shortlist costs. `missed`
is the percentage of the texts whose own video is not on their shortlist. `pairs_per_second` counts all texts times all
videos, whether or not a pair was scored with all clips; its time includes decoding and the first scoring that makes
the shortlists. The ways take turns in each repeat; the fastest repeat of each way counts.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import ROOT, command_line, show

from clipbert_cli.infer.ranking import split_pairs
from clipbert_cli.infer.trained import RunSelection, TrainedRun, open_run

RECALLS = ("recall_at_1", "recall_at_5", "recall_at_10")


def made_run(folder: Path, size: str) -> Path:
    """Train the demo's retrieval run in `folder` and return its run folder."""
    command = [sys.executable, "-m", "clipbert_cli", "demo", str(folder), "--task", "retrieval", "--size", size]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the demo failed with exit code {done.returncode}:\n{done.stderr}")
    return folder / "runs" / "demo_retrieval"


def scored(run: TrainedRun, split: str, size: int | None) -> dict[str, float]:
    """Return recalls, the percentage that the shortlist misses, and the time; `size` None is without a shortlist."""
    begin = time.perf_counter()
    pairs = split_pairs(run, split).shortlisted(size)
    predictions = list(pairs.predict())
    seconds = time.perf_counter() - begin
    examples = pairs.split.examples
    metrics = run.setup.task.score({each.key: each.fields for each in predictions}, examples)
    return {
        **{recall: metrics[recall] for recall in RECALLS},
        "missed": pairs.shortlist.missed(examples) if pairs.shortlist else 0.0,
        "texts": len(examples),
        "videos": len(pairs.media_ids),
        "seconds": seconds,
    }


def measure(run: TrainedRun, split: str, lists: list[int], repeats: int) -> dict[str, dict[str, float]]:
    """Return one row without a shortlist and one for each length of it."""
    ways: dict[str, int | None] = {"every video": None} | {f"shortlist of {size}": size for size in lists}
    # The first pass reads the files and gets memory from the system.
    scored(run, split, None)
    rows: dict[str, dict[str, float]] = {}
    for _ in range(repeats):
        for name, size in ways.items():
            row = scored(run, split, size)
            if name not in rows or row["seconds"] < rows[name]["seconds"]:
                rows[name] = row
    whole = rows["every video"]
    return {name: row | against(row, whole) for name, row in rows.items()}


def against(row: dict[str, float], whole: dict[str, float]) -> dict[str, float]:
    """Return speeds, and the recall lost against scoring everything."""
    lost = {f"lost_{recall.removeprefix('recall_')}": whole[recall] - row[recall] for recall in RECALLS}
    speeds = {"pairs_per_second": row["texts"] * row["videos"] / row["seconds"]}
    return lost | speeds | {"speedup": whole["seconds"] / row["seconds"]}


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--run", type=Path, help="a retrieval run; default: the demo's, made now")
    parser.add_argument("--data-root", type=Path, help="of --run")
    parser.add_argument("--split", default="test")
    parser.add_argument("--size", choices=("smallest", "small", "full"), default="smallest", help="of the demo")
    parser.add_argument(
        "--lists", type=int, nargs="+", default=[2, 4, 8], help="lengths of a text's shortlist, in videos"
    )
    parser.add_argument("--clips", type=int, help="per video; default: the run's own, for the demo 4")
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="clipbert-shortlist-") as folder:
        rows = measure(opened(options, Path(folder)), options.split, options.lists, max(1, options.repeats))
    said = [f"{name} x{row['speedup']:.2f}, R@1 {0.0 - row['lost_at_1']:+.1f}" for name, row in rows.items()][1:]
    show(options, rows, result=f"against every video: {'; '.join(said)}")


def opened(options: argparse.Namespace, folder: Path) -> TrainedRun:
    """Return the run that --run names, or the demo's."""
    clips = options.clips if options.run or options.clips else 4
    overrides = [f"infer.num_clips={clips}"] if clips else []
    run, data_root = options.run, options.data_root
    if not run:
        run, data_root = made_run(folder / "demo", options.size), folder / "demo"
    return open_run(RunSelection(run, overrides=overrides, data_root=data_root))


if __name__ == "__main__":
    main()
