"""The LMDB of a store, opened read-only and once per process; and one that grows as it is written, in transactions."""

from __future__ import annotations

import itertools
import os
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import lmdb

from clipbert_cli.files import refuse_link
from clipbert_cli.memory import is_out_of_memory
from clipbert_cli.path_kinds import DATA_FILE
from clipbert_cli.system_errors import system_error, unwritable

MAX_ITEM_BYTES = 2**32 - 1
"""Largest value of LMDB."""

_FIRST_MAP_BYTES = 2**28

# LMDB writes two pages into a new file.
_FIRST_BYTES = 2 * 4096

# A transaction holds its values in memory, and each commit waits for the disk (some 10 ms): 64 MB or 1,000 keys make
# the wait small without holding much.
_COMMIT_BYTES = 2**26
_COMMIT_KEYS = 1000

# Bytes that are written at once to find out why LMDB could not write.
_PROBE_BYTES = 2**20


class StoreWriter:
    """The only writer of the LMDB in `folder`. After `commit`, all that was put is on the disk; before, nothing is."""

    def __init__(self, folder: Path) -> None:
        self._data_file = folder / DATA_FILE
        refuse_link(self._data_file)
        size = self._data_file.stat().st_size if self._data_file.exists() else 0
        # LMDB maps the whole file and fails when the map is full; `commit` doubles it then.
        self._map_bytes = max(_FIRST_MAP_BYTES, 2 * size)
        # No lock file of LMDB: pack's own lock keeps other writers out, and readers open the store without locks.
        try:
            self._environment = lmdb.open(str(folder), map_size=self._map_bytes, mode=0o644, lock=False, max_dbs=0)
        except lmdb.DiskError:
            self._check_space(_FIRST_BYTES, committed=size)
            raise
        self._pending: dict[bytes, bytes | None] = {}
        self._pending_bytes = 0

    def get(self, key: bytes) -> bytes | None:
        """Return a committed value, None where there is none."""
        with self._environment.begin() as txn:
            value = txn.get(key)
            return None if value is None else bytes(value)

    def __contains__(self, key: bytes) -> bool:
        with self._environment.begin() as txn, txn.cursor() as cursor:
            return bool(cursor.set_key(key))

    def keys(self, prefix: bytes) -> list[bytes]:
        """Return the committed keys that begin with `prefix`."""
        with self._environment.begin() as txn, txn.cursor() as cursor:
            found = cursor.set_range(prefix)
            keys = cursor.iternext(values=False) if found else ()
            return list(itertools.takewhile(lambda key: key.startswith(prefix), keys))

    def put(self, items: Mapping[bytes, bytes | None]) -> None:
        """Write these items with the next commit; None deletes a key."""
        self._pending |= items
        self._pending_bytes += sum(len(value) for value in items.values() if value)

    @property
    def is_full(self) -> bool:
        """True if so much is pending that it should be committed."""
        return self._pending_bytes >= _COMMIT_BYTES or len(self._pending) >= _COMMIT_KEYS

    def commit(self) -> None:
        """Write what is pending in one transaction and wait until it is on the disk.

        Raises:
            lmdb.Error, OSError: it cannot be written.
        """
        while True:
            try:
                with self._environment.begin(write=True) as txn:
                    for key, value in self._pending.items():
                        if value is None:
                            txn.delete(key)
                        else:
                            txn.put(key, value)
            except lmdb.MapFullError:
                self._map_bytes = 2 * max(self._map_bytes, self._pending_bytes)
                self._environment.set_mapsize(self._map_bytes)
            except lmdb.Error:
                used = (self._environment.info()["last_pgno"] + 1) * self._environment.stat()["psize"]
                self._check_space(max(1, self._pending_bytes), committed=used)
                raise
            else:
                self._pending, self._pending_bytes = {}, 0
                return

    def close(self) -> None:
        """Close the LMDB; what is pending is lost."""
        self._environment.close()

    def _check_space(self, left: int, *, committed: int) -> None:
        """Raise the OSError that stopped a write of `left` bytes, and give back the space that it took.

        LMDB reports a write that the system cut short, such as on a full disk, as an input/output error. Writing as
        much again gives the real reason.
        """
        # Not zeros, which take no space where the file system compresses.
        probe = os.urandom(_PROBE_BYTES)
        with self._data_file.open("ab", buffering=0) as file:
            try:
                while left > 0:
                    left -= file.write(probe[:left])
                os.fsync(file.fileno())
            finally:
                # Without it, the pages of the failed transaction would go on filling the disk.
                file.truncate(committed)


@contextmanager
def writing_to(store: Path) -> Iterator[None]:
    """Turn errors of writing into `OutputError`."""
    try:
        yield
    except (lmdb.Error, OSError) as exc:
        if is_out_of_memory(exc):
            raise
        error = system_error(exc) or OSError(0, str(exc))
        raise unwritable(store, error, then="give the same command again") from exc


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
