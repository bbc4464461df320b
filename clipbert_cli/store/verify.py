"""Checking a store, and adding to one from elsewhere what `pack` would have learnt."""

from __future__ import annotations

import dataclasses
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import lmdb

from clipbert_cli.errors import DecodeError, StoreError
from clipbert_cli.media.images import probe_image
from clipbert_cli.media.packets import PacketTable
from clipbert_cli.media.probe import Kind
from clipbert_cli.store import records
from clipbert_cli.store.ingest import damage, learn_data, seconds_allowed
from clipbert_cli.store.lmdb_store import LmdbStore, index_beside, open_media, stored_manifest
from clipbert_cli.store.pack_state import workplace
from clipbert_cli.store.worker_pool import Died, in_order
from clipbert_cli.store.writer import StoreWriter, writing_to

Progress = Callable[[int, int], None]
"""Called with the finished and the total number of items."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What verifying found: `wrong` and `damaged` (media id, reason) pairs. Damaged videos decode up to some frame, as
    pack said; wrong items are not what was packed, or do not decode at all."""

    items: int
    wrong: tuple[tuple[str, str], ...] = field(repr=False)
    damaged: tuple[tuple[str, str], ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Job:
    store: Path
    media_id: str
    kind: Kind


def verify_store(store: Path, *, workers: int = 0, on_progress: Progress | None = None) -> Checked:
    """Compare every item with what pack learnt of it, and decode it fully.

    Raises:
        StoreError: the store cannot be opened.
    """
    source = open_store(store)
    wrong: list[tuple[str, str]] = []
    damaged: list[tuple[str, str]] = []
    total = len(source)
    for done, (job, found) in enumerate(in_order(_verify, _jobs(source), workers=workers, limit=_seconds_for), start=1):
        reason, damage_found = (str(found), None) if isinstance(found, Died) else found
        if reason:
            wrong.append((job.media_id, reason))
        elif damage_found:
            damaged.append((job.media_id, damage_found))
        if on_progress:
            on_progress(done, total)
    stated = (stored_manifest(store) or {}).get("items")
    if stated is not None and stated != total:
        wrong.append(("", f"the manifest counts {stated} items, and there are {total}"))
    return Checked(total, tuple(wrong), tuple(damaged))


def _jobs(source: LmdbStore) -> Iterator[_Job]:
    return (_Job(source.path, media_id, source.kind) for media_id in source)


def _seconds_for(job: _Job) -> float:
    try:
        with LmdbStore(job.store, kind=job.kind).reading(job.media_id) as data:
            return seconds_allowed(len(data))
    except StoreError:
        return seconds_allowed(0)


def _verify(job: _Job) -> tuple[str | None, str | None]:
    """(what is wrong, what is damaged)"""
    source = LmdbStore(job.store, kind=job.kind)
    try:
        data, known = source.read(job.media_id), source.record(job.media_id)
        stated = None if known is None else (known.get("bytes"), known.get("crc32"))
        if stated not in (None, (len(data), zlib.crc32(data))):
            return "its bytes are not those that were packed", None
        if job.kind == "image":
            probe_image(data)
            return None, None
        _, probed = learn_data(job.media_id, data, job.kind)
        assert probed is not None
        if source.indexed and known is not None:
            if source.info(job.media_id) != probed.info:
                return "it decodes to other frames than when it was packed", None
            if not _same(source.packets(job.media_id), probed.packets):
                return "its packets are not those that were packed", None
        return None, damage(probed)
    except (DecodeError, StoreError) as exc:
        return str(exc), None


def _same(stored: PacketTable | None, found: PacketTable | None) -> bool:
    """Whether a stored table says what was found; the first stores had no checksums."""
    if stored is None or found is None:
        return stored is found
    if stored.checksums is None:
        found = dataclasses.replace(found, checksums=None)
    return records.packets_record(stored) == records.packets_record(found)


def open_store(store: Path) -> LmdbStore:
    """A store of either kind.

    Raises:
        StoreError: it is none, or not finished.
    """
    source = open_media(store, kind=store_kind(store))
    if not isinstance(source, LmdbStore):
        raise StoreError(f"{store} is a folder of files, not a store", hint=f"clipbert pack {store} <new store>")
    return source


def store_kind(store: Path) -> Kind:
    """What an LMDB holds: its manifest says so, or its first item shows it."""
    if not store.exists():
        raise StoreError(f"media store {store} does not exist")
    for place in (index_beside(store), store):
        if place.exists() and (place.is_file() or (place / "data.mdb").exists()) and (held := stored_manifest(place)):
            return "image" if held["kind"] == "image" else "video"
    source = open_media(store, kind="video")
    for media_id in source:
        try:
            probe_image(source.read(media_id))
        except DecodeError:
            return "video"
        return "image"
    return "video"


def index_store(store: Path, *, beside: bool = False, workers: int = 0, on_progress: Progress | None = None) -> Checked:
    """Add to a store without an index what pack would have written: in place, or into a store of its own beside it
    (`<store>.index`), which is found where the store is opened.

    Raises:
        StoreError: it has an index, or cannot be opened.
        OutputError: it cannot be written.
    """
    source = open_store(store)
    if source.indexed:
        raise StoreError(f"{store} has an index", hint=f"check it: clipbert pack verify {store}")
    if not beside and not store.is_dir():
        raise StoreError(f"{store} is one file, which is not written to", hint="write the index beside it: --beside")
    wrong: list[tuple[str, str]] = []
    damaged: list[tuple[str, str]] = []
    size = 0
    jobs = list(_jobs(source))
    target = index_beside(store)
    # Beside it first in any case: the store is read until the last item, and LMDB without locks must not change then.
    with writing_to(target), workplace(target, add=False) as place:
        writer = StoreWriter(place.folder)
        try:
            for done, (job, found) in enumerate(in_order(_learn, jobs, workers=workers, limit=_seconds_for), start=1):
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
            _move_index(target, store)
            place.publish()
    return Checked(len(jobs), tuple(wrong), tuple(damaged))


def _move_index(beside: Path, store: Path) -> None:
    """Put the records of an index into its store; the manifest comes last and makes it one with an index."""
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


def _learn(job: _Job) -> tuple[dict[bytes, bytes], int, str | None] | str:
    """(records, bytes of the item, what is damaged), or why there are none."""
    try:
        data = LmdbStore(job.store, kind=job.kind).read(job.media_id)
        learnt, probed = learn_data(job.media_id, data, job.kind)
    except (DecodeError, StoreError) as exc:
        return str(exc)
    return learnt, len(data), damage(probed) if probed else None


def available_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0))
