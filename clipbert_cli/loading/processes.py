"""Loading processes: started, watched and ended.

torch alone raises an error in whatever line runs when a process dies, waits forever for a batch that could not be sent,
and waits at exit for processes that ignore SIGTERM. Here each of these is one error where the next batch is taken:

    a process dies                       the main process notices when it takes the next batch, or while it waits
    a batch cannot be made or sent       the error is sent in its place (`Sender`)
    the main process ends                the processes that are left are killed first
"""

from __future__ import annotations

import atexit
import errno
import functools
import gc
import multiprocessing
import os
import pickle
import resource
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from multiprocessing.util import Finalize, get_temp_dir
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from clipbert_cli.errors import ClipbertError
from clipbert_cli.files import is_locked, lock
from clipbert_cli.loading.dataset import LoadedBatch
from clipbert_cli.system_errors import OUT_OF_FILES, OUT_OF_SPACE, reason, remedy, system_error

# Launchers send these signals to whole process groups. The main process handles them (it saves a checkpoint), and needs
# its loading processes for that.
SIGNALS_IGNORED_BY_WORKERS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)

FEWER = "lower data.workers (0 loads in the main process)"

_HINTS = {
    signal.SIGKILL: f"SIGKILL often means that the machine ran out of memory: {FEWER} or train.batch_size",
    signal.SIGBUS: f"SIGBUS often means that /dev/shm is full: enlarge it (docker: --shm-size 8g), or {FEWER}",
}

# Descriptors that a loading process needs to pass a batch's memory to the main process. The thread that does this would
# try forever without them.
_DESCRIPTORS_TO_SEND = 4

_LOCK = ".clipbert"

_SECONDS_BETWEEN_LOOKS = 0.5
_SECONDS_TO_REPORT = 2.0

_processes: set[BaseProcess] = set()
"""The loading processes that this process has started and that have not ended well."""

_closed: list[Iterator[Any] | BaseException] = []
"""Iterators of killed processes, and errors that hold one which was not made to its end. They live as long as this
process: torch closes an iterator with locks that a killed process may have held, and would wait forever."""


# ------------------------------------------------------------------------------------------ from a loading process


@dataclass(frozen=True, slots=True)
class Parcel:
    """A batch on its way from a loading process, or the error in its place."""

    content: bytes | ClipbertError

    def open(self) -> LoadedBatch:
        """Return the batch.

        Raises:
            ClipbertError: it could not be made or sent, or this process cannot receive it.
        """
        if isinstance(self.content, ClipbertError):
            raise self.content
        try:
            batch: LoadedBatch = pickle.loads(self.content)
        except (OSError, RuntimeError) as exc:
            if error := _explained(exc):
                raise error from exc
            raise
        return batch

    def pin_memory(self) -> LoadedBatch | Parcel:
        """Return the batch in page-locked memory. The DataLoader of torch calls this hook, in a thread."""
        try:
            return self.open().pin_memory()
        except ClipbertError as exc:
            return Parcel(exc)


class Sender:
    """Makes batches in a loading process.

    A batch is pickled here and not by the thread of the queue, which would print an error and send nothing.
    """

    def __init__(self, collate: Callable[[Sequence[Any]], LoadedBatch]) -> None:
        self.collate = collate

    def __call__(self, items: Sequence[Any]) -> Parcel:
        try:
            content = bytes(ForkingPickler.dumps(self.collate(items)))
            for descriptor in [os.dup(0) for _ in range(_DESCRIPTORS_TO_SEND)]:
                os.close(descriptor)
        except (OSError, RuntimeError) as exc:
            if (error := _explained(exc)) is None:
                raise
            return Parcel(error)
        return Parcel(content)


def _explained(exc: BaseException) -> ClipbertError | None:
    """Return the error for a person where the system has no more of something, else None."""
    error = system_error(exc)
    # torch 2.11 writes "Success (0)" for the system's reason.
    is_full = error.errno in OUT_OF_SPACE if error else "unable to allocate shared memory(shm)" in str(exc)
    if is_full:
        return ClipbertError(
            "/dev/shm is full, which loading processes need to pass batches to the main process",
            hint=f"enlarge it (docker: --shm-size 8g; else: mount -o remount,size=8g /dev/shm), or {FEWER}",
        )
    if error and error.errno == errno.EFBIG:
        return ClipbertError(
            f"loading processes cannot pass batches: {reason(error)}", hint=f"{remedy(error)}, or {FEWER}"
        )
    # Python's message if the descriptor of a batch's memory did not arrive.
    if (error and error.errno in OUT_OF_FILES) or "ancdata" in str(exc):
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return ClipbertError(
            f"loading needs more open files than the limit of {limit} per process",
            hint=f"raise the limit in this shell (ulimit -n 4096), or {FEWER}",
        )
    if error and error.errno in (errno.EAGAIN, errno.ENOMEM):
        return ClipbertError(
            f"the system refuses loading processes: {error.strerror}", hint=f"{FEWER}, or raise ulimit -u"
        )
    return None


# ------------------------------------------------------------------------------------------ in the main process


