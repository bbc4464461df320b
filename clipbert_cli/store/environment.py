"""LMDB files opened for reading: each once a process, without a lock file."""

from __future__ import annotations

import os
import weakref
from pathlib import Path

import lmdb

from clipbert_cli.store.writer import DATA_FILE


class Environment:
    """An open LMDB environment; closed when nothing holds it any more."""

    def __init__(self, path: Path) -> None:
        self.process = os.getpid()
        # Read-ahead is on: media are large values, and cold ones are read three times as fast with it.
        self.lmdb = lmdb.open(str(path), subdir=path.is_dir(), readonly=True, lock=False, create=False, max_dbs=0)
        # LMDB maps the file and trusts its size: reading beyond the end would kill the process (SIGBUS).
        file = path / DATA_FILE if path.is_dir() else path
        pages, page = self.lmdb.info()["last_pgno"] + 1, self.lmdb.stat()["psize"]
        if file.stat().st_size < pages * page:
            self.lmdb.close()
            raise lmdb.CorruptedError(f"{file} is cut off: {file.stat().st_size} of {pages * page} bytes are there")


# LMDB allows one environment per file and process, and two splits may share a store.
_environments: weakref.WeakValueDictionary[tuple[int, int], Environment] = weakref.WeakValueDictionary()


def open_environment(path: Path) -> Environment:
    """The process's one environment of an LMDB.

    Raises:
        lmdb.Error, OSError: it cannot be opened, or is cut off.
    """
    status = (path / DATA_FILE if path.is_dir() else path).stat()
    identity = (status.st_dev, status.st_ino)
    environment = _environments.get(identity)
    if environment is not None and environment.process != os.getpid():
        environment.lmdb.close()  # the parent's, inherited by a fork
        environment = None
    if environment is None:
        environment = _environments[identity] = Environment(path)
    return environment
