"""Loading processes that die, that cannot send their batches, and that are left when the main process ends."""

from __future__ import annotations

import errno
import faulthandler
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from forking import run_python, variables
from running import is_running

from clipbert_cli.errors import ClipbertError
from clipbert_cli.loading import processes
from clipbert_cli.loading.processes import load

ROOT = Path(__file__).parents[2]


def loading(at: int = -1, action: Callable[[], object] = lambda: None, made: Any = list, workers: int = 1) -> Any:
    """Batches of one number each, from 0; making number `at` calls `action` in the loading process."""

    def make(positions: Any, _allocate: object) -> Any:
        if at in positions:
            action()
        return made(positions)

    return load(make, ([number] for number in range(20)), workers=workers)


def kill(number: signal.Signals) -> Callable[[], object]:
    def action() -> None:
        faulthandler.disable()  # pytest's would print a traceback
        os.kill(os.getpid(), number)

    return action


@pytest.mark.parametrize(
    ("action", "message", "hint"),
    [
        (kill(signal.SIGKILL), "a loading process was ended by SIGKILL", "ran out of memory: lower data.workers"),
        (kill(signal.SIGBUS), "a loading process was ended by SIGBUS", "lower data.workers"),
        (kill(signal.SIGSEGV), "a loading process was ended by SIGSEGV", "lower data.workers"),
        (lambda: os._exit(3), "a loading process ended with exit code 3", "lower data.workers"),
    ],
    ids=["SIGKILL", "SIGBUS", "SIGSEGV", "exit"],
)
def test_how_a_loading_process_ended_is_said_at_once(
    action: Callable[[], object], message: str, hint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    begin = time.monotonic()
    with pytest.raises(ClipbertError) as failed:
        list(loading(9, action, workers=2))
    assert str(failed.value) == message
    assert hint in (failed.value.hint or "")
    assert time.monotonic() - begin < 5
    assert not processes._processes
    assert capfd.readouterr().err == ""  # torch prints a line about a crash


def test_a_death_raises_where_the_next_batch_is_taken_and_nowhere_else() -> None:
    batches = loading(workers=2)
    assert next(batches) == [0]
    (first, *_) = processes._processes
    assert first.pid
    os.kill(first.pid, signal.SIGKILL)
    end = time.monotonic() + 1
    while time.monotonic() < end:  # any line of the main process
        pass
    with pytest.raises(ClipbertError, match="SIGKILL"):
        next(batches)


def test_the_death_of_a_process_that_loads_something_else_is_noticed() -> None:
    """During validation, the processes that load training batches wait."""
    training = loading()
    assert next(training) == [0]
    (process,) = processes._processes
    validation = loading()
    assert next(validation) == [0]
    assert process.pid
    os.kill(process.pid, signal.SIGKILL)
    # A large process takes longer to end than the other one to load all numbers.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(ClipbertError, match="SIGKILL"):
        list(validation)


def test_processes_that_are_ended_are_no_death_for_a_thread_that_waits_for_others() -> None:
    """On a GPU, a thread takes the training batches while the main thread starts and ends those of a validation."""

    def slowly(positions: Any) -> Any:
        time.sleep(0.05)
        return list(positions)

    training = loading(made=slowly)
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(list, training)
        while not taken.done():
            validation = loading()
            assert next(validation) == [0]
            validation.close()
        assert taken.result() == [[number] for number in range(20)]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
            "the system refuses loading processes: Too many open files: a process may have up to",
        ),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left on device"),
        (RuntimeError("unable to open it: Too many open files (24)"), "may have up to"),
        (RuntimeError("received 0 items of ancdata"), "may have up to"),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "the system refuses loading processes: Cannot allocate"),
    ],
)
@pytest.mark.parametrize("when", ["made", "received"])
def test_a_batch_that_cannot_be_made_sent_or_received_is_one_error(when: str, error: Exception, message: str) -> None:
    class Failing:
        def __init__(self) -> None:
            if when == "made":
                raise error

        def __reduce__(self) -> Any:
            return fail, (error,)

    begin = time.monotonic()
    with pytest.raises(ClipbertError, match=message) as failed:
        list(loading(made=lambda _: Failing(), workers=2))
    assert "data.workers" in (failed.value.hint or "")
    assert time.monotonic() - begin < 5


def fail(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("error", [RuntimeError("a wrong size"), OSError(errno.EIO, "broken"), RuntimeError()])
def test_another_error_of_a_received_batch_stays_as_it_is(error: Exception) -> None:
    class Failing:
        def __reduce__(self) -> Any:
            return fail, (error,)

    with pytest.raises(type(error)) as failed:
        list(loading(made=lambda _: Failing(), workers=1))
    assert str(failed.value) == str(error)
    assert failed.value.__cause__ is None


def test_a_mistake_in_a_loading_process_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError) as failed:
        list(loading(3, lambda: 1 // 0))
    assert "in a loading process:" in failed.value.__notes__[0]
    assert "in <lambda>" in failed.value.__notes__[0]


@pytest.mark.parametrize("error", [errno.EMFILE, errno.EAGAIN, errno.ENOMEM])
def test_processes_that_cannot_be_started_are_one_error(
    error: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fork, started = os.fork, []

    def refused() -> int:
        if started:
            raise OSError(error, os.strerror(error))
        started.append(fork())
        return started[0]

    monkeypatch.setattr(os, "fork", refused)
    with pytest.raises(ClipbertError, match="refuses loading processes"):
        loading(workers=2)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("work", ["time.sleep(600)", "None"], ids=["busy", "waiting"])
def test_an_error_ends_the_process_whatever_its_loading_processes_do(work: str, processes: int) -> None:
    """They ignore SIGTERM, which Python would send them before it waits for them."""
    code = f"""
import sys, time
sys.path[:0] = "tests", "tests/loading"
from test_processes import loading
from clipbert_cli.runtime.process_exit import run_and_exit
def work():
    batches = loading(5, lambda: {work}, workers=2)
    next(batches)
    time.sleep(0.5)
    print(*(child.pid for child in __import__("multiprocessing").active_children()), flush=True)
    raise ValueError("something else fails")
run_and_exit(work)
"""
    environment = {**variables(), "WORLD_SIZE": str(processes)}
    done = run_python("-c", code, env=environment, cwd=ROOT, timeout=60)
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1
    assert done.stderr.endswith("ValueError: something else fails\n")
    children = done.stdout.split()
    assert len(children) == 2
    assert not [child for child in children if Path(f"/proc/{child}").exists()]


@pytest.mark.parametrize("work", ["time.sleep(600)", "None"], ids=["busy", "waiting"])
def test_loading_processes_end_when_their_parent_is_killed(work: str) -> None:
    code = f"""
import os, sys, time, multiprocessing
sys.path[:0] = "tests", "tests/loading"
from test_processes import loading
batches = loading(5, lambda: {work}, workers=2)
next(batches)
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
os.kill(os.getpid(), 9)
"""
    # The loading processes have the pipe, too: it ends when the last of them has ended.
    done = run_python("-c", code, env=variables(), cwd=ROOT, timeout=60)
    assert done.returncode == -signal.SIGKILL
    # A process closes its pipes a moment before it has ended.
    until = time.monotonic() + 5
    while (left := [child for child in done.stdout.split() if is_running(int(child))]) and time.monotonic() < until:
        time.sleep(0.05)
    assert not left
