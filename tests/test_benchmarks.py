"""The module that the benchmarks share, and the script that writes their results, with scripts that end at once."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from forking import run_python
from made_media import video
from running import is_running
from small_models import small_config

from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.model.heads import HeadSpec

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
    with harness.Sides({"one": partial(start, "one")}) as sides, pytest.raises(ValueError, match="not a number"):
        sides.take("not a number")


# ------------------------------------------------------------------------------------------------ each script, small


@pytest.mark.parametrize("name", [file.stem for file in FOLDER.glob("*.py") if "__main__" in file.read_text()])
def test_a_script_explains_each_of_its_options(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    assert not ended.value.code
    usage, explained = capsys.readouterr().out.split("\n\n", 1)
    assert f"python benchmarks/{name}.py" in explained
    for option in re.findall(r"--[a-z-]+", usage):
        assert option in explained.partition("\noptions:")[0], option


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, made_data: Path, harness: Any) -> Callable[[str], Any]:
    """Imports a script that then has small data and a small model, and whose processes are forked."""

    def run(command: list[str], *, capture_output: bool, check: bool, text: bool, **options: Any) -> Any:
        return run_python(*command[1:], **options)

    config = small_config()
    config = config.model_copy(update={"bert": config.bert.model_copy(update={"vocab_size": 30522})})

    def imported(name: str) -> Any:
        script = importlib.import_module(name)
        monkeypatch.setattr(harness, "subprocess", SimpleNamespace(run=run))
        for maker, made in {
            "make_demo_data": lambda folder, **_: shutil.copytree(made_data, folder, dirs_exist_ok=True),
            "make_model": lambda: ClipBert(config, HeadSpec("classifier", 2)).eval(),
            "pictures": lambda *counts, **_: torch.randint(0, 256, (*counts, 3, 64, 64), dtype=torch.uint8),
        }.items():
            if hasattr(script, maker):
                monkeypatch.setattr(script, maker, made)
        return script

    return imported


def test_ask_and_infer_are_compared(
    small: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "nice", lambda _: None)  # of this process
    outcome = small("ask").measure(Namespace(videos=2, questions=4, repeats=1), tmp_path)
    assert [row["answers differ"] for name, row in outcome.report.items() if name != "questions"] == [0, 0, 0]


def test_commands_and_completions_are_measured(
    small: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = small("startup")
    for name, kept in {"LIMITS": ["--help"], "COMMANDS": ["--help", "eval"], "TABS": ["media ids"]}.items():
        monkeypatch.setattr(script, name, {key: getattr(script, name)[key] for key in kept})
    outcome = script.measure(Namespace(repeats=1), tmp_path)
    assert list(outcome.report) == ["first_step_seconds", "--help", "eval", "Tab: media ids"]


def test_all_ways_decode_the_same_videos(small: Callable[[str], Any]) -> None:
    script = small("decode")
    item = script.item_of(video(90))
    for policy in script.POLICIES:
        seconds = script.cpu_seconds(policy, [(item, item)], 1)
        assert list(seconds) == ["baseline", "loader", "decode", "bound", "loader, transcoded"]


def test_the_loops_share_of_a_step_is_measured(small: Callable[[str], Any], tmp_path: Path) -> None:
    outcome = small("loop_overhead").measure(Namespace(steps=2), tmp_path)
    assert sum(row["share"] for name, row in outcome.report.items() if name != "whole") == pytest.approx(1)


def test_a_step_of_the_engine_gives_its_loss(small: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain side has sizes of its own, of which a step takes seconds."""
    script = small("train_step")
    monkeypatch.setattr(script, "ANSWERS", 2)
    work = script.start("engine", torch.device("cpu"))
    losses = [work("step")[0][0] for _ in range(2)]
    assert losses[0] != losses[1]


def test_the_engine_scores_every_text_with_every_video(small: Callable[[str], Any]) -> None:
    script = small("retrieval")
    case = script.Case(1.0, cpu=(5, 2, 2, 2), tokens=(6, 9))
    work = script.start("engine", case, torch.device("cpu"))
    assert work("count")[0] > 0
    scores = [work("next")[0] for _ in range(script.TURNS)]
    assert [len(row) for batch in scores for row in batch] == [5, 5]


