"""How much CPU each list of completions takes, against `clipbert --help`.

    python benchmarks/completion.py [--repeats 9] [--json]

Each row is one press of Tab in bash: a list of commands, options, or values that are read from files (recipes,
settings, runs, splits of a run, 10,000 media ids, assets). Every press starts a process, as the shell does, and so does
`clipbert --help`; they take turns, and the medians of their seconds of CPU (user and system) are compared. The exit
code is 1 if a list takes more than 1.5 times as long as the help, or if nothing is listed.
"""

from __future__ import annotations

import shutil
import statistics
from argparse import Namespace
from pathlib import Path

import lmdb
from harness import CLIPBERT, ROOT, Outcome, command_line, cpu_seconds, run

LIMIT = 1.5
ITEMS = 10_000
LINES = {
    "commands": "clipbert ",
    "options": "clipbert finetune --",
    "choices": "clipbert pack --kind ",
    "recipes": "clipbert finetune --recipe ",
    "settings": "clipbert finetune --set ",
    "values of a setting": "clipbert finetune --set train.precision",
    "runs": "clipbert ask --run ",
    "splits of a run": "clipbert infer --run runs/mine --split ",
    "splits of a recipe": "clipbert eval preds.jsonl --recipe msrvtt_mc --split ",
    "checkpoints": "clipbert infer --run runs/mine --checkpoint ",
    "stores": "clipbert store show ",
    "media ids": "clipbert store show store video99",
    "assets": "clipbert download ",
    "converters": "clipbert assets convert ",
}


def press_tab(folder: Path, line: str) -> tuple[float, int]:
    """Return the seconds of CPU and the number of candidates."""
    words = line.split(" ")
    asked = {"_CLIPBERT_COMPLETE": "complete_bash", "COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
    seconds, done = cpu_seconds(CLIPBERT, cwd=folder, **asked)
    return seconds, len(done.stdout.splitlines())


def make_files(folder: Path) -> None:
    """Make a run and a store as far as completion looks at them."""
    for step in range(10):
        (folder / f"runs/mine/checkpoints/step_{step}").mkdir(parents=True)
    shutil.copy(ROOT / "recipes/demo_qa.yaml", folder / "runs/mine/recipe.yaml")
    (folder / "store").mkdir()
    with lmdb.open(str(folder / "store"), map_size=2**28) as environment, environment.begin(write=True) as transaction:
        for number in range(ITEMS):
            transaction.put(f"video{number}".encode(), b"")


def measure(options: Namespace, folder: Path) -> Outcome:
    make_files(folder)
    turns = []
    for _ in range(max(1, options.repeats)):
        helped = (cpu_seconds(CLIPBERT, "--help", cwd=folder)[0], 0)
        turns.append({"--help": helped} | {name: press_tab(folder, line) for name, line in LINES.items()})
    seconds = {name: statistics.median(turn[name][0] for turn in turns) for name in turns[0]}
    report = {
        name: {"candidates": turns[0][name][1], "cpu_seconds": spent, "ratio": spent / seconds["--help"]}
        for name, spent in seconds.items()
    }
    slowest = max(LINES, key=seconds.__getitem__)
    result = f"the slowest list is {slowest}: x{report[slowest]['ratio']:.2f} of the help (limit {LIMIT})"
    if missing := [name for name in LINES if not report[name]["candidates"]]:
        result += f"; nothing was listed of {', '.join(missing)}"
    return Outcome(report, result, report[slowest]["ratio"] <= LIMIT and not missing)


if __name__ == "__main__":
    run(command_line(__doc__, repeats=9), measure)
