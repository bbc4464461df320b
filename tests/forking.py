"""Processes that are forked from one which has torch in memory already: importing it costs seconds of CPU each time.

    pytest ─ server: imports torch, then waits ─ a process for each order, a child of the one that ordered it

A forked process behaves like one that was started: it has its own standard streams, folder, environment, arguments and
`__main__`, the usual signal handlers, and the package itself is imported anew. Its parent is the process that ordered
it, which can wait for it. A launcher of several processes gets a server of its own, so that its processes are forked
from one in which nothing has run yet. Options that only a start can respect (`preexec_fn`, variables that are read
when Python or torch starts) lead to a start.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import inspect
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]
SERVER = "forking"
"""The name of a server among the processes; `running.children_of` leaves it out."""

# Other people's modules whose import takes long and reads nothing that a test changes.
HEAVY = (
    *("torch", "torch._dynamo", "torch.distributed.launcher.api", "torch.utils.data", "torch.utils.flop_counter"),
    *("av", "lmdb", "PIL.Image", "pydantic", "tokenizers", "yaml"),
)
# What is read when Python, a library or torch starts.
AT_START = ("ATEN_", "CUDA_", "LD_", "MALLOC_", "MKL_", "OMP_", "PYTHON")
# Words of commands that start further processes with torch.
LAUNCHERS = {"--nproc-per-node", "--nnodes", "doctor"}

_PR_SET_CHILD_SUBREAPER = 36
_START = inspect.signature(subprocess.Popen._execute_child)
_PIPES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
_handlers = "torch.distributed.elastic.multiprocessing.subprocess_handler.subprocess_handler"


def at_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(AT_START)}


def variables() -> dict[str, str]:
    """Return this process's environment for others that import the package from this checkout."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@dataclass(frozen=True)
class Order:
    """A process to fork: the words after `python`, its folder and environment, and what runs before everything."""

    words: Sequence[str]
    folder: str
    environment: Mapping[str, str]
    new_session: bool
    prelude: str

    @classmethod
    def of(cls, asked: Mapping[str, Any], prelude: str) -> Order | None:
        """Return the order for arguments of `subprocess.Popen`; None where a process must be started."""
        if not isinstance(asked["args"], list | tuple) or asked["executable"] not in (None, sys.executable):
            return None
        program, *words = map(os.fspath, asked["args"])
        environment = dict(os.environ if asked["env"] is None else asked["env"])
        is_usual = program == sys.executable and not (asked["preexec_fn"] or asked["pass_fds"] or asked["shell"])
        if not is_usual or at_start(environment) != at_start(variables()):
            return None
        return cls(words, os.fspath(asked["cwd"] or os.getcwd()), environment, asked["start_new_session"], prelude)

    @property
    def is_launcher(self) -> bool:
        return not LAUNCHERS.isdisjoint(self.words)

    def begin(self, streams: Sequence[int]) -> None:
        """Make this process one that was started for the order, and run the prelude."""
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        # Those of the server know whether its own files can seek, which these may not.
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
        if self.new_session:
            os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(self.folder)
        os.environ.clear()
        os.environ.update(self.environment)
        tempfile.tempdir = None  # where an import made temporary files, the environment was another
        exec(self.prelude, {})

    def carry_out(self) -> None:
        """Do what `python WORDS` does."""
        is_unbuffered, words = self.words[0] == "-u", list(self.words)
        if is_unbuffered:
            del words[0]
            sys.stdout.reconfigure(line_buffering=True)
        kind = words.pop(0) if words[0] in ("-c", "-m") else "a script"
        program, sys.argv = words[0], ["-c" if kind == "-c" else words[0], *words[1:]]
        sys.path[0] = {"-c": "", "-m": os.getcwd()}.get(kind, os.path.dirname(program))
        if kind == "-c":
            sys.modules["__main__"] = ModuleType("__main__")
            exec(program, sys.modules["__main__"].__dict__)
        elif kind == "-m":
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(program, run_name="__main__")


