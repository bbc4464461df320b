"""Writing an LMDB that grows as needed, in transactions of bounded size."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import lmdb

from clipbert_cli.errors import OutputError
from clipbert_cli.files import OUT_OF_SPACE

DATA_FILE = "data.mdb"

MAX_ITEM_BYTES = 2**32 - 1
"""Largest value of LMDB."""

_FIRST_MAP_BYTES = 2**28
_COMMIT_BYTES = 2**26
_COMMIT_KEYS = 1000


class StoreWriter:
    """The one writer of the LMDB in `folder`. What was put is on the disk after `commit`, all of it or nothing."""

    def __init__(self, folder: Path) -> None:
        self._data_file = folder / DATA_FILE
        size = self._data_file.stat().st_size if self._data_file.exists() else 0
        self._map_bytes = max(_FIRST_MAP_BYTES, 2 * size)
        # Who may write is settled by the pack's own lock, and readers take none.
        self._environment = lmdb.open(str(folder), map_size=self._map_bytes, mode=0o644, lock=False, max_dbs=0)
        self._pending: dict[bytes, bytes | None] = {}
        self._pending_bytes = 0

    def get(self, key: bytes) -> bytes | None:
        """A value that is committed."""
        with self._environment.begin() as txn:
            value = txn.get(key)
            return None if value is None else bytes(value)

    def __contains__(self, key: bytes) -> bool:
        with self._environment.begin() as txn, txn.cursor() as cursor:
            return bool(cursor.set_key(key))

    def put(self, items: Mapping[bytes, bytes | None]) -> None:
        """Write these with the next commit; None deletes."""
        self._pending |= items
        self._pending_bytes += sum(len(value) for value in items.values() if value)

    def count_media(self, *, without: bytes) -> tuple[int, int]:
        """How many values there are, and their bytes; keys that begin with `without` do not count."""
        count = size = 0
        with self._environment.begin(buffers=True) as txn, txn.cursor() as cursor:
            for key, value in cursor:
                if not bytes(key).startswith(without):
                    count, size = count + 1, size + len(value)
        return count, size

    @property
    def is_full(self) -> bool:
        """Whether it is time to commit."""
        return self._pending_bytes >= _COMMIT_BYTES or len(self._pending) >= _COMMIT_KEYS

    def commit(self) -> None:
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
                self._check_space()
                raise
            else:
                self._pending, self._pending_bytes = {}, 0
                return

    def discard(self) -> None:
        """Forget what was put and not committed."""
        self._pending, self._pending_bytes = {}, 0

    def close(self) -> None:
        self._environment.close()

    def _check_space(self) -> None:
        """Raises the OSError that stopped a write: LMDB calls a write that was cut short an input/output error."""
        with self._data_file.open("ab") as file:
            os.posix_fallocate(file.fileno(), file.tell(), max(1, self._pending_bytes))


@contextmanager
def writing_to(store: Path) -> Iterator[None]:
    """Turns what goes wrong while writing into `OutputError`."""
    try:
        yield
    except (lmdb.Error, OSError) as exc:
        full = isinstance(exc, lmdb.DiskError) or getattr(exc, "errno", None) in OUT_OF_SPACE
        reason = exc.strerror if isinstance(exc, OSError) else str(exc)
        raise OutputError(
            f"{store} cannot be written: {'there is no space left' if full else reason}",
            hint="free some space, or write elsewhere" if full else "choose a folder that you can write",
        ) from exc
