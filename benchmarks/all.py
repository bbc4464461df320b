"""Run the benchmarks and write what they print into benchmarks/RESULTS.md.

    python benchmarks/all.py                                     every script, one after the other
    python benchmarks/all.py --only train_step startup           these; the other sections stay as they are
    python benchmarks/all.py --only train_step -- --steps 3      with options of the script

A section holds the date, the machine, the command and the lines that the script printed. It is written as soon as its
script ends. A script that fails is reported at the end with its last line, and its section stays as it was; the exit
code is then 1. A script that ran but did not reach its limits has its exit code in its section.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from harness import ROOT, machine

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "RESULTS.md"
INTRODUCTION = """# Measured

Written by `benchmarks/all.py`. The docstring of each script says what its numbers mean.
"""


def scripts(folder: Path = FOLDER) -> list[str]:
    """Return the names of the files that can be started; the others are modules that they share."""
    files = [file for file in folder.glob("*.py") if file.name != Path(__file__).name]
    return sorted(file.stem for file in files if "__main__" in file.read_text(encoding="utf-8"))


def sections(text: str) -> dict[str, str]:
    """Return the sections of a results file by name, headings included."""
    parts = re.split(r"(?m)^## (.+)\n", text)
    return {name: f"## {name}\n{body.rstrip()}\n" for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def section(file: Path, options: Sequence[str]) -> str:
    """Run a script and return its section.

    Raises:
        RuntimeError: the last line that it printed is not a result (`harness.run`).
    """
    command = [f"{file.parent.name}/{file.name}", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *command], cwd=file.parents[1], env=environment, capture_output=True, text=True, check=False
    )
    printed = done.stdout.rstrip()
    if not printed.rpartition("\n")[2].startswith("Result: "):
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise RuntimeError(f"{file.stem} failed with exit code {done.returncode}: {last}")
    # Paths of this machine mean nothing to the reader.
    shown = " ".join("FOLDER" if Path(word).is_absolute() else word for word in command)
    missed = f"\n\nThe script's limits were not reached (exit code {done.returncode})." if done.returncode else ""
    head = f"## {file.stem}\n\n{time.strftime('%Y-%m-%d')}, {machine()}. `python {shown}`"
    return f"{head}{missed}\n\n```text\n{printed}\n```\n"


def run(names: Sequence[str], options: Sequence[str], output: Path, folder: Path = FOLDER) -> list[str]:
    """Run scripts and write their sections; return one message per script that failed."""
    kept = sections(output.read_text(encoding="utf-8")) if output.is_file() else {}
    failures = []
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            kept[name] = section(folder / f"{name}.py", options)
        except RuntimeError as exc:
            failures.append(str(exc))
            continue
        output.write_text("\n".join([INTRODUCTION, *(kept[each] for each in sorted(kept))]), encoding="utf-8")
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=scripts(), help=f"of {', '.join(scripts())}")
    parser.add_argument("options", nargs="*", help="after `--`: options of the one script that --only names")
    options = parser.parse_args()
    names = options.only or scripts()
    if options.options and len(names) != 1:
        parser.error("options of a script need --only with its name alone")
    failures = run(names, options.options, RESULTS)
    print(*failures, sep="\n", end="\n" if failures else "", file=sys.stderr)
    print(f"{len(names) - len(failures)} of {len(names)} benchmarks measured: {RESULTS}")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
