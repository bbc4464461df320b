"""How much of the package a command or an import loads, and how much CPU it uses before and while it works.

    python benchmarks/startup.py [--repeats 3] [--json]

    import ...          a module alone; torch beside them for comparison
    --help, recipes ls  commands that need no data
    eval                `clipbert eval` of 1,000 predictions
    ask                 `clipbert ask`, one question about one video
    dry_run             `clipbert finetune --recipe demo_qa --dry-run`

Each of them runs in a process of its own, in turns. The columns are the files of the package that it loaded, their
lines, and seconds of CPU (user and system), of which the least of the repeats counts. `first_step_seconds` is the part
of a training's start that comes after the imports, as the training reports it, in elapsed time. Below are the files and
lines of each package, lines of code, and comment lines per 1,000 lines of code. Lines include docstrings and blank
lines, but not comments; lines of code also leave out docstrings and blank lines.

The exit code is 1 if `--help` or `eval` takes as long as LIMITS says, or if `clipbert_cli.train.loop` loads more than
45 files or 6,000 lines.
"""

from __future__ import annotations

import ast
import json
from argparse import Namespace
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

from harness import CLIPBERT, ROOT, Outcome, command_line, cpu_seconds, make_demo_data, run

from clipbert_cli.types import Example

LIMITS = {"--help": 0.5, "eval": 1.0}
"""Seconds of CPU."""
READ_FIRST = "clipbert_cli.train.loop"
MOST_FILES, MOST_LINES = 45, 6000
MODULES = (READ_FIRST, "clipbert_cli.build", "clipbert_cli.model.clipbert", "torch")
PROBE = """
import atexit, json, sys
def report():
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == "clipbert_cli"]
    print(json.dumps([module.__file__ for module in modules if module.__file__]), file=sys.stderr)
atexit.register(report)
"""


def probe(code: str, *words: object) -> tuple[dict[str, Any], str]:
    """Run `code` in a new process; return what it loaded and used, and its stdout."""
    seconds, done = cpu_seconds(PROBE + code, *words)
    # Empty __init__ files only make folders importable: there is nothing to read in them.
    counts = [counted for name in json.loads(done.stderr.splitlines()[-1]) if (counted := count_lines(name))["lines"]]
    lines = sum(each["lines"] for each in counts)
    return {"files": len(counts), "lines": lines, "cpu_seconds": round(seconds, 3)}, done.stdout


@cache
def count_lines(file: str) -> Counter[str]:
    """Return the numbers of lines of a file: those that are not comments, those of code, and comments."""
    text = Path(file).read_text(encoding="utf-8")
    lines = text.splitlines()
    comments = sum(line.lstrip().startswith("#") for line in lines)
    # A text that is a statement of its own documents what is before it.
    documented = {
        number
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    blank = sum(not line.strip() for number, line in enumerate(lines, 1) if number not in documented)
    code = len(lines) - comments - len(documented) - blank
    return Counter(files=1, lines=len(lines) - comments, code=code, comments=comments)


def package_lines() -> dict[str, dict[str, int]]:
    """Return the counts of each package and of all; a module at the top counts as a package."""
    counts: dict[str, Counter[str]] = {}
    for file in sorted((ROOT / "clipbert_cli").rglob("*.py")):
        for name in (f"clipbert_cli/{file.relative_to(ROOT).parts[1]}", "all packages"):
            counts[name] = counts.get(name, Counter()) + count_lines(str(file))
    whole = counts.pop("all packages")
    return {
        name: {**{each: row[each] for each in ("files", "lines", "code")}, "comments_per_1000": density(row)}
        for name, row in {**counts, "all packages": whole}.items()
    }


def density(row: Counter[str]) -> int:
    return round(1000 * row["comments"] / max(1, row["code"]))


def commands(folder: Path) -> tuple[float, dict[str, tuple[object, ...]]]:
    """Train a model for one step; return the seconds to that step, and the program and words of each row."""
    make_demo_data(folder, train=16)
    examples = [Example(None, "test0000", (f"what color is number {number} ?",)) for number in range(1000)]
    truth = {"answer": "red", "answer_type": "what"}
    records = [{"media_id": each.media_id, "question": each.texts[0], **truth} for each in examples]
    predictions = [{**each.key.to_json(), "answer": "red"} for each in examples]
    for name, rows in (("many.jsonl", records), ("predictions.jsonl", predictions)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = ["--recipe", "demo_qa", "--data-root", folder]
    training = ["finetune", *recipe, "--set", "train.max_steps=1", "--json", "--run"]
    trained = json.loads(probe(CLIPBERT, *training, folder / "run")[1])
    truths = ["--split", "test", "--set", f"data.splits.test.annotations={folder / 'many.jsonl'}"]
    video = folder / "videos" / "test0000.mp4"
    return trained["seconds_to_first_step"], {f"import {module}": (f"import {module}",) for module in MODULES} | {
        "--help": (CLIPBERT, "--help"),
        "recipes ls": (CLIPBERT, "recipes", "ls"),
        "eval": (CLIPBERT, "eval", folder / "predictions.jsonl", *recipe, *truths),
        "ask": (CLIPBERT, "ask", "what color is the bar ?", "--run", folder / "run", "--video", video),
        "dry_run": (CLIPBERT, *training, folder / "none", "--dry-run"),
    }


def measure(options: Namespace, folder: Path) -> Outcome:
    first_step, work = commands(folder)
    turns = [{name: probe(*words)[0] for name, words in work.items()} for _ in range(max(1, options.repeats))]
    rows = {name: min((turn[name] for turn in turns), key=lambda row: row["cpu_seconds"]) for name in work}
    packages, loop = package_lines(), rows[f"import {READ_FIRST}"]
    seconds = [f"clipbert {name} takes {rows[name]['cpu_seconds']:.2f} s (limit {LIMITS[name]})" for name in LIMITS]
    whole = packages["all packages"]
    result = (
        f"{', '.join(seconds)}, ask {rows['ask']['cpu_seconds']:.1f} s; {READ_FIRST} loads {loop['files']} files and "
        f"{loop['lines']:,} lines; the package has {whole['lines']:,} lines, {whole['code']:,} of code"
    )
    is_quick = all(rows[name]["cpu_seconds"] < limit for name, limit in LIMITS.items())
    is_small = loop["files"] <= MOST_FILES and loop["lines"] <= MOST_LINES
    return Outcome({"first_step_seconds": first_step, **rows, **packages}, result, is_quick and is_small)


if __name__ == "__main__":
    run(command_line(__doc__, repeats=3), measure)
