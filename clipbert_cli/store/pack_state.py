"""Where a pack works until its store is finished.

A new store is written in a hidden folder beside its place (`.<name>.partial`) and moved there when it is complete and
on the disk, so it appears whole or not at all. What a killed or interrupted pack leaves is that folder, and the next
pack of the same store goes on in it. `--add` works in the store itself, which says meanwhile that it is not finished.

One pack at a time holds the folder's lock, which ends with its process.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipbert_cli.errors import OutputError, StoreError
from clipbert_cli.files import LockHeldError, fsync, lock

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
        fsync(self.folder)
        if self.folder == self.store:
            return
        if os.path.lexists(self.store):
            raise StoreError(f"{self.store} has appeared while it was being packed", hint="choose another name")
        self.folder.rename(self.store)
        fsync(self.store.parent)


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
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock(folder / LOCK_FILE, remove_file=False))
        except LockHeldError as exc:
            raise StoreError(
                f"{store} is being written by another pack ({exc.owner})", hint="wait for it to end"
            ) from exc
        place = Workplace(store, folder)
        try:
            yield place
        except Exception:
            if not add:
                shutil.rmtree(folder, ignore_errors=True)
            elif not place.journal.exists():
                (folder / LOCK_FILE).unlink(missing_ok=True)
            raise


@dataclass(frozen=True, slots=True)
class Entry:
    """What became of one media id.

    `files` are its source files as (path, bytes, time of change in ns); `bytes` of the value, None where no file could
    be packed; `skipped` (path, reason) pairs; `damage` of the packed file.
    """

    media_id: str
    files: tuple[tuple[str, int, int], ...]
    bytes: int | None
    skipped: tuple[tuple[str, str], ...] = ()
    damage: tuple[str, str] | None = None


class Journal:
    """Open for appending; `settings` of the pack stand in its first line.

    Raises:
        StoreError: the unfinished pack had other settings.
    """

    def __init__(self, file: Path, settings: Mapping[str, Any]) -> None:
        self.done: dict[str, Entry] = {}
        whole = 0
        if file.exists():
            for line in file.read_bytes().splitlines(keepends=True):
                if not line.endswith(b"\n"):
                    break  # the pack was killed while it wrote
                self._read(json.loads(line), settings, file)
                whole += len(line)
        self.resumed = whole > 0
        """Whether an earlier pack left work here."""
        self._stream = file.open("ab")
        self._stream.truncate(whole)
        self._pending: list[dict[str, Any]] = [] if whole else [{"settings": dict(settings)}]

    def _read(self, fields: dict[str, Any], settings: Mapping[str, Any], file: Path) -> None:
        if "settings" in fields:
            if fields["settings"] != dict(settings):
                raise StoreError(
                    f"{file.parent} is of a pack that was stopped, with other settings: {fields['settings']}, and now "
                    f"{dict(settings)}",
                    hint="pack with the same settings, or remove that folder to start anew",
                )
            return
        entry = Entry(
            fields["id"],
            tuple((path, size, changed) for path, size, changed in fields["files"]),
            fields["bytes"],
            tuple((path, reason) for path, reason in fields["skipped"]),
            None if fields["damage"] is None else (fields["damage"][0], fields["damage"][1]),
        )
        self.done[entry.media_id] = entry

    def add(self, entry: Entry) -> None:
        """Note an entry; it is in the file after `write`."""
        self.done[entry.media_id] = entry
        self._pending.append(
            {
                "id": entry.media_id,
                "files": entry.files,
                "bytes": entry.bytes,
                "skipped": entry.skipped,
                "damage": entry.damage,
            }
        )

    def write(self) -> None:
        """Put what was added on the disk."""
        lines = (json.dumps(fields, ensure_ascii=True) + "\n" for fields in self._pending)
        self._stream.write("".join(lines).encode())
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._pending = []

    def close(self) -> None:
        self._stream.close()

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.done.values())
