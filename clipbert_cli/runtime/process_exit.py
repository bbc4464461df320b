"""A process's failure, told to the launcher that started it: the launcher says it to the person, once.

The file is torchrun's own error file (`TORCHELASTIC_ERROR_FILE`), so that a plain `torchrun` shows the message as well.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from clipbert_cli.files import write_json

LAUNCHED = "CLIPBERT_LAUNCHED"
"""Set by our own launcher: it speaks for the processes it started."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong in one process; `trace` is the traceback of an error that no one foresaw."""

    message: str
    hint: str | None
    code: int
    rank: int
    time: float
    trace: str | None = None


def report(message: str, *, hint: str | None, code: int, unforeseen: bool = False) -> bool:
    """Tell the launcher why this process ends; whether it is ours, so that nothing more is to be said here."""
    file, rank = os.environ.get("TORCHELASTIC_ERROR_FILE"), os.environ.get("RANK", "0")
    if not file or not rank.isdecimal():  # no launcher writes such a rank
        return False
    trace = traceback.format_exc() if unforeseen else None
    failure = Failure(message, hint, code, int(rank), time.time(), trace)
    extra = {"py_callstack": trace or message, "timestamp": str(int(failure.time))}
    content = {"message": {"message": message, "extraInfo": extra}, "clipbert": asdict(failure)}
    try:
        write_json(Path(file), content)
    except OSError:
        return False
    return LAUNCHED in os.environ


def first_failure(folder: Path) -> Failure | None:
    """The earliest failure that processes reported in the error files below `folder`."""
    failures = []
    for file in folder.rglob("error.json"):
        try:
            failures.append(Failure(**json.loads(file.read_text(encoding="utf-8"))["clipbert"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return min(failures, key=lambda failure: failure.time, default=None)


def run_and_exit(work: Callable[[], object]) -> None:
    """Do `work`, and as one of several processes end this one; a process alone comes back to end as Python does it.

    The threads that carry tensors between processes let go of them in their own time, and need Python's lock for it.
    Where they ask for it while the interpreter takes itself down, Python ends them in a place where C++ may not be
    left, and the process aborts (SIGABRT) after all its work is done; they cannot be waited for either, since others
    may have failed. So this ends as `multiprocessing` ends its processes: exit handlers, what is still to be written,
    and out, with the interpreter as it is. Threads that are no daemons are not waited for.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        work()
        return
    import ctypes  # 4 ms that a process alone need not spend

    code = 1
    try:
        code = _exit_code(work)
        atexit._run_exitfuncs()
        ctypes.CDLL(None).fflush(None)  # what C libraries have still to write
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not stream.closed:
                stream.flush()
    except OSError as exc:
        code = 120  # Python's own for output that could not be written
        print(f"what is left of the output cannot be written: {exc}", file=sys.stderr, flush=True)
    finally:
        os._exit(code & 0xFF)


def _exit_code(work: Callable[[], object]) -> int:
    """What Python would end with after `work`, having said what it would say."""
    try:
        work()
    except SystemExit as exc:
        if exc.code is None or isinstance(exc.code, int):
            return exc.code or 0
        print(exc.code, file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    except BaseException:  # noqa: BLE001 - said by the hook
        sys.excepthook(*sys.exc_info())
    else:
        return 0
    return 1
