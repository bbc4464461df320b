"""One of several processes ends with the same output and exit code as a single process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import pytest
from running import is_running

from clipbert_cli.files import write_json
from clipbert_cli.runtime.process_exit import ConsequenceError, Ended, Failure, launch_error, report

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


@pytest.mark.parametrize("processes", [1, 2])
def test_exit_handlers_run_and_nothing_else_does(processes: int) -> None:
    assert ending("pass", processes).stdout == "handler\n"


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


# A function that C++ calls for static objects, after Python's end, and that aborts.
ABORTS = "libc = ctypes.CDLL(None); libc.__cxa_atexit(libc.abort, None, None)"


@pytest.mark.parametrize(
    ("end", "code"), [("pass", 0), ("sys.exit(0)", 0), ("sys.exit(3)", 3), ("raise ValueError", 1)]
)
def test_static_objects_are_left_alone(end: str, code: int) -> None:
    """DALI's abort after decoding on a GPU."""
    done = ending(f"{ABORTS}; {end}", 1)
    assert (done.returncode, done.stdout) == (code, "handler\n")
    assert ("ValueError" in done.stderr) == (code == 1)


def test_ctrl_c_has_its_exit_code() -> None:
    assert ending("raise KeyboardInterrupt", 2).returncode == 130


@pytest.mark.parametrize(
    ("ended", "reports", "message"),
    [
        # Who was killed cannot report; the others report that they have lost it.
        (Ended(exit_code=-9, rank=1), [(0, "gloo: Connection reset by peer", True)], "process 1 was ended by SIGKILL"),
        (Ended(exit_code=-11, rank=0), [(1, "Connection closed", True)], "process 0 was ended by SIGSEGV"),
        (Ended(exit_code=-7, rank=2), [], "process 2 was ended by SIGBUS"),
        (Ended(exit_code=-9, rank=1), [(0, "interrupted by SIGTERM", False)], "process 1 was ended by SIGKILL"),
        # A process that was interrupted twice reports nothing, and others miss it.
        (Ended(exit_code=130, rank=1, signal=signal.SIGINT), [(0, "gloo: Connection", True)], "interrupted by SIGINT"),
        # Who fails for a reason of its own is the cause, however late it reports.
        (Ended(exit_code=1, rank=0), [(0, "the main process failed", True), (1, "no space", False)], "no space"),
        (Ended(exit_code=-9, rank=0), [(1, "damaged video", False)], "damaged video"),
        # The cause may be on another machine.
        (Ended(exit_code=1, rank=0), [(0, "gloo: Connection closed by peer", True)], "gloo: Connection closed by peer"),
    ],
)
def test_the_process_that_failed_first_is_named(
    ended: Ended, reports: list[tuple[int, str, bool]], message: str, tmp_path: Path
) -> None:
    for moment, (rank, text, is_consequence) in enumerate(reports):
        code = 143 if "SIGTERM" in text else 1
        failure = Failure(text, None, code, rank, float(moment), is_consequence=is_consequence)
        write_json(tmp_path / str(rank) / "error.json", {"clipbert": asdict(failure)})
    assert str(launch_error(ended, tmp_path)) == message


class DistBackendError(RuntimeError):
    """NCCL's, by the name that torch gives to its base class."""


DistBackendError.__name__ = "DistError"


