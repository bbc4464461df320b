"""The world a process runs in. The only file that may import torch.distributed; one process is world size 1."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from clipbert_cli.errors import UsageError


@dataclass(frozen=True, slots=True)
class World:
    """This process's place: its rank among `size` processes, and its device."""

    rank: int
    size: int
    device: torch.device


def start_world(device: str | None = None) -> World:
    """The world of this process: the first CUDA device where there is one, else the CPU, or the device named.

    Raises:
        UsageError: no such device here.
    """
    name = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as exc:
        raise UsageError(f"--device is {name}: {str(exc).splitlines()[0]}", hint="give cpu, cuda or cuda:N") from exc
    return World(rank=0, size=1, device=torch.device(name))
