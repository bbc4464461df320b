"""Checking a store, and adding to one from elsewhere what `pack` would have learnt."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from clipbert_cli.errors import DecodeError, StoreError
from clipbert_cli.media.images import probe_image
from clipbert_cli.media.packets import PacketTable
from clipbert_cli.store import records
from clipbert_cli.store.ingest import damage, learn_data, seconds_allowed
from clipbert_cli.store.lmdb_store import LmdbStore, open_store, stored_manifest
from clipbert_cli.store.worker_pool import Died, in_order
from clipbert_cli.types import Kind

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
class StoreItem:
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
    for done, (job, found) in enumerate(
        in_order(_verify, store_items(source), workers=workers, limit=seconds_for_item), start=1
    ):
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


def store_items(source: LmdbStore) -> Iterator[StoreItem]:
    return (StoreItem(source.path, media_id, source.kind) for media_id in source)


def seconds_for_item(job: StoreItem) -> float:
    try:
        with LmdbStore(job.store, kind=job.kind).reading(job.media_id) as data:
            return seconds_allowed(len(data))
    except StoreError:
        return seconds_allowed(0)


def _verify(job: StoreItem) -> tuple[str | None, str | None]:
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
        if source.has_records and known is not None:
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
