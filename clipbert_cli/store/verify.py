"""Checking every item of a store against its media record, and adding records to a store that lacks them."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import lmdb

from clipbert_cli.errors import DecodeError, StoreError
from clipbert_cli.files import scratch_folder
from clipbert_cli.media.frames import decode_frames
from clipbert_cli.path_kinds import DATA_FILE
from clipbert_cli.store import records
from clipbert_cli.store.environment import StoreWriter, writing_to
from clipbert_cli.store.ingest import media_records, seconds_allowed
from clipbert_cli.store.lmdb_store import LmdbStore, open_store
from clipbert_cli.store.unfinished import unfinished_store
from clipbert_cli.store.worker_pool import Progress, WorkerCrash, in_order

StoreItem = tuple[LmdbStore, str]
"""A store and the id of an item in it. A worker process opens the store's LMDB by itself."""


@dataclass(frozen=True, slots=True)
class ItemReport:
    """The findings of a worker: why an item is `wrong` or `damaged`, and the records of one that can be used."""

    wrong: str | None = None
    damaged: str = ""
    records: dict[bytes, bytes] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Checked:
    """The (media id, reason) pairs of a store's bad items.

    `wrong` items are not what was packed, or do not decode at all. `damaged` videos decode up to some frame, as they
    did when they were packed. A media id of "" stands for the store itself.
    """

    items: int
    wrong: tuple[tuple[str, str], ...] = field(repr=False)
    damaged: tuple[tuple[str, str], ...] = field(repr=False)


def verify_store(store: Path, *, workers: int = 0, on_progress: Progress | None = None) -> Checked:
    """Compare every item with its media record, decode it completely, and take frames of it as training does.

    Raises:
        StoreError: the store cannot be opened.
    """
    source = open_store(store)
    checked = examine(source, _verify, workers=workers, on_progress=on_progress)
    lost = [(media_id, "it has a media record, but is not in the store") for media_id in source.lost_items()]
    return dataclasses.replace(checked, wrong=(*checked.wrong, *lost))


def examine(
    source: LmdbStore,
    work: Callable[[StoreItem], ItemReport],
    *,
    workers: int,
    on_progress: Progress | None,
    take: Callable[[ItemReport], None] | None = None,
) -> Checked:
    """Call `work`, a function of a module, for every item in worker processes, and collect the bad items.

    Args:
        take: called in this process with each report, in the order of the items.
    """
    wrong: list[tuple[str, str]] = []
    damaged: list[tuple[str, str]] = []
    total = len(source)
    items = ((source, media_id) for media_id in source)
    found_in_order = in_order(work, items, workers=workers, limit=_seconds_for)
    for done, ((_, media_id), found) in enumerate(found_in_order, start=1):
        report = ItemReport(wrong=str(found)) if isinstance(found, WorkerCrash) else found
        if report.wrong:
            wrong.append((media_id, report.wrong))
        elif report.damaged:
            damaged.append((media_id, report.damaged))
        if take:
            take(report)
        if on_progress:
            on_progress(done, total)
    if source.damaged_pages:
        wrong.append(("", f"pages are damaged, and items on them may be missing here ({source.damaged_pages})"))
    return Checked(total, tuple(wrong), tuple(damaged))


def _seconds_for(item: StoreItem) -> float:
    source, media_id = item
    try:
        with source.reading(media_id) as data:
            return seconds_allowed(len(data))
    except (DecodeError, StoreError):
        return seconds_allowed(0)


def scan_item(item: StoreItem) -> ItemReport:
    """Decode an item completely and return its records."""
    source, media_id = item
    try:
        if len(records.media_key(media_id)) > records.MAX_ID_BYTES:
            raise DecodeError(f"its media id has more than {records.MAX_ID_BYTES} bytes, the limit of media records")
        known, probed = media_records(media_id, source.read(media_id), source.kind)
    except (DecodeError, StoreError) as exc:
        return ItemReport(wrong=str(exc))
    return ItemReport(damaged=probed.info.failure if probed else "", records=known)


def _verify(item: StoreItem) -> ItemReport:
    source, media_id = item
    try:
        record = source.sound_record(media_id)
        if record is not None:
            # The checksum first: it also finds changes that decoders pass over, and it costs a hundredth of decoding.
            with source.reading(media_id) as data:
                if (record["bytes"], record["crc32"]) != (len(data), zlib.crc32(data)):
                    return ItemReport(wrong="its bytes are not those that were packed")
        found = scan_item(item)
        if found.wrong or record is None:
            return found
        keys = (records.info_key(media_id), records.packets_key(media_id))
        if any(source.stored(key) != found.records.get(key) for key in keys):
            return ItemReport(wrong="it decodes to other frames or packets than when it was packed")
        if info := source.info(media_id):
            # As training does it, which would refuse the video with the same message.
            with source.reading(media_id) as data:
                decode_frames(data, ((0, len(info.pts) - 1),), info=info, packets=source.packets(media_id))
    except (DecodeError, StoreError, ValueError) as exc:
        return ItemReport(wrong=str(exc))
    return found


def scan_store(store: Path, *, workers: int = 0, on_progress: Progress | None = None) -> Checked:
    """Add media records to a store that has none, or none of the current version, and whose pages are sound.

    Raises:
        StoreError: the store has media records of the current version, or cannot be opened.
        OutputError: the records cannot be written.
    """
    source = open_store(store)
    if source.has_records:
        raise StoreError(f"{store} has media records", hint=f"check them: clipbert store verify {store}")
    if not store.is_dir():
        raise StoreError(
            f"{store} is a single file, which clipbert does not change",
            hint=f"move it into a folder: mkdir FOLDER, mv {store} FOLDER/{DATA_FILE}, clipbert store scan FOLDER",
        )
    # Until the last item is read, a writer in the store could reuse pages that are being read, because LMDB is used
    # without its locks. The records are written elsewhere first.
    with writing_to(store), unfinished_store(store, add=True), scratch_folder(store / "scan") as scratch:
        with closing(StoreWriter(scratch)) as writer:

            def take(report: ItemReport) -> None:
                writer.put(report.records)
                if writer.is_full:
                    writer.commit()

            checked = examine(source, scan_item, workers=workers, on_progress=on_progress, take=take)
            writer.commit()
        # LMDB allows one environment per file and process.
        source.close()
        if not source.damaged_pages:  # LMDB cannot write among these
            manifest = records.manifest_record(kind=source.kind, ids=source.ids)
            _copy_records(scratch, store, manifest=manifest)
    return checked


def _copy_records(scratch: Path, store: Path, *, manifest: bytes) -> None:
    """Write the records into their store, in place of those of an older version.

    The manifest comes last: with it, readers take the records as complete.
    """
    with (
        lmdb.open(str(scratch), readonly=True, lock=False) as environment,
        environment.begin() as txn,
        closing(StoreWriter(store)) as writer,
    ):
        writer.put(dict.fromkeys(writer.keys(records.PREFIX)))
        writer.commit()
        for key, value in txn.cursor():
            writer.put({key: value})
            if writer.is_full:
                writer.commit()
        writer.commit()
        writer.put({records.MANIFEST_KEY: manifest})
        writer.commit()
