"""The world a process runs in. The only file that may import torch.distributed; one process is world size 1."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class World:
    """This process's place: its rank among `size` processes, and its device."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks to the person."""
        return self.rank == 0


def start_world(device: str | None = None) -> World:
    """The world of this process: the first CUDA device where there is one, else the CPU, or the device named."""
    name = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return World(rank=0, size=1, device=torch.device(name))
