"""The parts that all benchmarks share: command line, report, machine, processes, data, and sides that take turns.

A benchmark is a function that measures: it gets the options of the command line and an empty folder, and returns an
`Outcome`. `run` calls it and prints the outcome.

A side is one of the ways that a benchmark compares. It runs in a process of its own, which has memory of its own. The
speed of a machine changes with the work of its neighbours. Therefore the sides take turns: each does a small piece
of the work while the others wait, and the benchmark compares the pieces that follow each other.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import multiprocessing
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).parents[1]
# The benchmarks also run from a checkout that is not installed. The tests have makers of small media and models.
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]


# ------------------------------------------------------------------------------------------------ command line


@dataclass(frozen=True)
class Outcome:
    """What a benchmark measured, its line of result, and whether its limits were reached."""

    report: Mapping[str, Any]
    result: str
    reached: bool = True


def command_line(doc: str | None, **numbers: int) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks have, and with options for numbers by their defaults.

    Args:
        doc: the script's docstring, which explains them.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser


def run(parser: argparse.ArgumentParser, measure: Callable[[argparse.Namespace, Path], Outcome]) -> NoReturn:
    """Measure, and print the report and its line of result, or with `--json` one document.

    The exit code is 1 if the limits were not reached.
    """
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="clipbert-benchmark-") as folder:
        outcome = measure(options, Path(folder))
    if options.json:
        print(json.dumps({**outcome.report, "result": outcome.result}, indent=1))
    else:
        print(*render(outcome.report), f"Result: {outcome.result}.", sep="\n")
    sys.exit(0 if outcome.reached else 1)


def render(report: Mapping[str, Any]) -> list[str]:
    """Return the lines of a report: its single values by name, then all of its mappings as the rows of one table."""
    rows = {name: value for name, value in report.items() if isinstance(value, Mapping)}
    lines = [f"{name}: {_text(value)}" for name, value in report.items() if name not in rows]
    if not rows:
        return lines
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    cells = [["", *columns], *([name, *(_text(row.get(each, "")) for each in columns)] for name, row in rows.items())]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    table = ("  ".join([first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]) for first, *others in cells)
    return lines + [line.rstrip() for line in table]


def _text(value: Any) -> str:
    """Return a value with four digits at most; counts are printed whole."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"


# ------------------------------------------------------------------------------------------------ processes

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
CLIPBERT = "import sys; sys.argv[0] = 'clipbert'; from clipbert_cli.commands.app import main; main()"
"""The command line as a program for `python -c`."""


def cpu_seconds(code: str, *words: object, cwd: Path = ROOT, **variables: str) -> tuple[float, Any]:
    """Run a program in a process of its own; return its seconds of CPU, user and system, and the finished process.

    Raises:
        SystemExit: it failed.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        cwd=cwd,
        env={**ENVIRONMENT, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, words)) or code} failed:\n{done.stderr}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done


# ------------------------------------------------------------------------------------------------ machine and data


def machine() -> str:
    """Return the processor, the number of cores, the GPU and the versions of the libraries."""
    import torch

    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    processor = names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    libraries = [f"{name} {version(name)}" for name in ("torch", "av", "lmdb", "numpy")]
    cores = len(os.sched_getaffinity(0))
    return f"{processor}, {cores} cores, {gpu}; Python {platform.python_version()}, {', '.join(libraries)}"


def make_demo_data(folder: Path, *, train: int, val: int = 2, test: int = 1) -> None:
    """Write the demo's videos and annotations, so many videos per split, and pack the videos into `vis_db`."""
    from clipbert_cli.assets.demo_media import write_demo_media
    from clipbert_cli.store.packing import pack_media

    write_demo_media(folder, videos={"train": train, "val": val, "test": test}, seed=1, progress=lambda: None)
    pack_media([folder / "videos"], folder / "vis_db", kind="video")


def pictures(*counts: int, generator: torch.Generator | None = None) -> torch.Tensor:
    """Return (*counts, 3, 448, 448) uint8 frames of coarse squares."""
    import torch
    from torch.nn.functional import interpolate

    coarse = torch.randint(0, 256, (math.prod(counts), 3, 14, 14), generator=generator).float()
    return interpolate(coarse, size=(448, 448), mode="bilinear").to(torch.uint8).unflatten(0, counts)


# ------------------------------------------------------------------------------------------------ sides

Work = Callable[[str], tuple[Any, float]]
"""Does what an order says; returns a value and the seconds of the part that is measured (`timed`)."""


def timed(device: torch.device, work: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result of `work` and its seconds."""
    import torch

    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    synchronize()
    begin = time.perf_counter()
    value = work()
    synchronize()
    return value, time.perf_counter() - begin


def counted(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result of `work` and its floating-point operations."""
    from clipbert_cli.model.flops import flop_counter

    with flop_counter() as counter:
        value = work()
    return value, float(counter.get_total_flops())


class Sides:
    """The processes of the sides that a benchmark compares.

    Args:
        starts: by name of the side, a function that prepares its work. It is pickled and called in the process.
    """

    def __init__(self, starts: Mapping[str, Callable[[], Work]]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pools = {
            name: ProcessPoolExecutor(1, mp_context=context, initializer=_prepare, initargs=(start,))
            for name, start in starts.items()
        }
        # Nothing is measured while a process still starts.
        for ready in [pool.submit(int) for pool in self._pools.values()]:
            ready.result()

    def __enter__(self) -> Sides:
        return self

    def __exit__(self, *_: object) -> None:
        for pool in self._pools.values():
            pool.shutdown()

    def take(self, order: str) -> dict[str, tuple[Any, float]]:
        """Give the order to one side after the other; return each side's value and seconds."""
        return {name: pool.submit(_do, order).result() for name, pool in self._pools.items()}


_work: Work


def _prepare(start: Callable[[], Work]) -> None:
    """Prepare a side's work in its process."""
    global _work
    # The side must not go on if the benchmark is killed. PR_SET_PDEATHSIG is 1; it exists on Linux alone.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    _work = start()


def _do(order: str) -> tuple[Any, float]:
    return _work(order)
