"""Write the items of a store and a journal of them, by which a stopped pack is continued."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lmdb

from clipbert_cli.errors import DecodeError, StoreError, UnreadableError
from clipbert_cli.foreign import parse_json
from clipbert_cli.media.frame_folder import frame_files
from clipbert_cli.path_kinds import DATA_FILE
from clipbert_cli.store import records
from clipbert_cli.store.discover import PLURAL
from clipbert_cli.store.environment import StoreWriter
from clipbert_cli.store.ingest import Candidate, Ingested, PackSettings, ingest, seconds_for
from clipbert_cli.store.source import read_media_file
from clipbert_cli.store.unfinished import UnfinishedStore
from clipbert_cli.store.worker_pool import Progress, WorkerCrash, in_order
from clipbert_cli.types import Kind

_SETTINGS_KEY = b"/settings"
"""The journal's key of the settings; no media id begins with a slash."""

_HELD = "the store has this media id already"


@dataclass(frozen=True, slots=True)
class PackSummary:
    """The result of a pack.

    `skipped` are files that were left out and `damaged` are videos that were packed but do not decode to their end,
    each with the reason; `not_taken` are files of the sources whose endings are not those of media of this kind;
    `resumed` counts the media ids that were finished by an earlier pack, which was stopped.
    """

    store: Path
    kind: Kind
    packed: int
    bytes: int
    skipped: tuple[tuple[Path, str], ...] = field(repr=False)
    damaged: tuple[tuple[Path, str], ...] = field(repr=False)
    resumed: int = 0
    not_taken: tuple[Path, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The journal's record of one finished media id.

    Args:
        files: [path, bytes, time of change in ns] of each of its source files.
        bytes: size of the packed item; None if no file was packed.
        skipped: [path, reason] of each file that was left out.
        damaged: [path, reason] of a packed file that does not decode to its end.
    """

    files: list[list[Any]]
    bytes: int | None
    skipped: list[list[str]]
    damaged: list[str] | None


def _as_json(settings: PackSettings) -> bytes:
    return json.dumps(dataclasses.asdict(settings), default=str).encode()


def continues(place: UnfinishedStore, settings: PackSettings) -> bool:
    """Return whether this pack continues one that was stopped.

    Raises:
        StoreError: the other one had other settings.
    """
    data_file = place.journal / DATA_FILE
    # A pack that was killed while it created the file leaves it empty, which LMDB cannot open for reading.
    if not data_file.is_file() or not data_file.stat().st_size:
        return False
    with lmdb.open(str(place.journal), readonly=True, lock=False) as journal, journal.begin() as txn:
        before, now = txn.get(_SETTINGS_KEY), _as_json(settings)
    if before not in (None, now):
        begun = place.journal if settings.add else place.folder
        raise StoreError(
            f"packing {place.store} was stopped and had other settings: {before.decode()}, now {now.decode()}",
            hint=f"give the settings of then, or remove {begun} to start again",
        )
    return before is not None


class Packer(contextlib.AbstractContextManager["Packer"]):
    """Writes items in the order of their media ids, so that the store does not depend on the number of processes.

    What is finished is recorded in a journal, an LMDB of its own. The store's LMDB would keep the deleted records, with
    local paths and times, in its free pages: two packs of the same files would differ.
    """

    def __init__(self, place: UnfinishedStore, settings: PackSettings) -> None:
        self.place, self.settings = place, settings
        self.resumed = 0
        with contextlib.ExitStack() as stack:
            self.writer = stack.enter_context(contextlib.closing(StoreWriter(place.folder)))
            self.journal = stack.enter_context(contextlib.closing(StoreWriter(place.journal)))
            self._open = stack.pop_all()
        # Before the first item: a pack that is killed at any moment after it can be continued.
        self.journal.put({_SETTINGS_KEY: _as_json(settings)})
        self.journal.commit()

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def run(self, candidates: Sequence[Candidate], *, workers: int, on_progress: Progress | None) -> None:
        """Pack every candidate that is not finished."""
        # A generator: asking for all outcomes first would delay the first worker by minutes in a large store.
        todo = (candidate for candidate in candidates if not self._is_finished(candidate))
        ingested_in_order = in_order(ingest, todo, workers=min(workers, len(candidates)), limit=seconds_for)
        for done, (candidate, ingested) in enumerate(ingested_in_order, start=1):
            self._take(candidate, ingested)
            if self.writer.is_full or self.journal.is_full:
                self._commit()
            if on_progress:
                on_progress(done + self.resumed, len(candidates))
        self._commit()

    def finish(self, candidates: Sequence[Candidate]) -> PackSummary:
        """Write the manifest, which makes the store complete.

        Raises:
            StoreError: no file could be packed, and none is in the store already.
        """
        packed = size = 0
        skipped: list[tuple[Path, str]] = []
        damaged: list[tuple[Path, str]] = []
        for candidate in candidates:
            outcome = self._outcome(candidate)
            assert outcome is not None
            skipped += ((Path(path), reason) for path, reason in outcome.skipped)
            if outcome.bytes is not None:
                packed, size = packed + 1, size + outcome.bytes
            if outcome.damaged:
                damaged.append((Path(outcome.damaged[0]), outcome.damaged[1]))
        if not packed and all(reason != _HELD for _, reason in skipped):
            path, reason = skipped[0]
            raise StoreError(
                f"none of {len(skipped)} files could be packed; the first: {path}: {reason}",
                hint=f"check that these are {PLURAL[self.settings.kind]} (--kind)",
            )
        store, kind, transcode = self.place.store, self.settings.kind, self.settings.transcode
        # A store that is added to has a manifest, which says how its first videos were re-encoded.
        if records.MANIFEST_KEY not in self.writer or (packed and transcode):
            how = dataclasses.asdict(transcode) if transcode else None
            manifest = records.manifest_record(kind=kind, ids=self.settings.ids, transcode=how)
            self.writer.put({records.MANIFEST_KEY: manifest})
            self.writer.commit()
        return PackSummary(store, kind, packed, size, tuple(skipped), tuple(damaged), self.resumed)

    def _outcome(self, candidate: Candidate) -> _Outcome | None:
        record = self.journal.get(records.media_key(candidate.media_id))
        try:
            return None if record is None else _Outcome(**parse_json(record, "the journal", line=None))
        except (UnreadableError, TypeError):  # it was damaged: the candidate is packed once more
            return None

    def _is_finished(self, candidate: Candidate) -> bool:
        """Return whether an earlier pack finished the candidate with the same, unchanged files."""
        outcome = self._outcome(candidate)
        if outcome is None or outcome.files != _identities(candidate):
            return False
        self.resumed += 1
        return True

    def _take(self, candidate: Candidate, ingested: Ingested | WorkerCrash) -> None:
        """Write an item, or why there is none."""
        if isinstance(ingested, WorkerCrash):
            ingested = Ingested(None, skipped=tuple((file, str(ingested)) for file in candidate.files))
        skipped = [[str(file), reason] for file, reason in ingested.skipped]
        size = None
        items: dict[bytes, bytes | None] = {}
        if ingested.file is not None:
            try:
                size, items = self._item(candidate, ingested, ingested.file)
            except DecodeError as exc:
                skipped.append([str(ingested.file), str(exc)])
        damaged = [str(ingested.file), ingested.damage] if size is not None and ingested.damage else None
        outcome = _Outcome(_identities(candidate), size, skipped, damaged)
        # ASCII, because a path that is not UTF-8 has surrogates, which have no other encoding.
        record = json.dumps(dataclasses.asdict(outcome)).encode()
        self.writer.put(items)
        self.journal.put({records.media_key(candidate.media_id): record})

    def _item(self, candidate: Candidate, ingested: Ingested, file: Path) -> tuple[int, dict[bytes, bytes | None]]:
        """Return the size and the records of an item.

        Raises:
            DecodeError: it is not to be written; the message says why.
        """
        media_id = candidate.media_id
        # An item with an outcome is of this addition, which was stopped, and its file has changed since.
        if self.settings.add and self._outcome(candidate) is None and records.media_key(media_id) in self.writer:
            raise DecodeError(_HELD)
        data = read_media_file(file) if ingested.data is None else ingested.data
        if zlib.crc32(data) != ingested.crc32:
            raise DecodeError("it changed while it was packed")
        # An item that is replaced may have had a packet table that the new one does not have.
        old_packets = {records.packets_key(media_id): None}
        return len(data), {records.media_key(media_id): data, **old_packets, **ingested.records}

    def _commit(self) -> None:
        # In this order: after a kill in between, items are packed again, but none is missing that the journal has.
        self.writer.commit()
        self.journal.commit()
        self.place.holds_items = True


def _identities(candidate: Candidate) -> list[list[Any]]:
    """Return [path, bytes, time of change in ns] of each file, to see after a stop whether it has changed."""
    return [[str(file), *_identity(file)] for file in candidate.files]


def _identity(file: Path) -> tuple[int, int]:
    try:
        states = [path.stat() for path in (file, *(frame_files(file) if file.is_dir() else ()))]
    except OSError:
        return -1, -1
    # A folder counts as its frames do together.
    return sum(state.st_size for state in states), max(state.st_mtime_ns for state in states)
