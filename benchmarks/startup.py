"""How long the command takes to begin: help, a list, a dry run; against importing everything first.

    python benchmarks/startup.py [--repeats 3] [--json] [--plot FILE]

    help       clipbert --help
    recipes    clipbert recipes ls
    dry_run    clipbert finetune --recipe demo_qa --dry-run, on data that this script makes
    first_step the part of a training's start that comes after the imports: data, model, first step, as the run reports
    eager      the plain way: `clipbert --help` after every module of the package was imported

Commands run in processes of their own, the ways in turns; the fastest of the repeats counts, in seconds by the clock.
The exit code is 1 where `clipbert --help` takes half a second or more.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from charts import bars
from reporting import command_line, show

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

LIMIT = 0.5
RUN = "import sys; sys.argv[0] = 'clipbert'; from clipbert_cli.commands.app import main; main()"
EAGER = (
    "import pkgutil, importlib, clipbert_cli\n"
    "for each in pkgutil.walk_packages(clipbert_cli.__path__, 'clipbert_cli.'):\n"
    "    if not each.name.endswith(('__main__', 'dali')): importlib.import_module(each.name)\n"
)


def seconds(code: str, *arguments: str) -> tuple[float, str]:
    """Seconds of a process that runs `code`, and what it said on stdout."""
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr}")
    return time.perf_counter() - begin, done.stdout


def make_data(folder: Path) -> None:
    """Made videos and questions, packed."""
    from clipbert_cli.assets.demo_media import write_demo_media
    from clipbert_cli.store.pack import pack_media

    write_demo_media(folder, videos={"train": 16, "val": 2, "test": 1}, seed=1, progress=lambda: None)
    pack_media([folder / "videos"], folder / "vis_db", kind="video")


def measure(folder: Path, repeats: int) -> dict[str, float]:
    make_data(folder)
    training = ["finetune", "--recipe", "demo_qa", "--data-root", str(folder), "--set", "train.max_steps=1", "--json"]
    best: dict[str, float] = {}
    for number in range(repeats):
        run = str(folder / f"run{number}")
        ways = {
            "help": lambda: seconds(RUN, "--help")[0],
            "recipes": lambda: seconds(RUN, "recipes", "ls")[0],
            "dry_run": lambda run=run: seconds(RUN, *training, "--run", run, "--dry-run")[0],
            "first_step": lambda run=run: json.loads(seconds(RUN, *training, "--run", run)[1])["seconds_to_first_step"],
            "eager": lambda: seconds(EAGER + RUN, "--help")[0],
        }
        for name, way in ways.items():
            best[name] = min(way(), best.get(name, float("inf")))
    return {
        **{f"{name}_seconds": round(value, 3) for name, value in best.items()},
        "speedup_of_help": round(best["eager"] / best["help"], 1),
    }


def main() -> int:
    parser = command_line(__doc__, chart="seconds of each")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="clipbert-startup-"))
    try:
        report = measure(folder, max(1, options.repeats))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rows = [(name.removesuffix("_seconds"), value) for name, value in report.items() if name.endswith("_seconds")]
    if options.plot:
        bars(options.plot, "seconds", rows)
    lines = [f"{name:10} {value:7.3f} s" for name, value in rows]
    result = (
        f"clipbert --help takes {report['help_seconds']:.2f} s (limit {LIMIT}), {report['speedup_of_help']} times as "
        "fast as with all imports first"
    )
    show(options, report, lines=lines, result=result)
    return int(report["help_seconds"] >= LIMIT)


if __name__ == "__main__":
    sys.exit(main())
