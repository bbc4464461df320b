"""The end of a process that is one of several."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable


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
