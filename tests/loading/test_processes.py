"""Loading processes that die, that cannot send their batches, and that are left when the main process ends."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from forking import run_python, variables
from running import is_running
from torch.utils.data import DataLoader, Dataset

from clipbert_cli.errors import ClipbertError
from clipbert_cli.loading import processes
from clipbert_cli.loading.processes import LoadingProcesses, Sender, prepare_worker

ROOT = Path(__file__).parents[2]


class Numbers(Dataset[int]):
    """The numbers from 0; making number `at` calls `action` in the loading process."""

    def __init__(self, at: int, action: Callable[[], object]) -> None:
        self.at, self.action = at, action

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> int:
        if index == self.at:
            self.action()
        return index


def loading(
    at: int = -1, action: Callable[[], object] = lambda: None, collate: Any = list, workers: int = 1
) -> LoadingProcesses:
    return LoadingProcesses(
        DataLoader(
            Numbers(at, action),
            batch_size=1,
            collate_fn=Sender(collate),
            num_workers=workers,
            worker_init_fn=prepare_worker,
        )
    )


def kill(number: signal.Signals) -> Callable[[], object]:
    return lambda: os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("action", "message", "hint"),
    [
        (kill(signal.SIGKILL), "a loading process was ended by SIGKILL", "ran out of memory: lower data.workers"),
        (kill(signal.SIGBUS), "a loading process was ended by SIGBUS", "/dev/shm is full"),
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


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "more open files than the limit of"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "/dev/shm is full"),
        (RuntimeError("unable to open shared memory object </torch_7>: Too many open files (24)"), "more open files"),
        (RuntimeError("unable to allocate shared memory(shm) for file </t>: No space left on device (28)"), "/dev/shm"),
        (RuntimeError("unable to allocate shared memory(shm) for file </torch_7>: Success (0)"), "/dev/shm is full"),
        (RuntimeError("unable to resize file </torch_7> to the right size: File too large (27)"), "File too large"),
        (RuntimeError("received 0 items of ancdata"), "more open files"),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "the system refuses loading processes: Cannot allocate"),
    ],
)
@pytest.mark.parametrize("when", ["made", "sent", "received"])
def test_a_batch_that_cannot_be_made_sent_or_received_is_one_error(when: str, error: Exception, message: str) -> None:
    class Failing:
        def __init__(self) -> None:
            if when == "made":
                raise error

        def __reduce__(self) -> Any:
            if when == "sent":
                raise error
            return fail, (error,)

    begin = time.monotonic()
    with pytest.raises(ClipbertError, match=message) as failed:
        list(loading(collate=lambda _: Failing(), workers=2))
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
        list(loading(collate=lambda _: Failing(), workers=1))
    assert str(failed.value) == str(error)
    assert failed.value.__cause__ is None


def test_a_mistake_in_a_loading_process_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError, match="in __getitem__"):
        list(loading(3, lambda: 1 // 0))


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
    with pytest.raises(ClipbertError, match=r"open files|refuses loading processes"):
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


def test_a_spare_descriptor_is_kept_for_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one, the thread that passes a batch's memory on would try for ever."""
    opened: list[int] = []
    dup = os.dup

    def counted(descriptor: int) -> int:
        opened.append(dup(descriptor))
        return opened[-1]

    monkeypatch.setattr(os, "dup", counted)
    before = len(os.listdir("/proc/self/fd"))

    def made(items: Sequence[Any]) -> Any:
        return list(items)

    assert Sender(made)([1, 2]).open() == [1, 2]
    assert len(opened) >= 3
    assert len(os.listdir("/proc/self/fd")) == before


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


KILLED = """
import os, signal, sys
from clipbert_cli.loading.processes import _share_temporary_folder
_share_temporary_folder()
print(*os.listdir(os.environ["TMPDIR"]), flush=True)
sys.stdin.read()
"""


def test_the_folder_of_a_killed_command_is_removed_and_that_of_a_running_one_is_not(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", KILLED], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    (tmp_path / "pymp-of-others").mkdir()
    found = []
    with start() as running:
        assert running.stdout
        first = running.stdout.readline()
        for _ in range(2):
            with start() as killed:
                assert killed.stdout
                found.append(set(killed.stdout.readline().split()))
                killed.kill()
        running.kill()
    # The second one has removed what the first one left.
    assert len(found[0]) == len(found[1]) == 3
    assert found[0] & found[1] == set(first.split())
