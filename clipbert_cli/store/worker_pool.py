"""Worker processes for jobs on files that may be broken: results in order, and a job that kills its process is only one
failed job."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import resource
import signal
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

_AHEAD = 4  # finished jobs a worker may be ahead of the first unfinished one


class Died(Exception):  # noqa: N818
    """A job's process died; the message says by which signal or exit code."""


class _Worker(Generic[Job, Result]):
    def __init__(self, work: Callable[[Job], Result], limit: Callable[[Job], float] | None) -> None:
        # Not forked: the parent may have threads (a progress bar) and an open LMDB.
        context = multiprocessing.get_context("spawn")
        self._work = work
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(work, limit, theirs), daemon=True)
        # Ctrl-C is the parent's to answer: the child inherits that the signal is blocked, and no start is half done.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self.number: int | None = None

    def give(self, number: int, job: Job) -> None:
        self.number = number
        with contextlib.suppress(BrokenPipeError):  # it died: `take` says so
            self.connection.send(job)

    def take(self) -> Result | Died:
        self.number = None
        try:
            result: Result = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            code = self.process.exitcode or 0
            if code == -signal.SIGXCPU:
                return Died("it takes too long: it is broken, or far larger than its bytes tell")
            if code == 1:  # how Python ends after an error
                return Died(
                    "the process that was to decode it failed (its error stands above); where every one does in a "
                    "script of yours, call this under `if __name__ == '__main__':`"
                )
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            return Died(f"it kills the process that decodes it ({how})")
        return result

    def stop(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.join()


def _serve(work: Callable[[Job], Result], limit: Callable[[Job], float] | None, connection: Connection) -> None:
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            job = connection.recv()
            if limit is not None:
                _allow(limit(job))
            connection.send(work(job))


def _allow(seconds: float) -> None:
    """Let the system end this process after so much more processor time: an endless loop in C hears nothing else."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = math.ceil(used.ru_utime + used.ru_stime + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def in_order(
    work: Callable[[Job], Result],
    jobs: Iterable[Job],
    *,
    workers: int,
    limit: Callable[[Job], float] | None = None,
) -> Iterator[tuple[Job, Result | Died]]:
    """(job, its result) in the order of the jobs, made by `workers` processes; by this one where it is 0.

    Args:
        work: a function of a module. What it raises ends its process: return what can go wrong.
        limit: a function of a module: seconds of processor time after which a job's process is ended. It is no limit to
            this process (`workers` 0).
    """
    if not workers:
        for job in jobs:
            yield job, work(job)
        return
    pending = enumerate(jobs)
    given: dict[int, Job] = {}
    done: dict[int, Any] = {}
    team: list[_Worker[Job, Result]] = []
    place = 0
    try:
        exhausted = False
        while True:
            while not exhausted and len(given) < workers * _AHEAD and (idle := _idle(team, work, limit, workers)):
                try:
                    number, job = next(pending)
                except StopIteration:
                    exhausted = True
                    break
                given[number] = job
                idle.give(number, job)
            while place in done:
                yield given.pop(place), done.pop(place)
                place += 1
            busy = {worker.connection: worker for worker in team if worker.number is not None}
            if not busy:
                if exhausted and not given:
                    return
                continue
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]
                assert worker.number is not None
                finished = worker.number
                done[finished] = worker.take()
                if isinstance(done[finished], Died):
                    worker.stop()
                    team.remove(worker)
    finally:
        for worker in team:
            worker.stop()


def _idle(
    team: list[_Worker[Job, Result]],
    work: Callable[[Job], Result],
    limit: Callable[[Job], float] | None,
    workers: int,
) -> _Worker[Job, Result] | None:
    for worker in team:
        if worker.number is None:
            return worker
    if len(team) < workers:
        team.append(_Worker(work, limit))
        return team[-1]
    return None


def available_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0))