class ForkedPopen(subprocess.Popen):
    """`subprocess.Popen` for `python` commands, forked from a process that has torch in memory.

    Args:
        prelude: code to run in the new process before a `-c` command, and before a launcher's server exists.
    """

    def __init__(self, *arguments: Any, prelude: str = "", **options: Any) -> None:
        self._prelude = prelude
        super().__init__(*arguments, **options)

    def _execute_child(self, *arguments: Any) -> None:
        asked = _START.bind(self, *arguments).arguments
        if (order := Order.of(asked, self._prelude)) is None:
            command, *others = arguments
            if self._prelude:
                program, flag, code, *words = command
                command = [program, flag, f"{self._prelude}\n{code}", *words]
            super()._execute_child(command, *others)
            return
        streams = [asked[name] for name in ("p2cread", "c2pwrite", "errwrite")]
        self.pid = server().fork(order, [own if given == -1 else given for own, given in enumerate(streams)])
        self._child_created = True
        self._close_pipe_fds(*(asked[name] for name in _PIPES))


def run_python(*words: object, timeout: float = 600, **options: Any) -> subprocess.CompletedProcess[str]:
    """Fork `python WORDS`, and return how it ended."""
    command = [sys.executable, *map(str, words)]
    with ForkedPopen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options) as process:
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        finally:
            process.kill()
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


class Server:
    """The connection to a process that forks others."""

    def __init__(self, orders: socket.socket) -> None:
        self._orders = orders

    def fork(self, order: Order, streams: Sequence[int]) -> int:
        """Fork a process with these standard streams, and return its id."""
        # The new process is the child of a child that ends at once: it goes to the next process above that asks for
        # such orphans.
        _adopt(True)
        try:
            socket.send_fds(self._orders, [json.dumps(asdict(order)).encode()], list(streams))
            return int(self._orders.recv(100))
        finally:
            _adopt(False)


def _adopt(wanted: bool) -> None:
    """Let orphans among the descendants of this process become its children, or not."""
    assert ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0) == 0


@cache
def server() -> Server:
    """Start the server of this process, which ends with it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # OpenBLAS would start threads, which a fork leaves behind.
    environment = {**variables(), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(theirs.fileno())]
    process = subprocess.Popen(
        command, env=environment, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return Server(ours)


# ------------------------------------------------------------------------------------------------ in the server


def serve(orders: socket.socket) -> None:
    """Fork a process for each order, until there are no more. Return in these, each after its order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal; the processes that it forks get theirs
    name_process(SERVER)
    order, streams = _next_order(orders)
    orders.close()
    order.begin(streams)
    if order.is_launcher:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if not os.fork():
            ours.close()
            # Others wait for the end of the launcher's streams.
            nowhere = os.open(os.devnull, os.O_RDWR)
            for number in range(3):
                os.dup2(nowhere, number)
            os.close(nowhere)
            serve(theirs)
            return
        theirs.close()
        own = Server(ours)
        globals()["server"] = lambda: own
        importlib.import_module(_handlers).Popen = subprocess.Popen = ForkedPopen
    order.carry_out()


def name_process(name: str) -> None:
    Path("/proc/self/comm").write_text(name)


def _next_order(orders: socket.socket) -> tuple[Order, list[int]]:
    """Wait for orders, and return in the process that is forked for one. This process ends after the last."""
    while True:
        message, streams, *_ = socket.recv_fds(orders, 2**20, 3)
        if not message:
            os._exit(0)
        if not (between := os.fork()):
            # Its child loses its parent and gets another one, which `Server.fork` has chosen.
            between = os.getpid()
            if os.fork():
                os._exit(0)
            while os.getppid() == between:  # it has not ended yet
                time.sleep(0.001)
            name_process("python")
            orders.send(str(os.getpid()).encode())
            return Order(**json.loads(message)), streams
        os.waitpid(between, 0)
        for stream in streams:
            os.close(stream)


if __name__ == "__main__":
    path = sys.path[:]
    for name in HEAVY:
        importlib.import_module(name)
    sys.path[:] = path  # earlier versions of torch append a temporary folder
    assert os.listdir("/proc/self/task") == [str(os.getpid())], "a fork has only one of these threads"
    gc.collect()
    gc.freeze()  # so that no collection writes to the memory that all share
    serve(socket.socket(fileno=int(sys.argv[1])))
