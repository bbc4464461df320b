"""One of several processes ends with the same output and exit code as a single process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import pytest

ROOT = Path(__file__).parents[2]


def ending(work: str, processes: int, stdout: int | IO[Any] = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    """Run `work` in a process that then prints `after`, and `handler` from an exit handler."""
    code = "import atexit, ctypes, sys; from clipbert_cli.runtime.process_exit import run_and_exit\n"
    code += f"def work():\n    {work}\n"
    code += "atexit.register(print, 'handler')\nrun_and_exit(work)\nprint('after')\n"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    environment |= {"WORLD_SIZE": str(processes), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )


def test_one_of_several_ends_and_a_single_process_returns() -> None:
    assert ending("pass", 1).stdout == "after\nhandler\n"
    assert ending("pass", 2).stdout == "handler\n"


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(
    ("work", "code", "lines", "stderr"),
    [
        ("sys.exit()", 0, ["handler"], ""),
        ("sys.exit(3)", 3, ["handler"], ""),
        ("sys.exit(-1)", 255, ["handler"], ""),
        ("sys.exit('no more')", 1, ["handler"], "no more\n"),
        ("print('words'); sys.exit(3)", 3, ["words", "handler"], ""),
        ("raise ValueError('bad')", 1, ["handler"], "ValueError: bad\n"),
        ("ctypes.CDLL(None).puts(b'of C'); sys.exit(0)", 0, ["of C", "handler"], ""),
        ("sys.stdout = None; sys.exit(0)", 0, [], ""),
    ],
)
def test_output_and_exit_code_are_those_of_python(
    work: str, code: int, lines: list[str], stderr: str, processes: int
) -> None:
    done = ending(work, processes)
    assert done.returncode == code
    assert done.stdout.splitlines() == lines
    assert done.stderr.endswith(stderr)
    assert ("Traceback" in done.stderr) == ("ValueError" in stderr)


@pytest.mark.parametrize("processes", [1, 2])
def test_output_that_cannot_be_written_is_an_error(processes: int) -> None:
    with open("/dev/full", "w") as full:
        done = ending("print('words'); sys.exit(0)", processes, full)
    assert done.returncode == 120
    assert "No space left on device" in done.stderr


def test_ctrl_c_has_its_exit_code() -> None:
    assert ending("raise KeyboardInterrupt", 2).returncode == 130
