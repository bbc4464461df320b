"""Loading processes: started, asked for batches, watched, ended.

    main process        positions of a batch ─►  process 0        each process in turn is asked for the next batch,
                        positions of a batch ─►  process 1        two batches of each ahead of their use
    in the same order   ◄─ batch, or the error in its place

A batch's frames lie in memory that both processes share, and everything else is sent. That memory has no name and is
not in /dev/shm, so nothing but the machine's memory limits it. A process that dies is one error where the next batch is
taken. Processes whose batches nobody wants any more are killed: they have nothing to lose.
"""

from __future__ import annotations

import atexit
import errno
import functools
import gc
import io
import math
import mmap
import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any

import torch

from clipbert_cli.errors import ClipbertError
from clipbert_cli.loading.dataset import Allocate, LoadedBatch, Position
from clipbert_cli.media.canvas import channels_first
from clipbert_cli.system_errors import OUT_OF_FILES, OUT_OF_SPACE, reason, remedy, system_error

BATCHES_AHEAD = 2
"""Batches that each loading process makes before they are used."""

# Launchers send these signals to whole process groups. The main process handles them (it saves a checkpoint), and needs
# its loading processes for that.
_IGNORED_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)

_FEWER = "lower data.workers (0 loads in the main process)"
_LIMITS = {errno.EAGAIN, errno.ENOMEM, errno.EFBIG, *OUT_OF_FILES, *OUT_OF_SPACE}
_SECONDS_BETWEEN_LOOKS = 0.5
_SECONDS_TO_END = 2.0

# A forked process has the data set, which may be large, without receiving it.
_FORK = multiprocessing.get_context("fork")

Make = Callable[[Sequence[Position], Allocate], LoadedBatch]
"""Makes the batch of these positions, with its frames in the given memory."""

_processes: set[BaseProcess] = set()
"""The loading processes that this process has started and not ended."""


def load(make: Make, order: Iterable[Sequence[Position]], *, workers: int) -> Iterator[LoadedBatch]:
    """Start processes, and return the batches that they make, in the given order.

    Raises:
        ClipbertError: a loading process died, or the system has no more memory or files for them. The iterator raises
            it as well.
    """
    # Exit handlers run in the reverse order: this one before that of `multiprocessing`, which sends SIGTERM and waits.
    _register_end()
    started: list[_Process] = []
    jobs = iter(order)
    # The processes inherit the blocked signals. Otherwise a signal that arrives before they ignore it would end
    # them, and with them the run.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED_SIGNALS)
    # A DALI pipeline that is garbage in this process must not be collected in a loading process: its shutdown waits
    # there forever for threads that a fork does not copy. Collectors leave frozen objects alone.
    gc.freeze()
    try:
        with _explained():
            for _ in range(workers):
                started.append(_Process(make))
            due = deque(process for process in started * BATCHES_AHEAD if process.ask(jobs))
    except BaseException:
        _end(started)
        raise
    finally:
        gc.unfreeze()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return _batches(jobs, started, due)


def _batches(
    jobs: Iterator[Sequence[Position]], started: Sequence[_Process], due: deque[_Process]
) -> Iterator[LoadedBatch]:
    try:
        while due:
            process = due.popleft()
            with _explained():
                loaded = process.take()
                if process.ask(jobs):
                    due.append(process)
            yield loaded
    finally:
        _end(started)


class _Process:
    """A loading process, as the main process sees it."""

    def __init__(self, make: Make) -> None:
        self._connection, theirs = _FORK.Pipe()
        self.process = _FORK.Process(target=_serve, args=(theirs, make), daemon=True)
        self.process.start()
        theirs.close()
        _processes.add(self.process)

    def ask(self, jobs: Iterator[Sequence[Position]]) -> bool:
        """Ask for the next batch, and return whether there is one."""
        positions = next(jobs, None)
        if positions is not None:
            with self._deaths_noticed():
                self._connection.send(positions)
        return positions is not None

    def take(self) -> LoadedBatch:
        """Wait for the batch that was asked for first, and return it."""
        # A copy: the thread that loads for training waits here while the main thread starts those of a validation.
        wait([self._connection, *(process.sentinel for process in tuple(_processes))])
        _check()
        with self._deaths_noticed():
            made, shape = pickle.loads(self._connection.recv_bytes())
            file = recv_handle(self._connection) if shape else -1
        if isinstance(made, Exception):
            raise made
        loaded: LoadedBatch = made
        if not shape:
            return loaded
        try:
            return loaded.with_frames(channels_first(_mapped(file, shape)))
        finally:
            os.close(file)

    @contextmanager
    def _deaths_noticed(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, ConnectionError):
            # The system closes the connections of a killed process a moment before it reports the death.
            self.process.join(_SECONDS_TO_END)
            _check()
            raise


