"""The end of a process. One of several reports its failure to the launcher, which prints the first one, once.

The report is torchrun's own error file (`TORCHELASTIC_ERROR_FILE`), so that a plain `torchrun` shows the message too.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from clipbert_cli.errors import ClipbertError, UnreadableError, interruption_code
from clipbert_cli.files import write_json
from clipbert_cli.foreign import read_json
from clipbert_cli.runtime.stopping import STOP_SIGNALS, Patience, children, descendants, kill
from clipbert_cli.system_errors import OUT_OF_FILES

# Environment variable in which our own launcher gives its process id; it prints the messages of its processes.
LAUNCHED = "CLIPBERT_LAUNCHED"

# The file, beside a process's error file, in which it states what is kept.
_KEPT_FILE = "kept.json"

_SECONDS_BETWEEN_LOOKS = 0.5


@dataclass(frozen=True, slots=True)
class Failure:
    """The failure of one process.

    `trace` is the traceback of an unexpected error, None for a known one. `is_consequence` says that it failed because
    another process did.
    """

    message: str
    hint: str | None
    code: int
    rank: int
    time: float
    trace: str | None = None
    is_consequence: bool = False


class ConsequenceError(ClipbertError):
    """The failure of a process because of another one, which reports it."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The way in which launched processes ended; all fields are None if every process succeeded.

    `signal` is the one that asked the launcher to stop. `exit_code` is that of the first process that failed, negative
    where a signal killed it, and `rank` is its rank. A process that a signal killed goes before the others.
    """

    signal: signal.Signals | None = None
    exit_code: int | None = None
    rank: int | None = None


class LaunchError(ClipbertError):
    """The failure of a launched process, with that process's exit code."""

    def __init__(self, message: str | Sequence[str], *, hint: str | None = None, code: int) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = code


def is_one_of_several() -> bool:
    """Return whether a launcher, ours or torchrun, started this process."""
    return "TORCHELASTIC_ERROR_FILE" in os.environ


def report(message: str, *, hint: str | None, code: int, unforeseen: bool = False) -> bool:
    """Report to the launcher why this process ends, and return whether that launcher is ours and prints the message.

    Args:
        unforeseen: include the traceback of the current exception.
    """
    launcher = os.environ.get(LAUNCHED)
    # Our launcher was interrupted as well, and says it with what is kept, which not every process knows.
    if isinstance(sys.exc_info()[1], KeyboardInterrupt) and launcher == str(os.getppid()):
        return True
    file, rank = os.environ.get("TORCHELASTIC_ERROR_FILE"), os.environ.get("RANK", "0")
    if not file or not rank.isdecimal():  # a launcher never writes a rank that is not a number
        return False
    trace = traceback.format_exc() if unforeseen else None
    failure = Failure(message, hint, code, int(rank), time.time(), trace, _is_consequence(sys.exc_info()[1]))
    # The format of torch's `record_exception`, with our own fields in an entry beside it.
    extra = {"py_callstack": trace or message, "timestamp": str(int(failure.time))}
    content = {"message": {"message": message, "extraInfo": extra}, "clipbert": asdict(failure)}
    try:
        try:
            write_json(Path(file), content)
        except OSError as exc:
            if exc.errno not in OUT_OF_FILES:
                return False
            os.close(0)  # this process ends and reads no more input
            write_json(Path(file), content)
    except OSError:
        return False
    # A launcher that is gone prints nothing any more: one process does it.
    return launcher is not None and (launcher == str(os.getppid()) or failure.rank != 0)


@dataclass(frozen=True, slots=True)
class Kept:
    """What is left of the work when the process ends without saving, and what to do next."""

    message: str = ""
    hint: str | None = None

    def interrupted(self, by: str) -> tuple[str, str | None]:
        """Return message and hint of an interruption after which nothing was saved."""
        return f"interrupted{by}{self.message and f'; {self.message}'}", self.hint


_kept = Kept()


