"""Files that are whole or absent: a lock between processes, a link or a copy, a description beside a file."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Stopped(Exception):  # noqa: N818 - a signal between threads, not an error a person meets
    """The person interrupted: leave what is half-done resumable."""


@contextmanager
def locked(path: Path, stop: threading.Event) -> Iterator[None]:
    """Hold `path`.lock against other threads and processes; the lock goes with its holder, however that ends."""
    lock = path.with_name(path.name + ".lock")
    while True:
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # another process removed the empty folder just now
            continue
        try:
            while not _try_lock(descriptor):
                if stop.wait(0.1):
                    raise Stopped
            # The last holder removes the file: a lock on a removed file holds nothing.
            if lock.exists() and os.path.samestat(os.fstat(descriptor), lock.stat()):
                try:
                    yield
                finally:
                    lock.unlink(missing_ok=True)
                return
        finally:
            os.close(descriptor)


def sweep_lock(path: Path) -> None:
    """Remove `path`.lock where its holder was killed."""
    lock = path.with_name(path.name + ".lock")
    try:
        descriptor = os.open(lock, os.O_RDWR)
    except OSError:
        return
    try:
        if _try_lock(descriptor):
            lock.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_json(path: Path, value: Any) -> None:
    """Write a JSON document that is whole or absent; one writer at a time (`locked`).

    What a killed writer leaves has the same name every time, so that the next one takes it away.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.unfinished")
    try:
        temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """A JSON document written by `write_json`, or None where it is absent or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def link_or_copy(source: Path, target: Path) -> None:
    """`target` becomes the same file where the disk allows it (no space taken), else a copy; whole or absent."""
    temporary = target.with_name(target.name + ".copying")
    temporary.unlink(missing_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    real = source.resolve()
    try:
        try:
            os.link(real, temporary)
        except OSError:  # another file system, or one without links
            shutil.copyfile(real, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
