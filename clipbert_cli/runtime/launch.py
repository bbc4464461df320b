"""Start the same command in several processes, with torchrun's launcher in this process."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace

from clipbert_cli.cores import available_cores
from clipbert_cli.errors import UsageError
from clipbert_cli.files import temporary_folder
from clipbert_cli.foreign import excerpt
from clipbert_cli.runtime.distributed import launch_processes
from clipbert_cli.runtime.process_exit import LAUNCHED, Ended, launch_error


@dataclass(frozen=True, slots=True)
class Processes:
    """The processes to start, named as torchrun names them.

    Args:
        per_node: processes on each machine: a number, or `gpu` for one per GPU.
        nodes: number of machines; the same command is given on each.
        endpoint: `host:port` on one of the machines, needed for several.
        job_id: any name, the same on every machine.
    """

    per_node: str = "1"
    nodes: int = 1
    endpoint: str | None = None
    job_id: str | None = None

    def counted(self) -> Processes:
        """Return the same with the number of GPUs in place of `gpu`, which torchrun would give one core for each.

        Raises:
            UsageError: there is no GPU.
        """
        if self.per_node != "gpu":
            return self
        import torch

        if not torch.cuda.is_available():
            raise UsageError(
                "--nproc-per-node is gpu, but torch finds no GPU on this machine",
                hint="give the number of processes, for example --nproc-per-node 2",
            )
        return replace(self, per_node=str(torch.cuda.device_count()))

    def options(self) -> list[str]:
        """Return torchrun's options.

        Raises:
            UsageError: an option is missing, or an address is none.
        """
        if self.nodes > 1 and not self.endpoint:
            raise UsageError(
                f"--nnodes is {self.nodes}, but --rdzv-endpoint is missing: the machines must meet somewhere",
                hint="give --rdzv-endpoint host:port and --rdzv-id, the same on every machine",
            )
        endpoint = self.endpoint or "localhost:0"  # port 0: any free port
        if not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|\w[\w.-]*)(:[0-9]{1,5})?", endpoint):
            raise UsageError(
                f"--rdzv-endpoint is {excerpt(endpoint)}, but must be HOST:PORT",
                hint="name one of the machines, for example --rdzv-endpoint node1:29400",
            )
        # Without an endpoint this job is alone, and a random id keeps it apart from others on this machine.
        job_id = self.job_id or ("clipbert" if self.endpoint else str(uuid.uuid4()))
        return [
            *("--nproc-per-node", self.per_node, "--nnodes", str(self.nodes)),
            *("--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint, "--rdzv-id", job_id),
        ]


def is_launched() -> bool:
    """Return whether a launcher, ours or torchrun, started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def launch(arguments: Sequence[str], processes: Processes) -> None:
    """Run `clipbert ARGUMENTS` in several processes, and return when all have ended.

    Raises:
        ClipbertError: the first failure of a process, with its message and exit code, or the signal that stopped them.
    """
    processes = processes.counted()
    options = processes.options()
    share_cores(processes)
    with temporary_folder() as logs:
        os.environ[LAUNCHED] = str(os.getpid())
        try:
            # The processes' own output goes to this terminal; the folder receives their error files.
            ended = launch_processes("clipbert_cli", arguments, [*options, "--log-dir", str(logs)])
        finally:
            del os.environ[LAUNCHED]
        if ended != Ended():
            raise launch_error(ended, logs)


def share_cores(processes: Processes) -> None:
    """Give every process an equal share of the cores, unless OMP_NUM_THREADS is set. torchrun alone would give one."""
    if "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(max(1, available_cores() // int(processes.per_node)))
