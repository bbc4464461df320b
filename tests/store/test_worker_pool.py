"""Jobs in worker processes: one that crashes its process or never ends is only one failed job."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from clipbert_cli.store.worker_pool import WorkerCrash, in_order


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
