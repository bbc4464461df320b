"""Add to an existing LMDB the records that `clipbert pack` would have written."""

from __future__ import annotations

import shutil
from pathlib import Path

import lmdb

from clipbert_cli.errors import DecodeError, StoreError
from clipbert_cli.store import records
from clipbert_cli.store.ingest import damage, learn_data
from clipbert_cli.store.lmdb_store import LmdbStore, open_store, records_beside
from clipbert_cli.store.pack_state import workplace
from clipbert_cli.store.verify import Checked, Progress, StoreItem, seconds_for_item, store_items
from clipbert_cli.store.worker_pool import Died, in_order
from clipbert_cli.store.writer import StoreWriter, writing_to


def scan_store(store: Path, *, beside: bool = False, workers: int = 0, on_progress: Progress | None = None) -> Checked:
    """Add to a store without media records what pack would have written: in place, or into a store of its own beside it
    (`<store>.records`), which is found where the store is opened.

    Raises:
        StoreError: it has media records, or cannot be opened.
        OutputError: it cannot be written.
    """
    source = open_store(store)
    if source.has_records:
        raise StoreError(f"{store} has media records already", hint=f"check them: clipbert store verify {store}")
    if not beside and not store.is_dir():
        raise StoreError(f"{store} is one file, which is not written to", hint="write the records beside it: --beside")
    wrong: list[tuple[str, str]] = []
    damaged: list[tuple[str, str]] = []
    size = 0
    jobs = list(store_items(source))
    target = records_beside(store)
    # Beside it first in any case: the store is read until the last item, and LMDB without locks must not change then.
    with writing_to(target), workplace(target, add=False) as place:
        writer = StoreWriter(place.folder)
        try:
            for done, (job, found) in enumerate(
                in_order(_learn, jobs, workers=workers, limit=seconds_for_item), start=1
            ):
                if isinstance(found, Died | str):
                    wrong.append((job.media_id, str(found)))
                else:
                    known, count, what = found
                    writer.put(known)
                    size += count
                    if what:
                        damaged.append((job.media_id, what))
                if writer.is_full:
                    writer.commit()
                if on_progress:
                    on_progress(done, len(jobs))
            manifest = records.manifest_record(kind=source.kind, complete=True, items=len(jobs), size=size)
            writer.put({records.MANIFEST_KEY: manifest})
            writer.commit()
        finally:
            writer.close()
        place.publish()
    del source
    if not beside:
        with writing_to(store), workplace(store, add=True) as place:
            _move_records(target, store)
            place.publish()
    return Checked(len(jobs), tuple(wrong), tuple(damaged))


def _move_records(beside: Path, store: Path) -> None:
    """Move the records into their store; the manifest comes last, because readers use the records once it is there."""
    with lmdb.open(str(beside), readonly=True, lock=False) as environment, environment.begin() as txn:
        writer = StoreWriter(store)
        try:
            for key, value in txn.cursor():
                if key != records.MANIFEST_KEY:
                    writer.put({key: value})
                if writer.is_full:
                    writer.commit()
            writer.commit()
            writer.put({records.MANIFEST_KEY: txn.get(records.MANIFEST_KEY)})
            writer.commit()
        finally:
            writer.close()
    shutil.rmtree(beside)


def _learn(job: StoreItem) -> tuple[dict[bytes, bytes], int, str | None] | str:
    """(records, bytes of the item, what is damaged), or why there are none."""
    try:
        data = LmdbStore(job.store, kind=job.kind).read(job.media_id)
        learnt, probed = learn_data(job.media_id, data, job.kind)
    except (DecodeError, StoreError) as exc:
        return str(exc)
    return learnt, len(data), damage(probed) if probed else None
