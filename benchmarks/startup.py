"""How long the command takes before it works: help, a list, a score, an answer and the start of a training.

    python benchmarks/startup.py [--repeats 3] [--json]

    help        clipbert --help
    recipes     clipbert recipes ls
    eval        clipbert eval of 1,000 predictions
    ask         clipbert ask, one question about one video
    dry_run     clipbert finetune --recipe demo_qa --dry-run
    first_step  the part of a training's start that comes after the imports: data, model and first step, as reported
    eager       the plain way: clipbert --help after all modules of the package have been imported

The script makes its data and a run first. Each command runs in a process of its own, the commands in turns. The fastest
repeat counts. Seconds are of CPU, for first_step by the clock. The exit code is 1 if `clipbert --help` takes 0.5
seconds or more, or eval 1 second or more.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from reporting import command_line, show

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

LIMITS = {"help": 0.5, "eval": 1.0}
RUN = "import sys; sys.argv[0] = 'clipbert'; from clipbert_cli.commands.app import main; main()"
EAGER = (
    "import pkgutil, importlib, clipbert_cli\n"
    "for each in pkgutil.walk_packages(clipbert_cli.__path__, 'clipbert_cli.'):\n"
    "    if not each.name.endswith(('__main__', 'dali')): importlib.import_module(each.name)\n"
)


def run(code: str, *arguments: str) -> tuple[float, str]:
    """Return the CPU seconds of a process that runs `code`, and its stdout."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def make_data(folder: Path) -> None:
    """Make videos, questions, a store, and 1,000 predictions with their ground truth."""
    from clipbert_cli.assets.demo_media import write_demo_media
    from clipbert_cli.store.pack import pack_media

    write_demo_media(folder, videos={"train": 16, "val": 2, "test": 1}, seed=1, progress=lambda: None)
    pack_media([folder / "videos"], folder / "vis_db", kind="video")
    truth = {"media_id": "test0000", "question": "what color is it ?", "answer": "red", "answer_type": "what"}
    (folder / "many.jsonl").write_text((json.dumps(truth) + "\n") * 1000)
    predictions = ({"example_id": str(number), "answer": "red"} for number in range(1000))
    (folder / "predictions.jsonl").write_text("".join(json.dumps(each) + "\n" for each in predictions))


def measure(folder: Path, repeats: int) -> dict[str, float]:
    """Return the least seconds of each command."""
    make_data(folder)
    recipe = ["--recipe", "demo_qa", "--data-root", str(folder)]
    training = ["finetune", *recipe, "--set", "train.max_steps=1", "--json", "--run"]
    trained = str(folder / "run")
    run(RUN, *training, trained)
    score = ["eval", str(folder / "predictions.jsonl"), *recipe, "--split", "test"]
    score += ["--set", f"data.splits.test.annotations={folder / 'many.jsonl'}"]
    question = ["ask", "what color is the bar ?", "--run", trained, "--video", str(folder / "videos" / "test0000.mp4")]

    def first_step(number: int) -> float:
        seconds: float = json.loads(run(RUN, *training, f"{trained}{number}")[1])["seconds_to_first_step"]
        return seconds

    ways: dict[str, Callable[[int], float]] = {
        "help": lambda _: run(RUN, "--help")[0],
        "recipes": lambda _: run(RUN, "recipes", "ls")[0],
        "eval": lambda _: run(RUN, *score)[0],
        "ask": lambda _: run(RUN, *question)[0],
        "dry_run": lambda _: run(RUN, *training, str(folder / "none"), "--dry-run")[0],
        "first_step": first_step,
        "eager": lambda _: run(EAGER + RUN, "--help")[0],
    }
    best: dict[str, float] = {}
    for number in range(repeats):
        for name, way in ways.items():
            best[name] = min(way(number), best.get(name, float("inf")))
    seconds = {f"{name}_seconds": round(value, 3) for name, value in best.items()}
    return {**seconds, "speedup_of_help": round(best["eager"] / best["help"], 1)}


def main() -> int:
    parser = command_line(__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="clipbert-startup-") as folder:
        report = measure(Path(folder), max(1, options.repeats))
    seconds = {name.removesuffix("_seconds"): value for name, value in report.items() if name.endswith("_seconds")}
    lines = [f"{name:10} {value:7.3f} s" for name, value in seconds.items()]
    said = [f"clipbert {name} takes {seconds[name]:.2f} s (limit {limit})" for name, limit in LIMITS.items()]
    result = f"{', '.join(said)}; ask {seconds['ask']:.1f} s; help without imports x{report['speedup_of_help']}"
    show(options, report, lines=lines, result=result)
    return int(any(seconds[name] >= limit for name, limit in LIMITS.items()))


if __name__ == "__main__":
    sys.exit(main())
