"""How much of the package an import loads, and how much CPU a command uses before it works.

    python benchmarks/imports.py [--repeats 3] [--module NAME]... [--root DIR] [--json]

Each module and each command runs in a process of its own. The columns are: files of the package that it loaded, their
lines, and seconds of CPU (user and system, the least of the repeats). Lines count docstrings and blank lines, but not
lines that hold a comment alone. The last lines give the lines of each package, and comment lines per 1,000 of them.

`--root` names another checkout, to compare two of them. The exit code is 1 where `clipbert_cli.train.loop` loads more
than 45 files or more than 6,000 lines.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from reporting import command_line, show

MODULES = ("clipbert_cli.train.loop", "clipbert_cli.build", "clipbert_cli.model", "torch")
COMMANDS = ("--help", "recipes ls", "finetune --help")
READ_FIRST = "clipbert_cli.train.loop"
MOST_FILES, MOST_LINES = 45, 6000

PROBE = """
import json, resource, sys
{work}
used = resource.getrusage(resource.RUSAGE_SELF)
files = [m.__file__ for n, m in sys.modules.items() if n.partition(".")[0] == "clipbert_cli" and m.__file__]
print(json.dumps([used.ru_utime + used.ru_stime, files]), file=sys.stderr)
"""
COMMAND = """
sys.argv = ["clipbert", *{words!r}]
from clipbert_cli.commands.app import app
try: app()
except SystemExit: pass
"""


def main() -> None:
    """Measure and print."""
    parser = command_line(__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--module", action="append", help="module to import instead of the usual ones; repeatable")
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1], help="checkout to measure")
    options = parser.parse_args()
    modules = options.module or MODULES
    work = {f"import {module}": f"import {module}" for module in modules}
    if not options.module:
        work |= {f"clipbert {words}": COMMAND.format(words=words.split()) for words in COMMANDS}
    loads = {name: probe(code, options.root, options.repeats) for name, code in work.items()}
    packages = package_lines(options.root / "clipbert_cli")
    total = sum(each["lines"] for each in packages.values())
    read_first = loads.get(f"import {READ_FIRST}")
    is_small = not read_first or (read_first["files"] <= MOST_FILES and read_first["lines"] <= MOST_LINES)
    show(
        options,
        {"loads": loads, "packages": packages, "lines": total},
        lines=[
            f"{'':36} {'files':>6} {'lines':>7} {'CPU s':>6}",
            *(f"{n:36} {e['files']:6} {e['lines']:7,} {e['cpu_seconds']:6.2f}" for n, e in loads.items()),
            "",
            f"{'package':36} {'files':>6} {'lines':>7} {'comments per 1,000':>20}",
            *(f"{n:36} {e['files']:6} {e['lines']:7,} {e['comments_per_1000']:20}" for n, e in packages.items()),
        ],
        result=f"{total:,} lines in the package"
        + (f"; {READ_FIRST} loads {read_first['files']} files, {read_first['lines']:,} lines" if read_first else ""),
    )
    sys.exit(0 if is_small else 1)


def probe(work: str, root: Path, repeats: int) -> dict[str, Any]:
    """Run `work` in new processes, and return what it loaded of the package in `root` and the least CPU it took."""
    seconds = []
    for _ in range(repeats):
        done = subprocess.run(
            [sys.executable, "-c", PROBE.format(work=work)],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{work.strip()} failed:\n{done.stderr}")
        cpu, names = json.loads(done.stderr.splitlines()[-1])
        seconds.append(cpu)
    # Empty __init__ files only make folders importable: there is nothing to read in them.
    counts = [count for name in names if sum(count := count_lines(Path(name)))]
    return {"files": len(counts), "lines": sum(lines for lines, _ in counts), "cpu_seconds": round(min(seconds), 2)}


def count_lines(file: Path) -> tuple[int, int]:
    """Return a file's lines without those that hold a comment alone, and the number of comment lines."""
    lines = file.read_text(encoding="utf-8").splitlines()
    comments = sum(line.lstrip().startswith("#") for line in lines)
    return len(lines) - comments, comments


def package_lines(folder: Path) -> dict[str, dict[str, int]]:
    """Return files, lines and comment density of each package; a module at the top counts as one."""
    files, lines, comments = Counter[str](), Counter[str](), Counter[str]()
    for file in sorted(folder.rglob("*.py")):
        name = file.relative_to(folder).parts[0]
        code, remarks = count_lines(file)
        files[name] += 1
        lines[name] += code
        comments[name] += remarks
    return {
        name: {
            "files": files[name],
            "lines": lines[name],
            "comments_per_1000": round(1000 * comments[name] / max(1, lines[name])),
        }
        for name in files
    }


if __name__ == "__main__":
    main()
