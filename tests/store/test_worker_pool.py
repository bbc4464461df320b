"""Jobs in worker processes: one that crashes its process or never ends is only one failed job."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from clipbert_cli.store.worker_pool import WorkerCrash, _interrupt_deferred, advance, in_order


def work(job: str) -> str:
    if job == "killed":
        os.kill(os.getpid(), signal.SIGSEGV)
    while job == "endless":
        pass
    return job.upper()


def one_second(job: str) -> float:
    return 1.0


def test_jobs_that_crash_or_never_end_are_reported_and_the_others_are_done() -> None:
    jobs = ["a", "killed", "b", "endless", "c"]
    found = dict(in_order(work, jobs, workers=2, limit=one_second))
    assert list(found) == jobs
    assert [found[job] for job in "abc"] == ["A", "B", "C"]
    assert isinstance(found["killed"], WorkerCrash)
    assert "SIGSEGV" in str(found["killed"])
    assert isinstance(found["endless"], WorkerCrash)
    assert "timed out" in str(found["endless"])


def killed_first(job: tuple[str, signal.Signals]) -> str:
    """Die the first time by the signal, as the system's killer of processes does it, and then do the job."""
    first, number = Path(job[0]), job[1]
    if not first.exists():
        first.touch()
        os.kill(os.getpid(), number)
    return "done"


def always_killed(job: signal.Signals | None) -> str:
    if job is not None:
        os.kill(os.getpid(), job)
    return "done"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_job_whose_worker_was_killed_is_done_once_more(tmp_path: Path, number: signal.Signals) -> None:
    jobs = [(str(tmp_path / str(each)), number) for each in range(4)]
    assert list(in_order(killed_first, jobs, workers=2)) == [(job, "done") for job in jobs]


def test_a_job_whose_worker_is_killed_again_fails_with_a_word_of_memory() -> None:
    found = [found for _, found in in_order(always_killed, [None, signal.SIGKILL, None, signal.SIGABRT], workers=2)]
    assert found[0] == found[2] == "done"
    assert "killed twice (SIGKILL)" in str(found[1])
    assert "memory" in str(found[1])
    assert "crashed the worker (SIGABRT)" in str(found[3])


def burn(job: tuple[float, bool, float]) -> str:
    """Compute for some seconds, reporting every fifth of a second or not, with so many seconds asked for."""
    seconds, reports, extra = job
    end = time.process_time() + seconds
    while (begin := time.process_time()) < end:
        while time.process_time() < begin + 0.2:
            pass
        if reports:
            advance(extra)
    while reports and extra < 0:  # an endless loop after it
        pass
    return "done"


def test_a_job_that_advances_is_not_ended_however_long_it_takes() -> None:
    found = [found for _, found in in_order(burn, [(2.5, True, 0.0), (3.5, False, 0.0)], workers=2, limit=one_second_)]
    assert found[0] == "done"
    assert "no frame was decoded" in str(found[1])


def test_a_job_that_advanced_and_then_stands_still_is_ended() -> None:
    ((_, found),) = in_order(burn, [(0.5, True, -0.5)], workers=1, limit=one_second_)
    assert isinstance(found, WorkerCrash)


def test_more_time_is_given_for_a_large_frame() -> None:
    ((_, found),) = in_order(large_frame, ["a"], workers=1, limit=one_second)
    assert found == "done"


def large_frame(job: str) -> str:
    advance(3.0)
    return burn((2.2, False, 0.0))


def one_second_(job: tuple[float, bool, float]) -> float:
    return 1.0


def test_a_script_whose_workers_cannot_start_is_told_why(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from clipbert_cli.store.worker_pool import in_order\n"
        "for job, crash in in_order(len, ['a job'], workers=1):\n"
        "    print(job, crash)\n"
    )  # as it begins, each of its processes runs the script again: multiprocessing forbids that
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, script], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert "crashed the worker (exit code 1)" in done.stdout
    assert "bootstrapping" in done.stderr


def test_an_interrupt_while_a_worker_starts_is_answered_after_the_start() -> None:
    """The system gives the signal to a thread that does not block it; Python answers in the main thread, at once."""
    other = threading.Thread(target=time.sleep, args=(1.0,))
    other.start()
    finished = []

    def start() -> None:
        with _interrupt_deferred():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
            finished.append(True)

    with pytest.raises(KeyboardInterrupt):
        start()
    other.join()
    assert finished
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_no_worker_ever_sees_ctrl_c() -> None:
    """The first one of a process included: multiprocessing starts a process of its own with it."""
    code = (
        "from test_worker_pool import blocks; from clipbert_cli.store.worker_pool import _Worker, _interrupt_deferred\n"
        "with _interrupt_deferred():\n    workers = [_Worker(blocks, None) for _ in range(2)]\n"
        "for number, worker in enumerate(workers):\n    worker.give(number, 'SIGINT'); print(worker.take())\n"
    )
    here = Path(__file__)
    environment = {**os.environ, "PYTHONPATH": f"{here.parent}{os.pathsep}{here.parents[2]}"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "True\nTrue\n", done.stderr


def blocks(job: str) -> bool:
    return signal.Signals[job] in signal.pthread_sigmask(signal.SIG_BLOCK, ())
