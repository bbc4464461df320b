"""The LMDB of a store, opened read-only and once per process."""

from __future__ import annotations

import os
import weakref
from pathlib import Path

import lmdb

from clipbert_cli.store.writer import DATA_FILE


class Environment:
    """An open LMDB environment, read-only. It is closed at the latest when nothing refers to it any more."""

    def __init__(self, path: Path) -> None:
        self.process = os.getpid()
        # Read-ahead stays on: media are large values, and reading them from a cold disk is three times as fast with it.
        file = path / DATA_FILE if path.is_dir() else path
        if not file.is_file():
            raise lmdb.CorruptedError(f"{file} is not a regular file")
        # LMDB would report a bad file descriptor.
        if not file.stat().st_size:
            raise lmdb.CorruptedError(f"{file} is empty: its writing was stopped, or the copy failed")
        self.lmdb = lmdb.open(str(path), subdir=path.is_dir(), readonly=True, lock=False, create=False, max_dbs=0)
        # LMDB maps the file and trusts the size that its header states: reading beyond the end of a file that was
        # copied in part would kill the process with SIGBUS.
        pages, page = self.lmdb.info()["last_pgno"] + 1, self.lmdb.stat()["psize"]
        if file.stat().st_size < pages * page:
            self.lmdb.close()
            raise lmdb.CorruptedError(f"{file} is cut off: it has {file.stat().st_size} of {pages * page} bytes")

    def close(self) -> None:
        """Close the LMDB. Whoever refers to it opens it once more."""
        self.lmdb.close()
        self.process = 0  # of nobody


# LMDB allows one environment per file and process, and two splits may share a store.
_environments: weakref.WeakValueDictionary[tuple[int, int], Environment] = weakref.WeakValueDictionary()


def open_environment(path: Path) -> Environment:
    """Return this process's environment of an LMDB.

    Raises:
        lmdb.Error, OSError: it cannot be opened, or is cut off.
    """
    status = (path / DATA_FILE if path.is_dir() else path).stat()
    # The inode and not the path: a store that was replaced under its name is another one.
    identity = (status.st_dev, status.st_ino)
    environment = _environments.get(identity)
    if environment is not None and environment.process != os.getpid():
        # It is the parent's, inherited by a fork. Closing it here does not touch the parent's.
        environment.lmdb.close()
        environment = None
    if environment is None:
        environment = _environments[identity] = Environment(path)
    return environment