def _check() -> None:
    """Raise the error of a loading process that has died, whatever batches it makes."""
    for process in tuple(_processes):
        if (code := process.exitcode) is None:
            continue
        if code >= 0:
            raise ClipbertError(f"a loading process ended with exit code {code}", hint=_FEWER)
        name = signal.Signals(-code).name
        hint = f"SIGKILL often means that the machine ran out of memory: {_FEWER} or train.batch_size"
        raise ClipbertError(f"a loading process was ended by {name}", hint=hint if name == "SIGKILL" else _FEWER)


def _end(started: Iterable[_Process]) -> None:
    for each in started:
        # First, so that a thread that waits for other processes does not take this end for a death.
        _processes.discard(each.process)
        each.process.kill()
    for each in started:
        each.process.join(_SECONDS_TO_END)


@functools.cache
def _register_end() -> None:
    atexit.register(_end_all)


def _end_all() -> None:
    for process in _processes:
        process.kill()


@contextmanager
def _explained() -> Iterator[None]:
    """Turn an error of the system that has no more of something into one for a person."""
    try:
        yield
    except (OSError, RuntimeError) as exc:
        error = system_error(exc)
        # Python's message if the descriptor of a batch's memory did not arrive.
        if error is None and "ancdata" in str(exc):
            error = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        if error is None or error.errno not in _LIMITS:
            raise
        steps = filter(None, (remedy(error), _FEWER))
        raise ClipbertError(f"the system refuses loading processes: {reason(error)}", hint=", or ".join(steps)) from exc


def _mapped(file: int, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.frombuffer(mmap.mmap(file, math.prod(shape)), dtype=torch.uint8).view(shape)


# ------------------------------------------------------------------------------------------ in a loading process


def _serve(connection: Connection, make: Make) -> None:
    """Make batches as long as the main process lives."""
    torch.set_num_threads(1)
    for number in _IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    while True:
        positions = connection.recv()
        memory = _SharedMemory()
        made: LoadedBatch | Exception
        try:
            made = make(positions, memory.allocate)
        except Exception as exc:  # noqa: BLE001 - the main process raises it
            exc.add_note(f"in a loading process:\n{traceback.format_exc()}")
            made, memory.shape = exc, ()
        else:
            made = made.with_frames(torch.empty(0)) if memory.shape else made
        stream = io.BytesIO()
        _Pickler(stream).dump((made, memory.shape))
        connection.send_bytes(stream.getbuffer())
        if memory.shape:
            send_handle(connection, memory.file, os.getppid())
        memory.close()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    while parent is not None and os.getppid() == parent.pid:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os._exit(1)


class _Pickler(pickle.Pickler):
    """Pickles tensors as NumPy does: torch would make a file of each."""

    def reducer_override(self, value: Any) -> Any:
        return (torch.from_numpy, (value.numpy(),)) if isinstance(value, torch.Tensor) else NotImplemented


class _SharedMemory:
    """Memory for the frames of one batch.

    Attributes:
        shape: of the frames, (B, K, T, S, S, 3); () before they are made.
    """

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = ()
        self.file = -1

    def allocate(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Return a uint8 tensor of this shape."""
        if hasattr(os, "memfd_create"):
            self.file = os.memfd_create("frames")
        else:  # macOS
            with tempfile.TemporaryFile() as file:
                self.file = os.dup(file.fileno())
        os.ftruncate(self.file, math.prod(shape))
        self.shape = shape
        return _mapped(self.file, shape)

    def close(self) -> None:
        """Leave the memory to those who have mapped it."""
        if self.file >= 0:
            os.close(self.file)
