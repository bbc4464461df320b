"""Run the benchmarks and write what they measured into benchmarks/RESULTS.md.

    python benchmarks/all.py                              every script, one after the other
    python benchmarks/all.py --only train_step startup    these; the other sections stay as they are
    python benchmarks/all.py --only train_step -- --steps 3    with options of the script

A section says when, on which machine and with which command its numbers were measured. A script that fails is said to
have failed, with its last words; a number that was not measured is not written.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "RESULTS.md"
OWN = ("all",)
SAID_ABOVE = ("benchmark", "machine")
"""Keys of reports that a section's head repeats."""
WIDEST = 8
"""Columns of a table."""
LIBRARIES = ("torch", "transformers", "av", "lmdb", "numpy")
INTRODUCTION = """# Measured

Written by `benchmarks/all.py`. What each number means stands at the top of its script.
"""


def scripts() -> list[str]:
    """Names of the benchmarks beside this file."""
    return sorted(file.stem for file in FOLDER.glob("*.py") if file.stem not in OWN)


def sections(text: str) -> dict[str, str]:
    """The sections of a results file by name, headings included."""
    parts = re.split(r"(?m)^## (.+)\n", text)
    return {name: f"## {name}\n{body.rstrip()}\n" for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def machine() -> str:
    """Processor, cores, GPU and versions."""
    cpu = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else ():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    import torch

    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", no GPU"
    found = [f"{name} {each}" for name in LIBRARIES if (each := _version(name))]
    return f"{cpu}, {len(os.sched_getaffinity(0))} cores{gpu}; Python {platform.python_version()}, {', '.join(found)}"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def measured(name: str, options: Sequence[str]) -> tuple[str, bool]:
    """One script's section, and whether it gave numbers."""
    command = [f"benchmarks/{name}.py", "--json", *options]
    done = subprocess.run(
        [sys.executable, *command],
        cwd=FOLDER.parent,
        env={**os.environ, "PYTHONPATH": str(FOLDER.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    head = f"## {name}\n\n{time.strftime('%Y-%m-%d')}, {machine()}. `python {' '.join(command)}`\n\n"
    try:
        report = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return f"{head}Failed with exit code {done.returncode}: {last}\n", False
    limit = "" if done.returncode == 0 else f"What the script wants is not reached (exit code {done.returncode}).\n\n"
    return head + limit + rendered(report), True


def rendered(report: Any, label: str = "") -> str:
    """A report as Markdown: an object of numbers is a table, one of such objects a table with a row for each."""
    if isinstance(report, list):
        report = {str(number): row for number, row in enumerate(report, start=1)}
    if not isinstance(report, Mapping):
        return f"{report}\n"
    plain = {name: value for name, value in report.items() if is_plain(value) and name not in SAID_ABOVE}
    nested = {name: value for name, value in report.items() if name not in plain and name not in SAID_ABOVE}
    parts = [f"{label}:\n"] if label else []
    if plain:
        parts.append(table(["what", "measured"], [[name, number(value)] for name, value in plain.items()]))
    rows = {name: row for name, row in nested.items() if isinstance(row, Mapping) and is_row(row)}
    if rows:
        columns = list(dict.fromkeys(column for row in rows.values() for column in row))
        body = [[name, *(number(row.get(column, "")) for column in columns)] for name, row in rows.items()]
        cells = [["", *columns], *body]
        if len(columns) > WIDEST:  # too wide to read: a column for each row
            cells = [list(column) for column in zip(*cells, strict=True)]
        parts.append(table(cells[0], cells[1:]))
    parts += [
        rendered(value, f"{label}, {name}" if label else name) for name, value in nested.items() if name not in rows
    ]
    return "\n".join(parts)


def is_row(value: Mapping[str, Any]) -> bool:
    """Whether an object holds plain values alone."""
    return all(map(is_plain, value.values()))


def is_plain(value: Any) -> bool:
    """Whether it is a single value, or a list of such."""
    if isinstance(value, list):
        return not any(isinstance(each, Mapping | list) for each in value)
    return not isinstance(value, Mapping)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def number(value: Any) -> str:
    """Four digits are enough; counts are whole."""
    if isinstance(value, list):
        return ", ".join(map(number, value))
    return f"{value:.4g}" if isinstance(value, float) and abs(value) < 1e4 else f"{value}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=scripts(), help="run these; other sections stay")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("options", nargs="*", help="after `--`: options of the one script that --only names")
    options = parser.parse_args()
    names = options.only or scripts()
    if options.options and len(names) != 1:
        parser.error("options of a script need --only with its name alone")
    kept = sections(options.output.read_text(encoding="utf-8")) if options.output.is_file() else {}
    failed = []
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        kept[name], well = measured(name, options.options)
        failed += [] if well else [name]
        text = "\n".join([INTRODUCTION, *(kept[each] for each in sorted(kept))])
        unfinished = options.output.with_suffix(".unfinished")
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, options.output)  # what a long run has measured so far is there
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
