"""The folder in which a store is written until it is complete.

A new store is written in a hidden folder beside its place (`.NAME.unfinished`) and renamed when it is complete and on
the disk, so that it appears whole or not at all. A killed or interrupted pack leaves that folder, and the next pack of
the same store continues in it. Unlike the temporary names of `files.py`, its name therefore has no process in it, and
a lock keeps other packs out. `--add` works in the store itself, in which each transaction leaves whole items.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clipbert_cli.errors import ClipbertError, OutputError, StoreError
from clipbert_cli.files import LockHeldError, is_locked, lock, lock_owner, publish_folder, refuse_link, remove

_LOCK_FILE = "pack.lock"
_JOURNAL = "pack.journal"


def check_not_being_written(store: Path, *, has_manifest: bool) -> None:
    """Raise StoreError if a pack is writing a store, or was stopped before it had made a new one."""
    if is_locked(store / _LOCK_FILE):
        raise _is_being_written(store, lock_owner(store / _LOCK_FILE))
    if (store / _JOURNAL).exists() and not has_manifest:
        raise StoreError(f"{store} is not complete: its pack was stopped", hint="run that clipbert pack command again")


def _is_being_written(store: Path, owner: str) -> StoreError:
    return StoreError(f"{store} is being written by another pack ({owner})", hint="wait until it has ended")


@dataclass(slots=True)
class UnfinishedStore:
    """The folder to write in, and the store that it becomes; with `--add` both are the same.

    `holds_items` says whether this pack has finished some items in it, which the next one need not pack again.
    """

    store: Path
    folder: Path
    holds_items: bool = False

    @property
    def journal(self) -> Path:
        """Folder of the LMDB that says what is done so far."""
        return self.folder / _JOURNAL

    def publish(self) -> None:
        """Give the complete store its name and remove what only packing needs.

        Raises:
            StoreError: something has appeared under that name meanwhile.
        """
        remove(self.journal)
        if self.folder == self.store:
            return
        try:
            publish_folder(self.folder, self.store)
        except FileExistsError as exc:
            raise StoreError(
                f"{self.store} has appeared while it was being packed", hint="choose another name"
            ) from exc
        # The lock goes with the folder and is released last: without it, another pack could begin to write in the
        # folder between its removal and the renaming.
        (self.store / _LOCK_FILE).unlink(missing_ok=True)


@contextlib.contextmanager
def unfinished_store(store: Path, *, add: bool) -> Iterator[UnfinishedStore]:
    """Yield the place to write a new store in or, with `add`, the store itself, locked against other packs.

    Folders above a new store are made. An error removes them and the folder of the new store, unless an earlier pack
    was stopped in it. Ctrl-C leaves it, so that the next pack can continue, and so does a full disk when items are
    finished.

    Raises:
        StoreError: another pack is writing this store.
        OutputError: something above it is not a folder.
    """
    made = [parent for parent in store.parents if not os.path.lexists(parent)]
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as exc:
        raise OutputError(
            f"{store} cannot be written: {exc.filename} is not a folder", hint="name a store in a folder"
        ) from exc
    folder = store if add else store.with_name(f".{store.name}.unfinished")
    for written in (folder / _JOURNAL, *([] if add else [folder])):
        refuse_link(written)
    is_continued = (folder / _JOURNAL).exists()
    with contextlib.ExitStack() as stack:
        place = UnfinishedStore(store, folder)
        try:
            stack.enter_context(lock(folder / _LOCK_FILE))
            yield place
        except LockHeldError as exc:
            raise _is_being_written(store, exc.owner) from exc
        except Exception as exc:
            is_kept = place.holds_items and not isinstance(exc, ClipbertError)
            if not is_continued and not is_kept:
                remove(place.journal if add else folder)
                for parent in made:
                    with contextlib.suppress(OSError):
                        parent.rmdir()
            raise
