"""Does `clipbert ask --questions -` take longer than `clipbert infer` for the same questions?

    python benchmarks/ask.py [--videos 50] [--questions 1000] [--repeats 5] [--json]

A run of `demo_qa` answers all questions about all videos, written in an order in which questions about one video are
far apart. Both commands run in processes of their own, in turns, with nice. Both decode the same files in a folder;
`infer, store` reads the same videos from a packed store, where it is known which packets each frame needs.

`cpu_seconds` is the median of the repeats, user and system; `ratio` is the median of how much more `ask` used than the
row's command in the same turn. `answers differ` counts the questions that the two answer differently. The exit code is
1 if `ask` used more than LIMIT times as much as `infer` in a folder, or answers anything differently.
"""

from __future__ import annotations

import json
import os
from argparse import Namespace
from pathlib import Path
from statistics import median
from typing import Any

from harness import CLIPBERT, Outcome, command_line, cpu_seconds, make_demo_data, run

LIMIT = 1.1
FROM_FILE = "import sys; sys.stdin = open('lines.jsonl'); "


def make_files(folder: Path, videos: int, questions: int) -> None:
    """Make the data, a run of one step, the split `many`, and the same questions as lines for `ask`."""
    make_demo_data(folder, train=8, test=videos)
    first, second = (json.loads(line) for line in (folder / "txt_db/test.jsonl").read_text().splitlines()[:2])
    asked = [first["question"], second["question"], "what shape is on the left ?"]
    rows = [(f"test{n % videos:04}", f"{asked[n % 3]} {n}") for n in range(questions)]
    records = [{"media_id": media_id, "question": text, "answer": "red"} for media_id, text in rows]
    lines = [{"video": f"videos/{media_id}.mp4", "question": text} for media_id, text in rows]
    for name, written in (("many", records), ("lines", lines)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in written))
    words = ["finetune", "--recipe", "demo_qa", "--data-root", ".", "--set", "train.max_steps=1", "--run", "run"]
    cpu_seconds(CLIPBERT, *words, cwd=folder)


def infer(media: str) -> list[str]:
    many = ("annotations=many.jsonl", f"media={media}")
    settings = [word for each in many for word in ("--set", f"data.splits.test.{each}")]
    return ["infer", "--run", "run", "--split", "test", "-o", "-", *settings]


def answers(printed: str) -> list[str]:
    """Return the answers in the order of the questions' numbers."""
    rows = map(json.loads, printed.splitlines())
    return [row["answer"] for row in sorted(rows, key=lambda row: int(row["question"].rpartition(" ")[2]))]


def measure(options: Namespace, folder: Path) -> Outcome:
    os.nice(5)
    make_files(folder, options.videos, options.questions)
    commands = {
        "ask": ["ask", "--run", "run", "--questions", "-"],
        "infer, folder": infer("videos"),
        "infer, store": infer("vis_db"),
    }
    turns = [
        {name: cpu_seconds(FROM_FILE + CLIPBERT, *words, cwd=folder) for name, words in commands.items()}
        for _ in range(max(1, options.repeats))
    ]
    found = {name: answers(done.stdout) for name, (_, done) in turns[0].items()}
    rows: dict[str, dict[str, Any]] = {
        name: {
            "cpu_seconds": median(turn[name][0] for turn in turns),
            "ratio": median(turn["ask"][0] / turn[name][0] for turn in turns),
            "answers differ": sum(a != b for a, b in zip(found["ask"], found[name], strict=True)),
        }
        for name in commands
    }
    ratio, differ = rows["infer, folder"]["ratio"], sum(row["answers differ"] for row in rows.values())
    said = f"ask takes x{ratio:.2f} of infer's CPU (limit x{LIMIT:g}), {differ} answers differ"
    return Outcome({"questions": options.questions, **rows}, said, ratio <= LIMIT and not differ)


if __name__ == "__main__":
    run(command_line(__doc__, videos=50, questions=1000, repeats=5), measure)
