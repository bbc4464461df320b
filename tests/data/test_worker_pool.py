"""Jobs in worker processes: what kills or never ends is only one failed job."""

from __future__ import annotations

import os
import signal

from clipbert_cli.data.worker_pool import Died, in_order


def work(job: str) -> str:
    if job == "killed":
        os.kill(os.getpid(), signal.SIGSEGV)
    while job == "endless":
        pass
    return job.upper()


def one_second(job: str) -> float:
    return 1.0


def test_jobs_that_die_or_never_end_are_said_to_and_the_others_are_done() -> None:
    jobs = ["a", "killed", "b", "endless", "c"]
    found = dict(in_order(work, jobs, workers=2, limit=one_second))
    assert list(found) == jobs
    assert [found[job] for job in "abc"] == ["A", "B", "C"]
    assert isinstance(found["killed"], Died)
    assert "SIGSEGV" in str(found["killed"])
    assert isinstance(found["endless"], Died)
    assert "takes too long" in str(found["endless"])