def state_kept(message: str, hint: str | None) -> None:
    """State what is left should this process end without saving: for its last message, and for its launcher's."""
    global _kept
    _kept = Kept(message, hint)
    if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        with suppress(OSError):
            write_json(Path(file).with_name(_KEPT_FILE), asdict(_kept))


def kept() -> Kept:
    return _kept


def _is_consequence(exc: BaseException | None) -> bool:
    """Return whether this process fails because another one did, or lost its connection to it."""
    if isinstance(exc, ConsequenceError):
        return True
    # gloo has no type of its own, and torch may not be imported here.
    return any(kind.__name__ == "DistError" for kind in type(exc).__mro__) or "gloo" in str(exc)


def launch_error(ended: Ended, logs: Path) -> LaunchError:
    """Return the error to show for processes that failed, whose error files are below `logs`.

    The earliest report counts that is not about another process. A process that was killed reports nothing: its exit
    code has to do, and the others report that they have lost it. The traceback of an unexpected error is printed.
    """
    first = _first_failure(logs)
    was_killed = (ended.exit_code or 0) < 0
    # The launcher ends the others with SIGTERM, which they may notice before they miss the one that was killed.
    is_of_another = first and (first.is_consequence or (was_killed and first.code == 128 + signal.SIGTERM))
    if first and not (is_of_another and (was_killed or ended.signal)):
        if first.trace:
            sys.stderr.write(first.trace)
            return LaunchError(f"process {first.rank} failed: {first.message}".split("\n"), code=first.code)
        return LaunchError(first.message.split("\n"), hint=first.hint, code=first.code)
    if ended.signal is not None:
        message, hint = _stated_kept(logs).interrupted(f" by {ended.signal.name}")
        return LaunchError(message, hint=hint, code=interruption_code(ended.signal))
    code = ended.exit_code or 1
    if code > 0:
        return LaunchError(f"process {ended.rank} ended with exit code {code} and no message", code=code)
    name = signal.Signals(-code).name
    hint = "SIGKILL often means that the machine ran out of memory: lower data.workers or train.batch_size"
    return LaunchError(f"process {ended.rank} was ended by {name}", hint=hint if name == "SIGKILL" else None, code=1)


def _stated_kept(logs: Path) -> Kept:
    for file in logs.rglob(_KEPT_FILE):
        with suppress(OSError, UnreadableError, TypeError):
            return Kept(**read_json(file))
    return Kept()


def _first_failure(logs: Path) -> Failure | None:
    failures = []
    for file in logs.rglob("error.json"):
        try:
            failures.append(Failure(**read_json(file)["clipbert"]))
        # torchrun's own report, or one cut short by a full disk
        except (OSError, UnreadableError, KeyError, TypeError):
            continue
    return min(failures, key=lambda failure: (failure.is_consequence, failure.time), default=None)


def run_and_exit(work: Callable[[], object]) -> NoReturn:
    """Run `work` and end this process, as `multiprocessing` ends its own: exit handlers, flush, `os._exit`.

    Threads and static objects of C++ libraries do not outlive an interpreter that shuts down around them. gloo's
    threads need Python's lock when they release a tensor: Python ends them inside C++ code that must not be left, and
    the process aborts after all its work is done. DALI destroys NVDEC's decoders after CUDA has ended, which may abort
    as well. Threads that are not daemons are not joined.
    """
    if threading.current_thread() is threading.main_thread():
        # A shell starts background jobs with Ctrl-C ignored, and that stays so.
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, _interrupt)
        sys.unraisablehook = _raise_again
        if LAUNCHED not in os.environ:  # our launcher ends its processes by force
            _watch_signals()
    if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun's launcher, or ours, has started this process
        threading.Thread(target=_end_with_launcher, name="launcher", daemon=True).start()
    code = 1
    try:
        code = _exit_code(work)
        atexit._run_exitfuncs()
        if ctypes := sys.modules.get("ctypes"):  # C libraries were loaded; `os._exit` would drop their buffers
            ctypes.CDLL(None).fflush(None)
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not stream.closed:
                stream.flush()
    except OSError as exc:
        code = 120  # Python's own exit code for output that could not be written
        print(f"the rest of the output cannot be written: {exc}", file=sys.stderr, flush=True)
    finally:
        os._exit(code & 0xFF)


