"""The module that the benchmarks share, and the script that writes their results, with scripts that end at once."""

from __future__ import annotations

import importlib
import itertools
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
GOOD = """
import sys
if __name__ == "__main__":
    print(*sys.argv[1:], "  speedup  2.5", "Result: it is faster.", sep="\\n")
"""
MISSED = GOOD + "    sys.exit(1)\n"
BAD = """
if __name__ == "__main__":
    print("some line")
    raise SystemExit("no such thing here")
"""
SIDE = """
import time

def start(name):
    def work(order):
        begin = time.perf_counter()
        while time.perf_counter() < begin + float(order):
            pass
        return (name, begin, time.perf_counter()), 1.0
    return work
"""


@pytest.fixture(autouse=True)
def on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)


@pytest.fixture
def benchmarks() -> Any:
    return importlib.import_module("all")


@pytest.fixture
def harness() -> Any:
    return importlib.import_module("harness")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of benchmarks and a module that they share."""
    own = tmp_path / "measuring"
    own.mkdir()
    for name, source in {"good": GOOD, "missed": MISSED, "bad": BAD, "part": "PART = 1\n"}.items():
        (own / f"{name}.py").write_text(source, encoding="utf-8")
    return own


def test_only_files_that_can_be_started_are_benchmarks(benchmarks: Any, folder: Path) -> None:
    assert benchmarks.scripts(folder) == ["bad", "good", "missed"]


def test_a_failure_is_reported_and_the_other_sections_are_kept(benchmarks: Any, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "RESULTS.md"
    output.write_text("# Measured\n\n## earlier\n\nmeasured earlier\n\n## bad\n\nwhen it still ran\n", encoding="utf-8")
    failures = benchmarks.run(["bad", "good", "missed"], [], output, folder)
    assert failures == ["bad failed with exit code 1: no such thing here"]
    sections = benchmarks.sections(output.read_text(encoding="utf-8"))
    assert list(sections) == ["bad", "earlier", "good", "missed"]
    assert sections["earlier"] == "## earlier\n\nmeasured earlier\n"
    assert sections["bad"] == "## bad\n\nwhen it still ran\n"
    assert sections["good"].endswith("```text\n  speedup  2.5\nResult: it is faster.\n```\n")
    assert "`python measuring/good.py`" in sections["good"]
    assert "not reached" not in sections["good"]
    assert "The script's limits were not reached (exit code 1)." in sections["missed"]


def test_a_section_is_replaced_when_its_script_runs_again(benchmarks: Any, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "RESULTS.md"
    benchmarks.run(["good"], [], output, folder)
    first = output.read_text(encoding="utf-8")
    benchmarks.run(["good"], ["--more"], output, folder)
    again = output.read_text(encoding="utf-8")
    assert "good.py --more`" in again
    assert again.count("## good") == 1
    assert again.replace("--more\n", "").replace(" --more", "") == first


def test_a_report_is_a_table_of_its_rows_below_its_single_values(harness: Any) -> None:
    report = {"plain": {"ms": 1234.5678, "x": 1.0}, "kills": 3, "engine": {"ms": 12.0, "mb": 7}}
    assert harness.render(report) == [
        "kills: 3",
        "          ms  x  mb",
        "plain   1235  1",
        "engine    12      7",
    ]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The function that starts a side of these tests, in a module that other processes can import."""
    (tmp_path / "side_of_a_benchmark.py").write_text(SIDE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module("side_of_a_benchmark").start


def test_one_side_works_at_a_time(harness: Any, start: Any) -> None:
    with harness.Sides({name: partial(start, name) for name in ("one", "other")}) as sides:
        turns = [sides.take("0.05") for _ in range(2)]
    answers = [turn[name][0] for turn in turns for name in ("one", "other")]
    assert [name for name, _, _ in answers] == ["one", "other", "one", "other"]
    assert all(end <= begin for (_, _, end), (_, begin, _) in itertools.pairwise(answers)), "two at a time"


def test_a_side_that_fails_ends_the_benchmark(harness: Any, start: Any) -> None:
    with (
        harness.Sides({"one": partial(start, "one")}) as sides,
        pytest.raises(SystemExit, match="one: its process ended with exit code 1"),
    ):
        sides.take("not a number")


@pytest.mark.dali
def test_the_first_gpu_minutes_run_on_a_cpu_as_far_as_it_goes(tmp_path: Path) -> None:
    command = [sys.executable, FOLDER / "first_gpu_minutes.py", tmp_path, "--device", "cpu"]
    # The other stages run the same functions for longer, or commands that have tests of their own.
    done = subprocess.run([*command, "--only", "ends", "damaged"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [result["exit_code"] for result in summary.values()] == [0, 0]
    fates = json.loads((tmp_path / "damaged.txt").read_text())
    assert fates["pixels"] + fates["error"] == fates["whole_ones_right_afterwards"] == 60


def test_a_stage_that_crashes_or_hangs_is_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = importlib.import_module("first_gpu_minutes")
    crash = ["-c", "import os; print('before', flush=True); os.abort()"]
    sleep = ["-c", "import time; time.sleep(60)"]
    monkeypatch.setattr(script, "COMMANDS", {"crash": (crash, crash), "sleep": (sleep, sleep)})
    assert script.run_stage("crash", tmp_path, "cpu", 20)["exit_code"] == -6
    assert (tmp_path / "crash.txt").read_text() == "before\n"
    assert script.run_stage("sleep", tmp_path, "cpu", 0.5)["exit_code"] == "stopped after 0 s"
