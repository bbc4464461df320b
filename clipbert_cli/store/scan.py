"""Adding the media records of `clipbert pack` to an existing LMDB."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import lmdb

from clipbert_cli.errors import StoreError
from clipbert_cli.files import remove
from clipbert_cli.store import records
from clipbert_cli.store.lmdb_store import is_lmdb, open_store, records_beside
from clipbert_cli.store.unfinished import unfinished_store
from clipbert_cli.store.verify import Checked, ItemReport, Progress, examine, scan_item
from clipbert_cli.store.writer import StoreWriter, writing_to


def scan_store(store: Path, *, beside: bool = False, workers: int = 0, on_progress: Progress | None = None) -> Checked:
    """Add media records to a store that has none, or none of the current version.

    Args:
        beside: write them into a store of their own beside it (`STORE.records`), where they are found when the store
            is opened, and leave the store unchanged.

    Raises:
        StoreError: the store has media records of the current version, or cannot be opened.
        OutputError: the records cannot be written.
    """
    source = open_store(store)
    target = records_beside(store)
    if source.has_records:
        where = f" in {target}" if is_lmdb(target) else ""
        raise StoreError(f"{store} has media records{where}", hint=f"check them: clipbert store verify {store}")
    if not beside and not store.is_dir():
        raise StoreError(
            f"{store} is a single file, which clipbert does not change", hint="write the records beside it: --beside"
        )
    size = 0
    # The records are written beside the store in either case: until the last item is read, a writer in the store itself
    # could reuse pages that are being read, because LMDB is used without its locks.
    with writing_to(target), unfinished_store(target, add=False) as place:
        with closing(StoreWriter(place.folder)) as writer:

            def take(report: ItemReport) -> None:
                nonlocal size
                size += report.size
                writer.put(report.records)
                if writer.is_full:
                    writer.commit()

            checked = examine(source, scan_item, workers=workers, on_progress=on_progress, take=take)
            manifest = records.manifest_record(
                kind=source.kind, complete=True, ids=source.ids, items=checked.items, size=size
            )
            writer.put({records.MANIFEST_KEY: manifest})
            writer.commit()
        remove(target)  # records of an older version
        place.publish()
    # LMDB allows one environment per file and process.
    source.close()
    if not beside:
        with writing_to(store), unfinished_store(store, add=True):
            _move_records(target, store)
    return checked


def _move_records(beside: Path, store: Path) -> None:
    """Move the records into their store, in place of those of an older version.

    The manifest comes last: with it, readers take the records as complete.
    """
    with (
        lmdb.open(str(beside), readonly=True, lock=False) as environment,
        environment.begin() as txn,
        closing(StoreWriter(store)) as writer,
    ):
        outdated = writer.keys(records.PREFIX)
        writer.put(dict.fromkeys(outdated))
        writer.commit()
        for key, value in txn.cursor():
            if key != records.MANIFEST_KEY:
                writer.put({key: value})
            if writer.is_full:
                writer.commit()
        writer.commit()
        writer.put({records.MANIFEST_KEY: txn.get(records.MANIFEST_KEY)})
        writer.commit()
    remove(beside)
