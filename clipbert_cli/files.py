"""What writing to a disk needs everywhere: having it really written, and knowing that it is full."""

from __future__ import annotations

import errno
import os
from pathlib import Path

OUT_OF_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""`OSError.errno` where there is no space: the disk, the quota or the largest file is reached."""


def open_to_others(path: Path) -> None:
    """Give a file the permissions that any new file gets: safetensors makes its files unreadable for others."""
    mask = os.umask(0o077)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def flush(path: Path) -> None:
    """Make sure that a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
