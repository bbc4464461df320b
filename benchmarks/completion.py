"""How much CPU each list of completions takes, against `clipbert --help`.

    python benchmarks/completion.py [--repeats 9] [--json]

Each row is one press of Tab in bash: a list of commands, options, or values that are read from files (recipes,
settings, runs, splits of a run, 10,000 media ids, assets). Every press starts a process, as the shell does, and so does
`clipbert --help`; they take turns, and the medians of their seconds of CPU (user and system) are compared. The exit
code is 1 if a list takes more than 1.5 times as long as the help.
"""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import lmdb
from harness import ROOT, command_line, show

LIMIT = 1.5
COMMAND = "import sys; sys.argv[0] = 'clipbert'; from clipbert_cli.commands.app import main; main()"
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
    "names of files": "clipbert pack ",
}


def cpu(folder: Path, words: list[str], **variables: str) -> tuple[float, str]:
    """Run the command in a process; return its seconds of CPU and what it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def press_tab(folder: Path, line: str) -> tuple[float, str]:
    words = line.split(" ")
    variables = {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
    return cpu(folder, [], _CLIPBERT_COMPLETE="complete_bash", **variables)


def make_files(folder: Path) -> None:
    """Make a run and a store as far as completion looks at them."""
    for step in range(10):
        (folder / f"runs/mine/checkpoints/step_{step}").mkdir(parents=True)
    shutil.copy(ROOT / "recipes/demo_qa.yaml", folder / "runs/mine/recipe.yaml")
    (folder / "store").mkdir()
    with lmdb.open(str(folder / "store"), map_size=2**28) as environment, environment.begin(write=True) as transaction:
        for number in range(ITEMS):
            transaction.put(f"video{number}".encode(), b"")


def measure(folder: Path, repeats: int) -> dict[str, Any]:
    """Return a row for the help and for each list."""
    make_files(folder)
    seconds: dict[str, list[float]] = {name: [] for name in ("--help", *LINES)}
    listed = {"--help": 0}
    for _ in range(repeats):
        seconds["--help"].append(cpu(folder, ["--help"])[0])
        for name, line in LINES.items():
            took, printed = press_tab(folder, line)
            seconds[name].append(took)
            listed[name] = len(printed.split("\n")) - 1
    reference = statistics.median(seconds["--help"])
    return {
        name: {
            "candidates": listed[name],
            "cpu_seconds": statistics.median(took),
            "ratio": statistics.median(took) / reference,
        }
        for name, took in seconds.items()
    }


def main() -> int:
    parser = command_line(__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="clipbert-completion-") as folder:
        report = measure(Path(folder), max(1, options.repeats))
    slowest = max(LINES, key=lambda name: report[name]["ratio"])
    missing = [name for name in LINES if not report[name]["candidates"] and name != "names of files"]
    result = f"the slowest list is {slowest}: x{report[slowest]['ratio']:.2f} of the help (limit {LIMIT})"
    if missing:
        result += f"; nothing was listed of {', '.join(missing)}"
    show(options, report, result=result)
    return int(report[slowest]["ratio"] > LIMIT or bool(missing))


if __name__ == "__main__":
    sys.exit(main())