@pytest.mark.parametrize(
    ("error", "is_consequence"),
    [
        (RuntimeError("[/gloo/transport/tcp/pair.cc:538] Connection reset by peer [127.0.0.1]:1"), True),
        (DistBackendError("NCCL: remote process exited or there was a network error"), True),
        (ConsequenceError("the main process failed: ValueError: x"), True),
        (RuntimeError("shape mismatch"), False),
        (OSError(28, "No space left on device"), False),
    ],
)
def test_a_lost_connection_is_reported_as_a_consequence(
    error: Exception, is_consequence: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    try:
        raise error
    except type(error):
        report(str(error), hint=None, code=1)
    assert json.loads((tmp_path / "error.json").read_text())["clipbert"]["is_consequence"] is is_consequence


def test_a_process_gets_sigterm_when_its_launcher_is_gone() -> None:
    """Also a single one, and also when the launcher was gone before."""
    code = (
        "import signal, time; from clipbert_cli.runtime.process_exit import run_and_exit\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('SIGTERM', flush=True), sys.exit(3)))\n"
        "import sys; run_and_exit(lambda: time.sleep(30))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TORCHELASTIC_RUN_ID": "1", "CLIPBERT_LAUNCHED": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.returncode, done.stdout) == (3, "SIGTERM\n"), done.stderr


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("end", ["pass", "sys.exit(130)", "raise SystemExit(3)"])
def test_ctrl_c_while_a_command_ends_is_quiet(end: str, processes: int) -> None:
    """The exit handlers of libraries take a while; what is said before is the last word."""
    code = (
        "import atexit, os, signal, sys, time; from clipbert_cli.runtime.process_exit import *\n"
        "atexit.register(lambda: (os.kill(os.getpid(), signal.SIGINT), time.sleep(0.1), print('ended')))\n"
        f"def work():\n    ignore_interrupts(); os.kill(os.getpid(), signal.SIGINT); time.sleep(0.1); {end}\n"
        "run_and_exit(work)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WORLD_SIZE": str(processes)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    assert done.stdout == "ended\n"
    assert done.returncode == {"pass": 0, "sys.exit(130)": 130, "raise SystemExit(3)": 3}[end]


def test_ctrl_c_before_the_end_interrupts() -> None:
    work = "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(9)"
    assert ending(work, 2).returncode == 130


def test_ctrl_c_stays_ignored_in_a_background_job_of_a_shell() -> None:
    code = (
        "import os, signal; from clipbert_cli.runtime.process_exit import run_and_exit\n"
        "run_and_exit(lambda: (os.kill(os.getpid(), signal.SIGINT), print('goes on')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "goes on\n"), done.stderr


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("is_launched", [False, True])
def test_a_signal_during_the_imports_of_the_command_is_quiet(number: str, is_launched: bool) -> None:
    """Our launcher starts its processes with blocked signals, so that they can answer one from their start."""
    code = (
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(name, *_):\n"
        f"        if name == 'typer': os.kill(os.getpid(), signal.{number})\n"
        "sys.meta_path.insert(0, Finder)\n"
        f"if {is_launched}: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.{number}])\n"
        "sys.argv[1:] = ['--help']; from clipbert_cli.__main__ import main; main()"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **({"CLIPBERT_LAUNCHED": "1"} if is_launched else {})}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("", "")
    assert done.returncode == (130 if number == "SIGINT" else -signal.SIGTERM)


@pytest.mark.parametrize(
    "losing",
    [
        (
            "class Lost:\n    def __del__(self): os.kill(os.getpid(), signal.SIGINT); time.sleep(0.1)\n"
            "def work():\n    Lost(); time.sleep(5); print('went on')\n"
        ),
        (
            "def work():\n    try: os.kill(os.getpid(), signal.SIGINT); time.sleep(5)\n    except BaseException: pass\n"
            "    with Interrupts(): print('went on')\n"
        ),
    ],
    ids=["where Python only prints it", "where a library catches all"],
)
def test_a_ctrl_c_whose_exception_is_lost_interrupts_all_the_same(losing: str) -> None:
    code = (
        "import os, signal, time\nfrom clipbert_cli.runtime.interrupts import Interrupts\n"
        f"from clipbert_cli.runtime.process_exit import run_and_exit\n{losing}\nrun_and_exit(work)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WORLD_SIZE": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (130, ""), done.stderr


def test_a_second_ctrl_c_ends_a_process_that_answers_no_signal() -> None:
    """It waits in C code, as for a file system that hangs. All that it has started ends as well."""
    code = (
        "import ctypes, subprocess; from clipbert_cli.runtime.process_exit import *\n"
        "from clipbert_cli.runtime.interrupts import Interrupts\n"
        "def work():\n"
        "    state_kept('step 3 is complete', 'resume it')\n"
        "    lock, mutex = ctypes.CDLL(None).pthread_mutex_lock, ctypes.create_string_buffer(64)\n"
        "    with Interrupts(): print(subprocess.Popen(['sleep', '60']).pid, flush=True); lock(mutex); lock(mutex)\n"
        "run_and_exit(work)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    child = int(process.stdout.readline())
    for _ in range(2):
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert stderr == "error: interrupted by SIGINT; step 3 is complete\nnext: resume it\n"
    assert not is_running(child)
