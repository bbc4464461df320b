"""A folder that appears whole or not at all.

It is written in a hidden folder beside its place (`.<name>.partial-<process>`) and moved there when it is complete and
on the disk. What a killed process leaves is such a hidden folder; the next one that writes the same place removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from clipbert_cli.errors import OutputError, StoreError

_LOCK_FILE = "pack.lock"


@contextlib.contextmanager
def partial_folder(store: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """(the hidden folder to write in, the function that moves it to its place); removed unless it was moved."""
    if not store.parent.is_dir():
        raise OutputError(f"{store} cannot be written: {store.parent} is not a folder", hint=f"mkdir -p {store.parent}")
    folder = store.with_name(f".{store.name}.partial-{os.getpid()}")
    folder.mkdir()
    lock = None
    try:
        lock = os.open(folder / _LOCK_FILE, os.O_CREAT | os.O_RDWR, 0o600)
        with contextlib.suppress(OSError):
            _lock(lock)

        def publish() -> None:
            (folder / _LOCK_FILE).unlink()
            _sync_folder(folder)
            if os.path.lexists(store):
                raise StoreError(f"{store} has appeared while it was being packed", hint="choose another name")
            folder.rename(store)
            _sync_folder(store.parent)

        yield folder, publish
    finally:
        if lock is not None:
            os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(store: Path) -> tuple[Path, ...]:
    """Removes what killed packs of this store left.

    Raises:
        StoreError: a pack that still runs is writing this store.
    """
    if not store.parent.is_dir():
        return ()
    pattern = re.compile(re.escape(f".{store.name}.partial-") + r"(\d+)")
    removed = []
    for folder in sorted(store.parent.iterdir()):
        match = pattern.fullmatch(folder.name)
        if match and folder.is_dir():
            if _is_alive(folder, process=int(match[1])):
                raise StoreError(f"{store} is being written by another pack (process {match[1]})", hint="wait for it")
            shutil.rmtree(folder)
            removed.append(folder)
    return tuple(removed)


def _is_alive(folder: Path, *, process: int) -> bool:
    """Whether the pack that made the folder still runs: then it holds the lock."""
    running = Path(f"/proc/{process}").exists() and process != os.getpid()
    try:
        descriptor = os.open(folder / _LOCK_FILE, os.O_RDWR)
    except FileNotFoundError:
        return running  # in the first or the last moment of a pack
    try:
        return not _lock(descriptor)
    except OSError:
        return running
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Takes the lock, which ends with the process. False where another process has it.

    Raises:
        OSError: this file system has no locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