def test_a_row_of_encoders_has_every_column(small: Callable[[str], Any], capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    row = small("encoders").row("small", "vit", 32, {**sizes, "patch_size": 16, "image_size": 32})
    assert row.startswith("| small | 0 M | 32 | 4 |")
    assert row.count("|") == 8


@pytest.mark.dali
def test_the_first_gpu_minutes_run_on_a_cpu_as_far_as_it_goes(tmp_path: Path) -> None:
    command = [sys.executable, FOLDER / "first_gpu_minutes.py", tmp_path, "--device", "cpu"]
    # The other stages run the same functions for longer, or commands that have tests of their own.
    done = subprocess.run([*command, "--only", "ends", "damaged"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [result["exit_code"] for result in summary.values()] == [0, 0]
    found = (tmp_path / "damaged.txt").read_text().splitlines()
    assert found[0].startswith("right  60 damaged segments: ")
    assert '"whole_ones_right_afterwards": 60}' in found[0]
    assert summary["damaged"]["says"] == found[1:] == ["1 right, 0 wrong"]


@pytest.fixture
def minutes() -> Any:
    return importlib.import_module("first_gpu_minutes")


CRASH = "import os; print('before', flush=True); os.abort()"
HANG = "import time; print('so far', flush=True); time.sleep(60)"
UNWILLING = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
PARENT = """
import subprocess, sys
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]).pid)
"""


def as_stages(minutes: Any, monkeypatch: pytest.MonkeyPatch, **programs: str) -> None:
    """Make programs the only stages."""
    monkeypatch.setattr(minutes, "COMMANDS", {name: (["-c", code],) * 2 for name, code in programs.items()})
    monkeypatch.setattr(minutes, "STAGES", list(programs))


def test_a_stage_that_crashes_or_hangs_is_a_result(
    minutes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_stages(minutes, monkeypatch, crash=CRASH, hang=HANG, unwilling=UNWILLING)
    monkeypatch.setattr(minutes, "GRACE", 0.1)
    crashed = minutes.run_stage("crash", tmp_path, "cpu", 20)
    assert (crashed["exit_code"], crashed["says"]) == (-6, ["before"])
    hanging = minutes.run_stage("hang", tmp_path, "cpu", 3)
    assert (hanging["exit_code"], hanging["says"][0]) == ("stopped after 3 s", "so far")
    assert "KeyboardInterrupt" in hanging["says"]
    assert minutes.run_stage("unwilling", tmp_path, "cpu", 0.5)["seconds"] < 20


def test_what_a_stage_has_started_ends_with_it(minutes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_stages(minutes, monkeypatch, parent=PARENT)
    (started,) = minutes.run_stage("parent", tmp_path, "cpu", 20)["says"]
    deadline = time.monotonic() + 10
    while is_running(int(started)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_running(int(started))


def test_what_is_wrong_is_printed_and_fails_the_stage(
    minutes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [minutes.Found("one", {"mean": 0.5}), minutes.Found("other", {"mean": 80.5}, False)]
    monkeypatch.setitem(minutes.HERE, "colours", lambda device: iter(found))
    assert minutes.print_stage("colours", "cpu") == 1
    printed = capsys.readouterr().out
    assert printed == 'right  one: {"mean": 0.5}\nWRONG  other: {"mean": 80.5}\n1 right, 1 wrong\n'
    as_stages(minutes, monkeypatch, wrong=f"print({printed!r}, end=''); raise SystemExit(1)", good="print('fine')")
    monkeypatch.setattr(sys, "argv", ["first_gpu_minutes.py", str(tmp_path), "--device", "cpu"])
    assert minutes.main() == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("wrong       exit code 1, ")
    assert lines[1:3] == ['    WRONG  other: {"mean": 80.5}', "    1 right, 1 wrong"]
    assert lines[3].startswith("good        exit code 0, ")
    assert lines[4] == "    fine"
    assert lines[-1] == "Result: 1 of 2 stages end well: not wrong."


def test_stages_for_which_no_time_is_left_do_not_end_well(
    minutes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    as_stages(minutes, monkeypatch, first="print('fine')", second="print('fine')")
    monkeypatch.setattr(sys, "argv", ["first_gpu_minutes.py", str(tmp_path), "--device", "cpu", "--minutes", "0"])
    assert minutes.main() == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"{name:12}exit code no time left, 0.0 s" for name in ("first", "second")]
    assert lines[-1] == "Result: 0 of 2 stages end well: not first, second."
