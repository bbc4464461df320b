"""The processor cores of this process."""

from __future__ import annotations

import os


def available_cores() -> int:
    """Return the number of processor cores that this process may use."""
    # A scheduler or container may give a process fewer cores than the machine has. macOS cannot say which.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
