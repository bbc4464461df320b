"""What runs the benchmarks and writes their results: with scripts that end at once."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

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


@pytest.fixture(scope="module")
def benchmarks() -> Any:
    spec = importlib.util.spec_from_file_location("benchmarks_all", FOLDER / "all.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    path = sys.path[:]
    sys.path.insert(0, str(FOLDER))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = path
    return module


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
