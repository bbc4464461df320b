"""Worker processes for jobs on files that may be broken.

Results come in the order of the jobs. A job that crashes its process, or takes too long, is one failed job; the others
are done. A process that was killed from outside says nothing about its job, which is done once more. The limit is
processor time: on a busy machine, a limit of wall time would fail whole videos.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import resource
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

Progress = Callable[[int, int], None]
"""Called with the number of finished items and the number of all."""

_AHEAD = 4
"""Jobs per worker that may be given out before the oldest one is finished: results wait in memory until then."""


_KILLED = (signal.SIGKILL, signal.SIGTERM)
"""Signals from outside: of a system without memory, which ends any process, or of a person."""


class WorkerCrash(Exception):  # noqa: N818
    """The failure of a job whose process ended before it returned a result. The message says how.

    `was_killed` means that something else than the job ended the process.
    """

    def __init__(self, message: str, *, was_killed: bool = False) -> None:
        super().__init__(message)
        self.was_killed = was_killed


class _Worker(Generic[Job, Result]):
    def __init__(self, work: Callable[[Job], Result], limit: Callable[[Job], float] | None) -> None:
        # Not forked: the parent may have threads (a progress bar) and an open LMDB, which do not survive a fork.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(work, limit, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.number: int | None = None

    def give(self, number: int, job: Job) -> None:
        self.number = number
        # If the process has ended, `take` reports it.
        with contextlib.suppress(BrokenPipeError):
            self.connection.send(job)

    def take(self) -> Result | WorkerCrash:
        self.number = None
        try:
            result: Result = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            code = self.process.exitcode or 0
            if code == -signal.SIGXCPU:
                return WorkerCrash(
                    "decoding timed out: no frame was decoded for a long time, so it is probably corrupt"
                )
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            if -code in _KILLED:
                message = f"its worker was killed twice ({how}): it may need more memory than there is"
                return WorkerCrash(message, was_killed=True)
            # Python has printed its error where it ended with exit code 1.
            return WorkerCrash(f"decoding it crashed the worker ({how})")
        return result

    def stop(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.join()


@contextlib.contextmanager
def _interrupt_deferred() -> Iterator[None]:
    """Start child processes that never see Ctrl-C, and answer a Ctrl-C in this process after the block.

    The child inherits that the signal is blocked; ignoring it after the start would leave a moment in which Ctrl-C
    prints the child's traceback. Blocking is not enough for this process: the system may deliver the signal to another
    thread, of a linear algebra library for example, and Python then raises KeyboardInterrupt here all the same. Raised
    in the middle of a start, it leaves a child that waits in vain for its first data and prints a traceback.
    """
    if threading.current_thread() is not threading.main_thread():  # Python answers signals in the main thread alone
        yield
        return
    # The first start of a process starts this one too, which unblocks the signal.
    resource_tracker.ensure_running()
    interrupts: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _: interrupts.append(number))
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        signal.signal(signal.SIGINT, handler)
        if interrupts:
            signal.raise_signal(signal.SIGINT)


_seconds_of_job: float | None = None
"""The time limit of the job that this process is doing; None if it is no worker, or there is no limit."""


def advance(seconds: float = 0.0) -> None:
    """Report from inside a job that it advances: its time limit begins anew, with so many seconds added."""
    if _seconds_of_job is not None:
        _allow(_seconds_of_job + seconds)


def _serve(work: Callable[[Job], Result], limit: Callable[[Job], float] | None, connection: Connection) -> None:
    global _seconds_of_job
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            job = connection.recv()
            if limit is not None:
                _seconds_of_job = limit(job)
                advance()
            connection.send(work(job))


def _allow(seconds: float) -> None:
    """Let the system end this process after so much more processor time; Python cannot interrupt a loop in C."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = math.ceil(used.ru_utime + used.ru_stime + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _join(
    team: list[_Worker[Job, Result]], work: Callable[[Job], Result], limit: Callable[[Job], float] | None
) -> _Worker[Job, Result]:
    """Start a worker that belongs to the team even if Ctrl-C comes meanwhile."""
    with _interrupt_deferred():
        team.append(_Worker(work, limit))
    return team[-1]


def _dismiss(team: list[_Worker[Job, Result]]) -> None:
    for worker in team:
        worker.stop()
    team.clear()


def in_order(
    work: Callable[[Job], Result],
    jobs: Iterable[Job],
    *,
    workers: int,
    limit: Callable[[Job], float] | None = None,
) -> Iterator[tuple[Job, Result | WorkerCrash]]:
    """Yield (job, its result) in the order of the jobs.

    A job whose process was killed is done once more when no other job is being done, which leaves it the most memory.

    Args:
        work: a function of a module. An exception that it raises ends its process, so it returns what can go wrong.
        workers: number of processes; 0 does the jobs in this one.
        limit: a function of a module that returns the seconds of processor time after which a job's process is ended,
            counted from its start or from its last call of `advance`.
            Without workers there is no limit.
    """
    if not workers:
        for job in jobs:
            yield job, work(job)
        return
    pending = enumerate(jobs)
    given: dict[int, Job] = {}
    done: dict[int, Any] = {}
    team: list[_Worker[Job, Result]] = []
    killed: list[int] = []
    place = 0
    exhausted = False
    try:
        while True:
            while killed and all(worker.number is None for worker in team):
                _dismiss(team)
                number = killed.pop(0)
                worker = _join(team, work, limit)
                worker.give(number, given[number])
                done[number] = worker.take()
                if isinstance(done[number], WorkerCrash):
                    _dismiss(team)
            while not exhausted and not killed and len(given) < workers * _AHEAD:
                idle = next((worker for worker in team if worker.number is None), None)
                if idle is None and len(team) == workers:
                    break
                try:
                    number, job = next(pending)
                except StopIteration:
                    exhausted = True
                    break
                # Workers are started as they are needed, also in place of one that crashed.
                if idle is None:
                    idle = _join(team, work, limit)
                given[number] = job
                idle.give(number, job)
            while place in done:
                yield given.pop(place), done.pop(place)
                place += 1
            busy = {worker.connection: worker for worker in team if worker.number is not None}
            if not busy and exhausted and not given:
                return
            for connection in wait(list(busy)) if busy else ():
                worker = busy[connection]  # type: ignore[index]
                assert worker.number is not None
                finished = worker.number
                found = worker.take()
                if isinstance(found, WorkerCrash):
                    worker.stop()
                    team.remove(worker)
                    if found.was_killed:
                        killed.append(finished)
                        continue
                done[finished] = found
    finally:
        _dismiss(team)