def ignore_interrupts() -> None:
    """Ignore Ctrl-C from now on: the command has said how it ends, and a traceback of its end helps nobody.

    This changes nothing where `run_and_exit` does not run the command.
    """
    global _has_ended
    _has_ended = True
    if signal.getsignal(signal.SIGINT) is _interrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


_has_ended = False
"""True when the command has said how it ends."""

_was_interrupted = False


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """Do as Python does on Ctrl-C, as a handler that `ignore_interrupts` recognises."""
    global _was_interrupted
    _was_interrupted = True
    raise KeyboardInterrupt


def check_interrupted() -> None:
    """Raise KeyboardInterrupt if Ctrl-C came before, and the code that ran then has lost the exception.

    Libraries that are being imported do so, in functions that C calls.
    """
    if _was_interrupted:
        raise KeyboardInterrupt


def _raise_again(lost: Any) -> None:
    """Raise a KeyboardInterrupt again that came where Python only prints exceptions, in `__del__` for example."""
    if isinstance(lost.exc_value, KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    else:
        sys.__unraisablehook__(lost)


def _watch_signals() -> None:
    """Let a thread end this process by force if it was asked to stop and does not.

    The main thread can wait in C code, where it answers no signal. The system's handler writes the number of each that
    Python takes into this pipe at once.
    """
    numbers, theirs = os.pipe()
    for end in (numbers, theirs):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
    threading.Thread(target=_end_by_force, args=(numbers,), name="signals", daemon=True).start()


def end_watch() -> None:
    """End the thread that ends this process by force."""
    if (theirs := signal.set_wakeup_fd(-1)) >= 0:
        os.close(theirs)


def _end_by_force(numbers: int) -> None:
    patience = Patience(is_silent=os.environ.get("RANK", "0") != "0")
    wakes = select.poll()
    wakes.register(numbers, select.POLLIN)
    while True:
        # Until the first signal there is nothing to look after.
        if wakes.poll(None if patience.asked is None else 1000 * _SECONDS_BETWEEN_LOOKS):
            if not (written := os.read(numbers, 1000)):  # by `end_watch`
                os.close(numbers)
                return
            for number in written:
                if number in STOP_SIGNALS:
                    patience.ask(signal.Signals(number))
        if _has_ended:
            patience.is_silent = True
        if patience.asked is not None and patience.is_over(descendants(children())):
            kill(children())
            if not _has_ended:
                message, hint = _kept.interrupted(f" by {patience.asked.name}")
                # Not through Python's streams: the main thread may hold their locks.
                with suppress(OSError):
                    os.write(2, "".join([f"error: {message}\n", f"next: {hint}\n" if hint else ""]).encode())
            os._exit(interruption_code(patience.asked))


def _end_with_launcher() -> None:
    """Send this process SIGTERM, after which a training saves and ends, when its launcher is gone."""
    stated = os.environ.get(LAUNCHED, "")
    launcher = int(stated) if stated.isdecimal() else os.getppid()
    while os.getppid() == launcher:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os.kill(os.getpid(), signal.SIGTERM)


def _exit_code(work: Callable[[], object]) -> int:
    """Run `work`, print its error as Python would, and return the exit code that Python would end with."""
    try:
        try:
            work()
        finally:
            ignore_interrupts()
    except SystemExit as exc:
        if exc.code is None or isinstance(exc.code, int):
            return exc.code or 0
        print(exc.code, file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    except BaseException:  # noqa: BLE001 - the hook prints it
        sys.excepthook(*sys.exc_info())
    else:
        return 0
    return 1
