"""How much CPU do short commands and completions use, and how long does a training take to its first step?

    python benchmarks/startup.py [--repeats 3] [--json]

    --help, recipes ls  commands that need no data
    eval                `clipbert eval` of 1,000 predictions
    ask                 `clipbert ask`, one question about one video
    dry run             `clipbert finetune --recipe demo_qa --dry-run`
    Tab: ...            one press of Tab in bash; the values come from recipes, runs or a store with 10,000 media

Each of them runs in a process of its own, in turns. The seconds are those of CPU (user and system), of which the least
of the repeats counts. `first_step_seconds` is the part of a training's start that comes after the imports, as the
training reports it, in elapsed time. The exit code is 1 if a command uses more than LIMITS allows, if a press of Tab
takes more than 1.5 times as long as `--help`, or if it lists nothing.
"""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import lmdb
from harness import CLIPBERT, Outcome, command_line, cpu_seconds, make_demo_data, run

from clipbert_cli.types import Example

LIMITS = {"--help": 0.4, "eval": 1.0, "ask": 7.8}
"""Seconds of CPU."""
LIMIT_OF_TAB = 1.5
"""Times the CPU of `--help`."""
TRAIN = "finetune --recipe demo_qa --data-root . --set train.max_steps=1 --run"
TRUTHS = "--recipe demo_qa --data-root . --set data.splits.test.annotations=many.jsonl --split test"
COMMANDS = {
    "--help": ["--help"],
    "recipes ls": ["recipes", "ls"],
    "eval": ["eval", "predictions.jsonl", *TRUTHS.split()],
    "ask": ["ask", "what color is the bar ?", "--run", "run", "--video", "videos/test0000.mp4"],
    "dry run": [*TRAIN.split(), "none", "--dry-run"],
}
TABS = {
    "options": "finetune --",
    "settings": "finetune --set ",
    "splits of a run": "infer --run run --split ",
    "splits of a recipe": "eval preds.jsonl --recipe msrvtt_mc --split ",
    "checkpoints": "infer --run run --checkpoint ",
    "media ids": "store show store video99",
    "assets": "download ",
}


def press_tab(folder: Path, line: str) -> float:
    """Complete the last word of a command line and return the seconds."""
    words = ["clipbert", *line.split(" ")]
    asked = {"_CLIPBERT_COMPLETE": "complete_bash", "COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
    seconds, done = cpu_seconds(CLIPBERT, cwd=folder, **asked)
    if not done.stdout:
        raise SystemExit(f"nothing completes {line!r}")
    return seconds


def make_files(folder: Path) -> float:
    """Make data, predictions, a store and a run of one step; return the seconds to that step."""
    make_demo_data(folder, train=16)
    examples = [Example(None, "test0000", (f"what color is number {number} ?",)) for number in range(1000)]
    truth = {"answer": "red", "answer_type": "what"}
    records = [{"media_id": each.media_id, "question": each.texts[0], **truth} for each in examples]
    predictions = [{**each.key.to_json(), "answer": "red"} for each in examples]
    for name, rows in (("many.jsonl", records), ("predictions.jsonl", predictions)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "store").mkdir()
    with lmdb.open(str(folder / "store"), map_size=2**28) as environment, environment.begin(write=True) as transaction:
        for number in range(10_000):
            transaction.put(f"video{number}".encode(), b"")
    _, trained = cpu_seconds(CLIPBERT, *TRAIN.split(), "run", "--json", cwd=folder)
    seconds: float = json.loads(trained.stdout)["seconds_to_first_step"]
    return seconds


def turn(folder: Path) -> dict[str, float]:
    """Start everything once."""
    return {
        **{name: cpu_seconds(CLIPBERT, *words, cwd=folder)[0] for name, words in COMMANDS.items()},
        **{f"Tab: {name}": press_tab(folder, line) for name, line in TABS.items()},
    }


def measure(options: Namespace, folder: Path) -> Outcome:
    first_step = make_files(folder)
    turns = [turn(folder) for _ in range(max(1, options.repeats))]
    seconds = {name: min(each[name] for each in turns) for name in turns[0]}
    limits = LIMITS | {f"Tab: {name}": LIMIT_OF_TAB * seconds["--help"] for name in TABS}
    slowest = max((f"Tab: {name}" for name in TABS), key=seconds.__getitem__)
    said = [f"{name} {seconds[name]:.2f} s (limit {limits[name]:.2g})" for name in (*LIMITS, slowest)]
    is_quick = all(seconds[name] <= limit for name, limit in limits.items())
    return Outcome({"first_step_seconds": first_step, **seconds}, ", ".join(said), is_quick)


if __name__ == "__main__":
    run(command_line(__doc__, repeats=3), measure)