class LoadingProcesses(Iterator[LoadedBatch]):
    """Starts the processes of a DataLoader, and iterates over the batches that they make.

    Raises:
        ClipbertError: a loading process died, or the system has no more memory or files for them.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._batches = _start(loader)

    def __next__(self) -> LoadedBatch:
        try:
            with _woken_by_a_death():
                _check()
                try:
                    received = next(self._batches)
                except (OSError, RuntimeError, _Death) as exc:
                    _check()
                    if error := _explained(exc):
                        raise error from exc
                    raise
            # Not in the block above: a death must not interrupt torch while it holds locks.
            return _opened(received)
        except (ClipbertError, KeyboardInterrupt):
            # Raised here, the processes are at any point of their work.
            _closed.append(self._batches)
            end_loading_processes()
            raise


def _opened(received: Any) -> LoadedBatch:
    """Return the batch that a parcel holds; without loading processes there are no parcels."""
    if not isinstance(received, Parcel):
        batch: LoadedBatch = received
        return batch
    try:
        return received.open()
    except (ConnectionError, EOFError) as exc:
        # The system closes the connections of a killed process a moment before it reports the death.
        until = time.monotonic() + _SECONDS_TO_REPORT
        while time.monotonic() < until:
            _check()
            time.sleep(0.05)
        if error := _explained(exc):
            raise error from exc
        raise


def end_loading_processes() -> None:
    """Kill the loading processes of this process. They only read, so nothing is lost."""
    for process in _processes:
        process.kill()
    for process in _processes:
        process.join()
    _processes.clear()


def _start(loader: DataLoader[Any]) -> Iterator[Any]:
    _end_at_exit()
    before = set(multiprocessing.active_children())
    # torch's own handler raises an error in whatever line runs when a process dies.
    handler = signal.getsignal(signal.SIGCHLD)
    # The processes inherit the blocked signals. Otherwise a signal that arrives before they ignore it would end
    # them, and with them the run.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS_IGNORED_BY_WORKERS)
    # A DALI pipeline that is garbage in this process must not be collected in a loading process: its shutdown waits
    # there forever for threads that a fork does not copy. Collectors leave frozen objects alone.
    gc.freeze()
    try:
        if loader.num_workers:
            _share_temporary_folder()
        return iter(loader)
    except BaseException as exc:  # Ctrl-C, too
        _closed.append(exc)
        if error := (_explained(exc) if isinstance(exc, OSError) else None):
            raise error from exc
        raise
    finally:
        gc.unfreeze()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL if handler is None else handler)
        _processes.update(set(multiprocessing.active_children()) - before)


@functools.cache
def _share_temporary_folder() -> None:
    """Make the folder for the sockets of loading processes, and remove those that killed commands have left.

    The processes inherit this folder, which is removed when this process ends. Each would make one of its own
    otherwise. A lock in it shows that somebody uses it: the name cannot, because a socket's path has 108 bytes at most.
    """
    folder = Path(get_temp_dir())
    stack = ExitStack()
    stack.enter_context(lock(folder / _LOCK))
    atexit.register(stack.close)
    for other in folder.parent.glob(f"pymp-*/{_LOCK}"):
        if other.parent != folder and not is_locked(other):
            shutil.rmtree(other.parent, ignore_errors=True)


def prepare_worker(_worker: int) -> None:
    """Let a loading process ignore the signals for the main process, crash without a word, and end with its parent."""
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    Finalize(None, _remove_folder_of_killed_parent, exitpriority=0)
    for number in SIGNALS_IGNORED_BY_WORKERS:
        signal.signal(number, signal.SIG_IGN)
    sys.excepthook = _end_without_descriptors
    # torch prints a line about these; the main process has a message of its own.
    for number in (signal.SIGBUS, signal.SIGSEGV, signal.SIGFPE):
        signal.signal(number, signal.SIG_DFL)


def _end_without_descriptors(_kind: object, error: BaseException, _trace: object) -> None:
    """End a loading process whose thread that passes descriptors has none left: it would try forever.

    `multiprocessing` calls the hook for uncaught exceptions there. The main process reports the end once.
    """
    if isinstance(error, OSError) and error.errno in OUT_OF_FILES:
        os._exit(errno.EMFILE)


class _Death(BaseException):
    """The death of a loading process while torch waits for a batch, whose `except Exception` must not catch it."""


def _end_with_parent() -> None:
    # torch looks every 5 seconds while no batch is made, and after each batch.
    while not _is_orphan():
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    _remove_folder_of_killed_parent()
    os._exit(1)


def _is_orphan() -> bool:
    parent = multiprocessing.parent_process()
    return parent is None or os.getppid() != parent.pid


def _remove_folder_of_killed_parent() -> None:
    if _is_orphan():
        shutil.rmtree(get_temp_dir(), ignore_errors=True)


def _check(error: Callable[[int], BaseException] | None = None) -> None:
    """Raise ClipbertError, or another error for the exit code, if a loading process has died."""
    for process in list(_processes):
        if process.exitcode == 0:
            _processes.discard(process)
        elif process.exitcode is not None:
            raise (error or _death)(process.exitcode)


def _death(code: int) -> ClipbertError:
    if code == errno.EMFILE and (error := _explained(OSError(code, os.strerror(code)))):
        return error
    if code > 0:
        return ClipbertError(f"a loading process ended with exit code {code}", hint=FEWER)
    number = signal.Signals(-code)
    return ClipbertError(f"a loading process was ended by {number.name}", hint=_HINTS.get(number, FEWER))


@contextmanager
def _woken_by_a_death() -> Iterator[None]:
    """Raise the error of a loading process that dies during this block, which waits for a batch."""
    # Python handles signals in the main thread only. Another thread notices within torch's 5 seconds.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGCHLD, lambda *_: _check(_Death))
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if before is None else before)


@functools.cache
def _end_at_exit() -> None:
    # Exit handlers run in the reverse order: this one before that of `multiprocessing`, which sends SIGTERM and waits.
    atexit.register(end_loading_processes)
