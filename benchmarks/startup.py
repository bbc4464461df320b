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
lines of each package, and comment lines per 1,000 lines. Lines include docstrings and blank lines, but not comments.

The exit code is 1 if `--help` or `eval` takes as long as LIMITS says, or if `clipbert_cli.train.loop` loads more than
45 files or 6,000 lines.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from harness import ROOT, command_line, make_demo_data, show

from clipbert_cli.types import Example

LIMITS = {"--help": 0.5, "eval": 1.0}
"""Seconds of CPU."""
READ_FIRST = "clipbert_cli.train.loop"
MOST_FILES, MOST_LINES = 45, 6000
MODULES = (READ_FIRST, "clipbert_cli.build", "clipbert_cli.model.clipbert", "torch")
COMMAND = "sys.argv[0] = 'clipbert'; from clipbert_cli.commands.app import main; main()"
PROBE = """
import atexit, json, sys
def report():
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == "clipbert_cli"]
    print(json.dumps([module.__file__ for module in modules if module.__file__]), file=sys.stderr)
atexit.register(report)
"""


def probe(code: str, *arguments: object) -> tuple[dict[str, Any], str]:
    """Run `code` in a new process; return what it loaded and used, and its stdout."""
    words = [str(word) for word in arguments]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", PROBE + code, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words) or code} failed:\n{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    # Empty __init__ files only make folders importable: there is nothing to read in them.
    files = [Path(name) for name in json.loads(done.stderr.splitlines()[-1])]
    lines = [count for file in files if (count := sum(count_lines(file)))]
    code_lines = sum(count_lines(file)[0] for file in files)
    return {"files": len(lines), "lines": code_lines, "cpu_seconds": round(seconds, 3)}, done.stdout


def count_lines(file: Path) -> tuple[int, int]:
    """Return the number of lines that are not comments alone, and of those that are."""
    lines = file.read_text(encoding="utf-8").splitlines()
    comments = sum(line.lstrip().startswith("#") for line in lines)
    return len(lines) - comments, comments


def package_lines() -> dict[str, dict[str, int]]:
    """Return files, lines and comment density of each package; a module at the top counts as one."""
    files, lines, comments = Counter[str](), Counter[str](), Counter[str]()
    for file in sorted((ROOT / "clipbert_cli").rglob("*.py")):
        name = file.relative_to(ROOT).parts[1]
        counts = count_lines(file)
        files[name] += 1
        lines[name] += counts[0]
        comments[name] += counts[1]
    return {
        f"clipbert_cli/{name}": {
            "files": files[name],
            "lines": lines[name],
            "comments_per_1000": round(1000 * comments[name] / max(1, lines[name])),
        }
        for name in files
    }


def measure(folder: Path, repeats: int) -> dict[str, Any]:
    """Return a row per import and command, and the seconds to a training's first step."""
    make_demo_data(folder, train=16)
    examples = [Example(None, "test0000", (f"what color is number {number} ?",)) for number in range(1000)]
    truth = {"answer": "red", "answer_type": "what"}
    records = [{"media_id": each.media_id, "question": each.texts[0], **truth} for each in examples]
    predictions = [{**each.key.to_json(), "answer": "red"} for each in examples]
    for name, rows in (("many.jsonl", records), ("predictions.jsonl", predictions)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = ["--recipe", "demo_qa", "--data-root", folder]
    training = ["finetune", *recipe, "--set", "train.max_steps=1", "--json", "--run"]
    trained = json.loads(probe(COMMAND, *training, folder / "run")[1])
    truths = ["--split", "test", "--set", f"data.splits.test.annotations={folder / 'many.jsonl'}"]
    video = folder / "videos" / "test0000.mp4"
    work: dict[str, tuple[object, ...]] = {f"import {module}": (f"import {module}",) for module in MODULES} | {
        "--help": (COMMAND, "--help"),
        "recipes ls": (COMMAND, "recipes", "ls"),
        "eval": (COMMAND, "eval", folder / "predictions.jsonl", *recipe, *truths),
        "ask": (COMMAND, "ask", "what color is the bar ?", "--run", folder / "run", "--video", video),
        "dry_run": (COMMAND, *training, folder / "none", "--dry-run"),
    }
    rows: dict[str, Any] = {}
    for _ in range(repeats):
        for name, (code, *arguments) in work.items():
            row, _ = probe(str(code), *arguments)
            rows[name] = min(row, rows.get(name, row), key=lambda each: each["cpu_seconds"])
    return {"first_step_seconds": trained["seconds_to_first_step"], **rows}


def main() -> int:
    parser = command_line(__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="clipbert-startup-") as folder:
        report = measure(Path(folder), max(1, options.repeats))
    packages = package_lines()
    total, loop = sum(row["lines"] for row in packages.values()), report[f"import {READ_FIRST}"]
    seconds = [f"clipbert {name} takes {report[name]['cpu_seconds']:.2f} s (limit {LIMITS[name]})" for name in LIMITS]
    result = (
        f"{', '.join(seconds)}, ask {report['ask']['cpu_seconds']:.1f} s; {READ_FIRST} loads {loop['files']} files and "
        f"{loop['lines']:,} lines; the package has {total:,} lines"
    )
    show(options, {**report, **packages, "package_lines": total}, result=result)
    is_slow = any(report[name]["cpu_seconds"] >= limit for name, limit in LIMITS.items())
    return int(is_slow or loop["files"] > MOST_FILES or loop["lines"] > MOST_LINES)


if __name__ == "__main__":
    sys.exit(main())
