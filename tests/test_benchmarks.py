"""What runs the benchmarks and writes their results: with scripts that end at once."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "benchmarks"
GOOD = """
import json, sys
if __name__ == "__main__":
    print(json.dumps({"speedup": 2.5, "result": "it is faster", "options": sys.argv[1:], "ways": {"one": {"ms": 3.0}}}))
"""
MISSED = GOOD + "    sys.exit(1)\n"
BAD = """
if __name__ == "__main__":
    raise SystemExit("no such thing here")
"""


SIDE = """
import sys, time
sys.path[:0] = {paths!r}
import torch
from turns import MACHINE, Clock, serve, serve_products
side, clock = sys.argv[2], Clock(torch.device("cpu"))

def busy(order):
    until = time.process_time() + float(order)
    with clock.timed("busy"):
        while time.process_time() < until:
            pass
    return {{"side": side, "spans": clock.spans}}

serve_products(torch.device("cpu"), torch.float32) if side == MACHINE else serve(busy)
"""


def load(name: str) -> Any:
    """A file of the benchmarks' folder as a module."""
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # for its dataclasses
    path = sys.path[:]
    sys.path.insert(0, str(FOLDER))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = path
    return module


@pytest.fixture(scope="module")
def benchmarks() -> Any:
    return load("all")


@pytest.fixture(scope="module")
def turns() -> Any:
    return load("turns")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of benchmarks, and parts of them that are none."""
    own = tmp_path / "measuring"
    own.mkdir()
    for name, source in {"good": GOOD, "missed": MISSED, "bad": BAD, "part": "PART = 1\n"}.items():
        (own / f"{name}.py").write_text(source, encoding="utf-8")
    return own


def test_only_what_can_be_started_is_a_benchmark(benchmarks: Any, folder: Path) -> None:
    assert benchmarks.scripts(folder) == ["bad", "good", "missed"]


def test_a_failure_is_told_and_the_others_are_kept(benchmarks: Any, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "RESULTS.md"
    output.write_text("# Measured\n\n## earlier\n\nmeasured earlier\n\n## bad\n\nwhen it still ran\n", encoding="utf-8")
    failures = benchmarks.run(["bad", "good", "missed"], [], output, folder)
    assert failures == ["bad failed with exit code 1: no such thing here"]
    sections = benchmarks.sections(output.read_text(encoding="utf-8"))
    assert list(sections) == ["bad", "earlier", "good", "missed"]
    assert sections["earlier"] == "## earlier\n\nmeasured earlier\n"
    assert sections["bad"] == "## bad\n\nwhen it still ran\n"
    assert "It is faster.\n" in sections["good"]
    assert "| speedup | 2.5 |" in sections["good"]
    assert "`python measuring/good.py --json`" in sections["good"]
    assert "not reached" not in sections["good"]
    assert "What the script wants is not reached (exit code 1)." in sections["missed"]


def test_a_section_is_replaced_when_its_script_runs_again(benchmarks: Any, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "RESULTS.md"
    benchmarks.run(["good"], [], output, folder)
    first = output.read_text(encoding="utf-8")
    benchmarks.run(["good"], ["--more"], output, folder)
    again = output.read_text(encoding="utf-8")
    assert "--json --more`" in again
    assert again.count("## good") == 1
    assert again.replace(", --more", "").replace(" --more", "") == first


def test_time_that_a_side_was_stopped_does_not_count(turns: Any) -> None:
    answer = turns.Answer(
        {"spans": {"whole": [(1.0, 7.0)], "part": [(1.5, 2.5), (6.5, 7.0)]}}, ((0.0, 2.0), (6.0, 8.0))
    )
    assert answer.parts() == {"whole": 2.0, "part": 1.0}


def test_one_side_works_at_a_time(turns: Any, tmp_path: Path) -> None:
    script = tmp_path / "sides.py"
    script.write_text(SIDE.format(paths=[str(FOLDER), str(FOLDER.parent)]), encoding="utf-8")
    with turns.Turns(str(script), ["short", "long"], [], device=torch.device("cpu")) as taking:
        taking.take({"short": "0", "long": "0"})  # until both have started
        answers = taking.take({"short": "1.2", "long": "2.4"}, {"short": 1, "long": 2})
    assert [answers[side].fields["side"] for side in ("short", "long")] == ["short", "long"]
    assert all(len(each.slices) > 1 for each in answers.values()), "not one stop"
    slices = sorted(span for each in answers.values() for span in each.slices)
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(slices)), "two at a time"
    for each in answers.values():
        (begin, end) = each.fields["spans"]["busy"][-1]
        assert each.slices[0][0] <= begin < end <= each.slices[-1][1], "it worked before its turn"
    # What a side is at work, it computes: about what it was told to (on a busy machine it may take longer).
    assert answers["short"].parts()["busy"] >= 1.1
    assert taking.rate() > 0


def test_a_side_that_fails_ends_the_benchmark(turns: Any, tmp_path: Path) -> None:
    script = tmp_path / "sides.py"
    script.write_text(SIDE.format(paths=[str(FOLDER), str(FOLDER.parent)]), encoding="utf-8")
    with (
        turns.Turns(str(script), ["one"], [], device=torch.device("cpu")) as taking,
        pytest.raises(SystemExit, match="one: its process ended with exit code 1"),
    ):
        taking.take({"one": "not a number"})
