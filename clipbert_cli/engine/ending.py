"""The end of a process that is one of several."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable


def run_to_end(work: Callable[[], object]) -> None:
    """Do `work`; as one of several processes, end this one with it: what comes behind a call is for a process alone.

    The threads that carry tensors between processes let go of them in their own time, and need Python's lock for it.
    Where they ask for it while the interpreter takes itself down, Python ends them in a place where C++ may not be
    left, and the process aborts (SIGABRT) after all its work is done; they cannot be waited for either, since others
    may have failed. So this ends as `multiprocessing` ends its processes: exit handlers, what is still to be written,
    and out, with the interpreter as it is. Threads that are no daemons are not waited for.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        work()
        return
    code = 0
    try:
        work()
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    except BaseException:  # noqa: BLE001 - said as Python says it
        sys.excepthook(*sys.exc_info())
        code = 1
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # a pipe that no one reads any more
            code = code or 120  # as Python itself says it
    os._exit(code)
