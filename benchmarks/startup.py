"""How much CPU do short commands, completions and imports use, and how much of the package do they load?

    python benchmarks/startup.py [--repeats 3] [--json]

    --help, recipes ls  commands that need no data
    eval                `clipbert eval` of 1,000 predictions
    ask                 `clipbert ask`, one question about one video
    dry run             `clipbert finetune --recipe demo_qa --dry-run`
    Tab: ...            one press of Tab in bash; the values come from recipes, runs or a store with 10,000 media
    import ...          a module alone; torch for comparison

Each of them runs in a process of its own, in turns. The columns are seconds of CPU (user and system), of which the
least of the repeats counts, the files of the package that the process loaded, and their lines without comments.
`first_step_seconds` is the part of a training's start that comes after the imports, as the training reports it, in
elapsed time. The exit code is 1 if a command uses more than LIMITS allows, if a press of Tab takes more than 1.5 times
as long as `--help`, or if it lists nothing.
"""

from __future__ import annotations

import json
from argparse import Namespace
from functools import cache
from pathlib import Path
from typing import Any

import lmdb
from harness import CLIPBERT, Outcome, command_line, cpu_seconds, make_demo_data, run

from clipbert_cli.types import Example

LIMITS = {"--help": 0.4, "eval": 1.0, "ask": 7.8}
"""Seconds of CPU."""
LIMIT_OF_TAB = 1.5
"""Times the CPU of `--help`."""
MODULES = ("clipbert_cli.train.loop", "clipbert_cli.build", "clipbert_cli.model.clipbert", "torch")
TABS = {
    "options": "finetune --",
    "settings": "finetune --set ",
    "splits of a run": "infer --run run --split ",
    "splits of a recipe": "eval preds.jsonl --recipe msrvtt_mc --split ",
    "checkpoints": "infer --run run --checkpoint ",
    "media ids": "store show store video99",
    "assets": "download ",
}
PROBE = """
import atexit, json, sys
def report():
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == "clipbert_cli"]
    print(json.dumps([module.__file__ for module in modules if module.__file__]), file=sys.stderr)
atexit.register(report)
"""


def probe(folder: Path, code: str, *words: object, **variables: str) -> dict[str, Any]:
    """Run `code` in a new process; return the row of what it used and loaded, and what it printed."""
    seconds, done = cpu_seconds(PROBE + code, *words, cwd=folder, **variables)
    # Empty __init__ files only make folders importable: there is nothing to read in them.
    lines = [count for file in json.loads(done.stderr.splitlines()[-1]) if (count := count_lines(file))]
    return {"cpu_seconds": round(seconds, 3), "files": len(lines), "lines": sum(lines), "stdout": done.stdout}


@cache
def count_lines(file: str) -> int:
    """Return the number of a file's lines that are not comments."""
    return sum(not line.lstrip().startswith("#") for line in Path(file).read_text(encoding="utf-8").splitlines())


def press_tab(folder: Path, line: str) -> dict[str, Any]:
    """Complete the last word of a command line."""
    words = ["clipbert", *line.split(" ")]
    asked = {"_CLIPBERT_COMPLETE": "complete_bash", "COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
    row = probe(folder, CLIPBERT, **asked)
    if not row["stdout"]:
        raise SystemExit(f"nothing completes {line!r}")
    return row


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
    trained = probe(folder, CLIPBERT, *training("run"), "--json")
    seconds: float = json.loads(trained["stdout"])["seconds_to_first_step"]
    return seconds


def training(run: str) -> list[str]:
    return ["finetune", "--recipe", "demo_qa", "--data-root", ".", "--set", "train.max_steps=1", "--run", run]


def turn(folder: Path) -> dict[str, dict[str, Any]]:
    """Start everything once."""
    truths = ["--recipe", "demo_qa", "--data-root", ".", "--set", "data.splits.test.annotations=many.jsonl"]
    question = ["what color is the bar ?", "--run", "run", "--video", "videos/test0000.mp4"]
    commands: dict[str, list[str]] = {
        "--help": ["--help"],
        "recipes ls": ["recipes", "ls"],
        "eval": ["eval", "predictions.jsonl", "--split", "test", *truths],
        "ask": ["ask", *question],
        "dry run": [*training("none"), "--dry-run"],
    }
    return {
        **{name: probe(folder, CLIPBERT, *words) for name, words in commands.items()},
        **{f"Tab: {name}": press_tab(folder, line) for name, line in TABS.items()},
        **{f"import {module}": probe(folder, f"import {module}") for module in MODULES},
    }


def measure(options: Namespace, folder: Path) -> Outcome:
    first_step = make_files(folder)
    turns = [turn(folder) for _ in range(max(1, options.repeats))]
    rows = {name: min((each[name] for each in turns), key=lambda row: row["cpu_seconds"]) for name in turns[0]}
    seconds = {name: row["cpu_seconds"] for name, row in rows.items()}
    limits = LIMITS | {f"Tab: {name}": LIMIT_OF_TAB * seconds["--help"] for name in TABS}
    slowest = max((f"Tab: {name}" for name in TABS), key=seconds.__getitem__)
    said = [f"{name} {seconds[name]:.2f} s (limit {limits[name]:.2g})" for name in (*LIMITS, slowest)]
    table = {name: {column: row[column] for column in row if column != "stdout"} for name, row in rows.items()}
    is_quick = all(seconds[name] <= limit for name, limit in limits.items())
    return Outcome({"first_step_seconds": first_step, **table}, ", ".join(said), is_quick)


if __name__ == "__main__":
    run(command_line(__doc__, repeats=3), measure)
