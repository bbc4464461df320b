"""Several processes from one command: torchrun's launcher, in this process, with one voice."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clipbert_cli.errors import ClipbertError, UsageError
from clipbert_cli.runtime.distributed import Ended, launch_processes
from clipbert_cli.runtime.process_exit import LAUNCHED, Failure, first_failure


@dataclass(frozen=True, slots=True)
class Processes:
    """Which processes to start, in torchrun's words.

    Args:
        per_node: a number, or `gpu` for one a GPU.
        nodes: machines that take part; the same command is given on each.
        endpoint: `host:port` of one of them, where they meet; needed for several.
        meeting: what this job is called there, the same on each.
    """

    per_node: str = "1"
    nodes: int = 1
    endpoint: str | None = None
    meeting: str | None = None

    def options(self) -> list[str]:
        """torchrun's options.

        Raises:
            UsageError: options that do not go together, or a number that is none.
        """
        if self.per_node != "gpu" and not (self.per_node.isdigit() and int(self.per_node)):
            raise UsageError(f"--nproc-per-node is {self.per_node}: it must be a number from 1, or gpu")
        if self.nodes > 1 and not self.endpoint:
            raise UsageError(
                f"--nnodes is {self.nodes}: the machines need a place to meet",
                hint="give --rdzv-endpoint host:port and --rdzv-id, the same on every machine",
            )
        endpoint = self.endpoint or "localhost:0"  # any free port
        meeting = self.meeting or ("clipbert" if self.endpoint else str(uuid.uuid4()))
        return [
            *("--nproc-per-node", self.per_node, "--nnodes", str(self.nodes)),
            *("--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint, "--rdzv-id", meeting),
        ]


def is_launched() -> bool:
    """Whether a launcher, ours or torchrun, started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def launch(arguments: Sequence[str], processes: Processes) -> None:
    """Run `clipbert ARGUMENTS` in several processes, to their end.

    Raises:
        ClipbertError: the first failure of a process, with its own message and exit code; or what stopped them.
    """
    options = processes.options()
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # the launcher's own view of every failure
    share_cores(processes)
    with tempfile.TemporaryDirectory(prefix="clipbert-") as folder:
        os.environ[LAUNCHED] = "1"
        try:
            ended = launch_processes("clipbert_cli", arguments, [*options, "--log-dir", folder])
        finally:
            del os.environ[LAUNCHED]
        if ended != Ended():
            raise _explained(ended, first_failure(Path(folder)))


def share_cores(processes: Processes) -> None:
    """Give every process its share of the cores, where the person has not said (torchrun gives one to each)."""
    if "OMP_NUM_THREADS" not in os.environ and processes.per_node.isdigit():
        cores = len(os.sched_getaffinity(0))
        os.environ["OMP_NUM_THREADS"] = str(max(1, cores // int(processes.per_node)))


class LaunchError(ClipbertError):
    """What a process failed with; the exit code is its own."""

    def __init__(self, message: str, *, hint: str | None = None, code: int) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = code


def _explained(ended: Ended, first: Failure | None) -> ClipbertError:
    if first and first.trace:
        sys.stderr.write(first.trace)
        return LaunchError(f"process {first.rank} failed: {first.message}", code=first.code)
    if first:
        return LaunchError(first.message, hint=first.hint, code=first.code)
    if ended.signal is not None:
        return LaunchError(f"interrupted by {ended.signal.name}", code=130 if ended.signal is signal.SIGINT else 143)
    code = ended.exit_code or 1
    if code < 0:
        name = signal.Signals(-code).name
        return LaunchError(
            f"process {ended.rank} was ended by {name}",
            hint="SIGKILL often means that the machine's memory was full: lower data.workers or train.batch_size"
            if name == "SIGKILL"
            else None,
            code=1,
        )
    return LaunchError(f"process {ended.rank} ended with exit code {code} and said nothing", code=code)
