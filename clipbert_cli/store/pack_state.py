"""Where a pack works until its store is finished.

A new store is written in a hidden folder beside its place (`.<name>.partial`) and moved there when it is complete and
on the disk, so it appears whole or not at all. What a killed or interrupted pack leaves is that folder, and the next
pack of the same store goes on in it. `--add` works in the store itself, which says meanwhile that it is not finished.

One pack at a time holds the folder's lock, which ends with its process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clipbert_cli.errors import OutputError, StoreError
from clipbert_cli.files import flush

LOCK_FILE = "pack.lock"
JOURNAL_FILE = "pack.jsonl"


@dataclass(frozen=True, slots=True)
class Workplace:
    """The folder to write in, and the store that it becomes."""

    store: Path
    folder: Path

    @property
    def journal(self) -> Path:
        """What is done so far, see `journal.py`."""
        return self.folder / JOURNAL_FILE

    def publish(self) -> None:
        """Make the store appear, or in the store itself, take away what only a pack needs."""
        self.journal.unlink(missing_ok=True)
        (self.folder / LOCK_FILE).unlink()
        flush(self.folder)
        if self.folder == self.store:
            return
        if os.path.lexists(self.store):
            raise StoreError(f"{self.store} has appeared while it was being packed", hint="choose another name")
        self.folder.rename(self.store)
        flush(self.store.parent)


def partial_folder(store: Path) -> Path:
    """Where a new store is written."""
    return store.with_name(f".{store.name}.partial")


@contextlib.contextmanager
def workplace(store: Path, *, add: bool) -> Iterator[Workplace]:
    """The place to write a new store in, or (`add`) the store itself.

    An error takes a new store's folder away; Ctrl-C leaves it, so that the next pack can go on.

    Raises:
        StoreError: another pack is writing this store, or it exists (it does not, for `add`).
        OutputError: its parent is no folder.
    """
    folder = store if add else partial_folder(store)
    if not store.parent.is_dir():
        raise OutputError(f"{store} cannot be written: {store.parent} is not a folder", hint=f"mkdir -p {store.parent}")
    if not add:
        folder.mkdir(exist_ok=True)
    lock = os.open(folder / LOCK_FILE, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        _take(lock, folder / LOCK_FILE, store)
        place = Workplace(store, folder)
        try:
            yield place
        except Exception:
            if not add:
                shutil.rmtree(folder, ignore_errors=True)
            elif not place.journal.exists():
                (folder / LOCK_FILE).unlink(missing_ok=True)
            raise
    finally:
        os.close(lock)


def _take(lock: int, file: Path, store: Path) -> None:
    """Take the lock and write the process in it.

    Raises:
        StoreError: another pack holds it.
    """
    other = os.pread(lock, 20, 0).decode(errors="replace")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        taken = True
    except BlockingIOError:
        taken = False
    except OSError:  # this file system has no locks
        taken = not (other.isdigit() and int(other) != os.getpid() and Path(f"/proc/{other}").exists())
    with contextlib.suppress(FileNotFoundError):
        if taken and os.path.samestat(os.fstat(lock), os.stat(file)):
            os.ftruncate(lock, 0)
            os.pwrite(lock, str(os.getpid()).encode(), 0)
            return
    raise StoreError(
        f"{store} is being written by another pack (process {other or 'unknown'})", hint="wait for it to end"
    )
