"""Run the benchmarks and write what they measured into benchmarks/RESULTS.md.

    python benchmarks/all.py                              every script, one after the other
    python benchmarks/all.py --only train_step startup    these; the other sections stay as they are
    python benchmarks/all.py --only train_step -- --steps 3    with options of the script

A section says when, on which machine and with which command its numbers were measured, begins with the script's line of
result, and is written as soon as its script ends. A script that fails is named at the end, with its last words, and the
exit code is 1; its section stays what it was. A number that was not measured is not written.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from device import machine

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "RESULTS.md"
SAID_ABOVE = ("benchmark", "machine", "result")
"""Keys of reports that a section's head repeats."""
WIDEST = 8
"""Columns of a table."""
INTRODUCTION = """# Measured

Written by `benchmarks/all.py`. What each number means stands at the top of its script.
"""


class FailedError(Exception):
    """A script gave no numbers."""


def scripts(folder: Path = FOLDER) -> list[str]:
    """Names of the benchmarks: what can be started, other than this; the other files are their parts."""
    files = [file for file in folder.glob("*.py") if file.name != Path(__file__).name]
    return sorted(file.stem for file in files if "__main__" in file.read_text(encoding="utf-8"))


def sections(text: str) -> dict[str, str]:
    """The sections of a results file by name, headings included."""
    parts = re.split(r"(?m)^## (.+)\n", text)
    return {name: f"## {name}\n{body.rstrip()}\n" for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def measured(file: Path, options: Sequence[str]) -> str:
    """One script's section.

    Raises:
        FailedError: it printed no report; with its last words.
    """
    command = [f"{file.parent.name}/{file.name}", "--json", *options]
    done = subprocess.run(
        [sys.executable, *command],
        cwd=file.parent.parent,
        env={**os.environ, "PYTHONPATH": str(FOLDER.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        report = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise FailedError(f"{file.stem} failed with exit code {done.returncode}: {last}") from None
    shown = ["FOLDER" if Path(word).is_absolute() else word for word in command]
    head = f"## {file.stem}\n\n{time.strftime('%Y-%m-%d')}, {machine()}. `python {' '.join(shown)}`\n\n"
    if "result" in report:
        head += f"{report['result'][:1].upper()}{report['result'][1:]}.\n\n"
    if done.returncode:
        head += f"What the script wants is not reached (exit code {done.returncode}).\n\n"
    return head + rendered(report)


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
        return ", ".join(map(number, value)) or "none"
    if not isinstance(value, float):
        return f"{value}"
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"


def run(names: Sequence[str], options: Sequence[str], output: Path, folder: Path = FOLDER) -> list[str]:
    """Run scripts and write their sections; what those that failed said."""
    kept = sections(output.read_text(encoding="utf-8")) if output.is_file() else {}
    failures = []
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            kept[name] = measured(folder / f"{name}.py", options)
        except FailedError as exc:
            failures.append(str(exc))
            continue
        unfinished = output.with_suffix(".unfinished")
        unfinished.write_text("\n".join([INTRODUCTION, *(kept[each] for each in sorted(kept))]), encoding="utf-8")
        os.replace(unfinished, output)  # what a long run has measured so far is there
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=scripts(), help=f"of {', '.join(scripts())}")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("options", nargs="*", help="after `--`: options of the one script that --only names")
    options = parser.parse_args()
    names = options.only or scripts()
    if options.options and len(names) != 1:
        parser.error("options of a script need --only with its name alone")
    failures = run(names, options.options, options.output)
    print(*failures, sep="\n", end="\n" if failures else "", file=sys.stderr)
    print(f"{len(names) - len(failures)} of {len(names)} benchmarks measured: {options.output}")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
