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
    assert done.stdout.startswith("a job the worker process failed")
    assert "__main__" in done.stdout
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
