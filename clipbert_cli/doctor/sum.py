"""Started by `trials.try_processes` in several processes: they add up their numbers, and one prints the sum."""

from __future__ import annotations

import sys

import torch

from clipbert_cli.runtime.distributed import start_world
from clipbert_cli.runtime.process_exit import run_and_exit


def main() -> None:
    """Sum the ranks, counted from 1, on the device that the command line names."""
    world = start_world(sys.argv[1])
    total = world.reduce(torch.tensor([float(world.rank + 1)], device=world.device))
    if world.is_main:
        print(int(total.item()))


if __name__ == "__main__":
    run_and_exit(main)
