"""A forked process looks like one that was started, from inside and to the process that ordered it."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from forking import ForkedPopen, run_python, variables
from running import children_of, eventually, is_running

FACTS = """
import json, os, signal, sys, tempfile, threading
handlers = {number.name: str(signal.getsignal(number)) for number in signal.Signals}
print(json.dumps({
    "words": sys.argv, "path": sys.path, "folder": os.getcwd(), "environment": dict(os.environ),
    "read": sys.stdin.read(),
    "main": sorted(sys.modules["__main__"].__dict__.keys() & {"__file__", "__spec__", "__name__", "json"}),
    "handlers": handlers, "files": sorted(os.listdir("/proc/self/fd")), "threads": len(os.listdir("/proc/self/task")),
    "parent": os.getppid(), "leads": [os.getpid() == of(0) for of in (os.getpgid, os.getsid)],
    "thread": repr(threading.current_thread() is threading.main_thread()), "umask": os.umask(0), "nice": os.nice(0),
    "temporary": tempfile.gettempdir(),
    "own modules": sorted({name.partition(".")[0] for name in sys.modules} & {"clipbert_cli", "typer", "transformers"}),
}))
print("to stderr", file=sys.stderr)
sys.exit(3)
"""


@pytest.mark.parametrize("session", [False, True])
def test_it_finds_what_a_started_process_finds(session: bool, tmp_path: Path) -> None:
    environment = {**variables(), "ONLY_HERE": "ü\udcff", "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", FACTS, "a word", ""]
    found = []
    for kind in (subprocess.Popen, ForkedPopen):
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        options: dict[str, Any] = {"cwd": tmp_path, "env": environment, "start_new_session": session, "text": True}
        with kind(command, **pipes, **options) as process:
            found.append((*process.communicate("some lines\n"), process.returncode))
    assert found[0] == found[1]


def test_a_launcher_is_the_parent_of_what_it_starts(tmp_path: Path) -> None:
    code = "import os, time; os.write(1, b'%d\\n' % os.getppid()); time.sleep(60)"
    (tmp_path / "rank.py").write_text(code)
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", tmp_path / "rank.py"]
    command = [sys.executable, *map(str, words)]
    with ForkedPopen(command, env=variables(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert {process.stdout.readline() for _ in range(2)} == {f"{process.pid}\n"}
        ranks = children_of(process.pid)
        assert len(ranks) == 2
        process.terminate()
        process.communicate(timeout=60)
        assert process.returncode == 1 or process.returncode < 0
        assert not any(map(is_running, ranks))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it(number: signal.Signals) -> None:
    command = [sys.executable, "-c", "print(flush=True); import time; time.sleep(60)"]
    with ForkedPopen(command, env=variables(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        process.send_signal(number)
        assert process.wait(30) == -number


def test_several_run_at_once() -> None:
    command = [sys.executable, "-c", "input()"]
    several = [ForkedPopen(command, env=variables(), stdin=subprocess.PIPE, text=True) for _ in range(3)]
    assert children_of(os.getpid())[-3:] == [process.pid for process in several]
    for process in several[::-1]:
        process.communicate("\n", timeout=30)
        assert process.returncode == 0
    eventually(lambda: not any(is_running(process.pid) for process in several))


@pytest.mark.parametrize(
    "options",
    [
        {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (50, 50))},
        {"env": {**variables(), "MALLOC_PERTURB_": "1"}},
        {"env": {**variables(), "PYTHONUTF8": "0"}},
    ],
    ids=["a function before the start", "a variable of the C library", "a variable of Python"],
)
def test_what_only_a_start_respects_is_started(options: dict[str, Any]) -> None:
    code = "import sys; print('torch' in sys.modules)"
    assert run_python("-c", code, env=variables()).stdout == "True\n"
    assert run_python("-c", code, **{"env": variables(), **options}).stdout == "False\n"
