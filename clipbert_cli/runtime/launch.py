"""Start the same command in several processes of this machine, and report the first one that fails.

Every process has the environment variables that torchrun sets, so that both can start a run. Several machines need
torchrun (docs/training.md).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from clipbert_cli.cores import available_cores
from clipbert_cli.errors import ClipbertError, UnreadableError, UsageError, interruption_code
from clipbert_cli.files import temporary_folder
from clipbert_cli.foreign import read_json
from clipbert_cli.runtime.process_exit import KEPT_FILE, LAUNCHED, Failure, Kept, check_interrupted, end_watch
from clipbert_cli.runtime.stopping import STOP_SIGNALS, Patience, taken_signals

# Processes have this time between a signal and SIGKILL, also when one of them has failed.
_SECONDS_TO_END = 30
_SECONDS_BETWEEN_LOOKS = 0.1


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


def is_launched() -> bool:
    """Return whether a launcher, ours or torchrun, started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def launch(arguments: Sequence[str], per_node: str) -> None:
    """Run `clipbert ARGUMENTS` in several processes, and return when all have ended.

    Args:
        per_node: the number of processes, or `gpu` for one per GPU.

    Raises:
        ClipbertError: the first failure of a process, with its message and exit code, or the signal that stopped them.
    """
    count = int(per_node) if per_node != "gpu" else _gpus()
    with temporary_folder() as logs:
        ended = run_processes([sys.executable, "-m", "clipbert_cli", *arguments], count, logs)
        if ended != Ended():
            raise launch_error(ended, logs)


def _gpus() -> int:
    import torch

    if not torch.cuda.is_available():
        raise UsageError(
            "--nproc-per-node is gpu, but torch finds no GPU on this machine",
            hint="give the number of processes, for example --nproc-per-node 2",
        )
    return torch.cuda.device_count()


def run_processes(command: Sequence[str], count: int, logs: Path) -> Ended:
    """Run a command in several processes, which write their error files below `logs`, and return how they ended."""
    signals: list[signal.Signals] = []
    handlers = {
        number: signal.signal(number, lambda number, _: signals.append(signal.Signals(number)))
        for number in taken_signals()
    }
    end_watch()  # this function ends the processes by force
    # The processes inherit this until they have handlers of their own (`__main__.py`): Python would print a traceback
    # on a Ctrl-C before.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    started: list[subprocess.Popen[bytes]] = []
    try:
        check_interrupted()
        for variables in _variables(count, logs):
            started.append(subprocess.Popen(command, env={**os.environ, **variables}, start_new_session=True))
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return _wait_for(started, signals)
    finally:
        for process in started:
            process.kill()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _variables(count: int, logs: Path) -> list[dict[str, str]]:
    """Return the environment variables of each process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        LAUNCHED: str(os.getpid()),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        # Every process has an equal share of the cores.
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, available_cores() // count))),
    }
    of_ranks = []
    for rank in range(count):
        (logs / str(rank)).mkdir()
        file = logs / str(rank) / "error.json"
        of_ranks.append({**common, "RANK": str(rank), "LOCAL_RANK": str(rank), "TORCHELASTIC_ERROR_FILE": str(file)})
    return of_ranks


def _wait_for(started: Sequence[subprocess.Popen[bytes]], signals: Sequence[signal.Signals]) -> Ended:
    """Pass the signals that arrive to the processes, and end those that are left after the first failure."""
    patience = Patience(limit=_SECONDS_TO_END)
    passed = 0
    failed: tuple[int, int] | tuple[None, None] = None, None
    while True:
        codes = [process.poll() for process in started]
        if failed == (None, None) and (failures := [(code, rank) for rank, code in enumerate(codes) if code]):
            # A process that a signal killed has a negative code. Others have only lost it.
            failed = min(failures)
            if not signals:
                patience.is_silent = True
                patience.ask(signal.SIGTERM)
                for process in started:
                    process.terminate()
        if None not in codes:
            return Ended(signals[0] if signals else None, *failed)
        for number in signals[passed:]:
            passed += 1
            patience.ask(number)
            for process in started:
                process.send_signal(number)
        if patience.is_over():
            for process in started:
                process.kill()
        time.sleep(_SECONDS_BETWEEN_LOOKS)


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
    for file in logs.rglob(KEPT_FILE):
        with suppress(OSError, UnreadableError, TypeError):
            return Kept(**read_json(file))
    return Kept()


def _first_failure(logs: Path) -> Failure | None:
    failures = []
    for file in logs.rglob("error.json"):
        # One may be cut short by a full disk.
        with suppress(OSError, UnreadableError, KeyError, TypeError):
            failures.append(Failure(**read_json(file)["clipbert"]))
    return min(failures, key=lambda failure: (failure.is_consequence, failure.time), default=None)
