"""Pack media files into one LMDB store: what is refused, items, and the journal by which a stopped pack continues."""

from __future__ import annotations

import dataclasses
import json
import os
import zlib
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import lmdb

from clipbert_cli.errors import DecodeError, StoreError, UnreadableError, UsageError
from clipbert_cli.foreign import parse_json
from clipbert_cli.media.ffmpeg import MAX_PIXELS
from clipbert_cli.media.frame_folder import frame_files
from clipbert_cli.path_kinds import A_STORE, DATA_FILE, look_at, unlike
from clipbert_cli.store import discover, records
from clipbert_cli.store.environment import StoreWriter, writing_to
from clipbert_cli.store.ingest import Candidate, Ingested, PackSettings, Transcode, ingest, seconds_for
from clipbert_cli.store.lmdb_store import LmdbStore
from clipbert_cli.store.source import read_media_file
from clipbert_cli.store.unfinished import UnfinishedStore, unfinished_store
from clipbert_cli.store.worker_pool import Progress, WorkerCrash, in_order
from clipbert_cli.types import Kind, MediaIds, OnDuplicate

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


def _continues(place: UnfinishedStore, settings: PackSettings) -> bool:
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


class Packer:
    """Writes items in the order of their media ids, so that the store does not depend on the number of processes.

    What is finished is recorded in a journal, an LMDB of its own. The store's LMDB would keep the deleted records, with
    local paths and times, in its free pages: two packs of the same files would differ.
    """

    def __init__(
        self, place: UnfinishedStore, settings: PackSettings, *, writer: StoreWriter, journal: StoreWriter
    ) -> None:
        self.place, self.settings = place, settings
        self.writer, self.journal = writer, journal
        self.resumed = 0
        # Before the first item: a pack that is killed at any moment after it can be continued.
        self.journal.put({_SETTINGS_KEY: _as_json(settings)})
        self.journal.commit()

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
                hint=f"check that these are {discover.PLURAL[self.settings.kind]} (--kind)",
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


def _check_store(store: Path, *, add: bool) -> None:
    try:
        os.fspath(store).encode()
    except UnicodeEncodeError as exc:
        raise StoreError(f"{store} is not valid UTF-8, which LMDB needs", hint="choose another name") from exc
    if not add and os.path.lexists(store):
        if (store / DATA_FILE).is_file():
            raise StoreError(f"{store} exists", hint="add to it with --add, or choose another name")
        raise StoreError(
            f"{store} exists and is no store", hint="the new store comes last: clipbert pack FILES_OR_FOLDERS STORE"
        )
    if add and not (store / DATA_FILE).is_file():
        if A_STORE.takes(look_at(store)):
            raise StoreError(
                f"{store} is a single file, not a store to add to", hint="pack these files into a store of their own"
            )
        raise unlike(store, A_STORE, hint="leave --add out to make a new one")


def _candidates(media: Iterable[Path], sources: Sequence[Path], settings: PackSettings) -> list[Candidate]:
    """Return the media ids in order, each with its files."""
    groups = discover.group_by_media_id(media, sources, ids=settings.ids, are_folders=settings.frame_rate is not None)
    if settings.on_duplicate == "error":
        hint = "rename or leave out one of them, keep both with --id path, or choose one with --on-duplicate"
        if settings.kind == "image":
            hint += "; for folders of frames of videos: --frame-folders --fps N"
        discover.check_one_file_per_id(groups, hint=hint)
    if too_long := [media_id for media_id in groups if len(records.media_key(media_id)) > records.MAX_ID_BYTES]:
        file, size = groups[too_long[0]][0], len(records.media_key(too_long[0]))
        raise StoreError(
            f"{file}: its media id has {size} bytes, but a store takes at most {records.MAX_ID_BYTES}",
            hint="shorten the names of the folders, or name a folder that is nearer to the files",
        )
    return [Candidate(media_id, tuple(files), settings) for media_id, files in sorted(groups.items())]


def _check_addition(store: Path, settings: PackSettings, candidates: Iterable[Candidate]) -> None:
    """Raise StoreError if these candidates cannot be added to the store."""
    held = LmdbStore(store)
    if not held.has_records:
        raise StoreError(f"{store} has no media records", hint=f"add them first: clipbert store scan {store}")
    if held.kind != settings.kind:
        raise StoreError(
            f"{store} is a store of kind {held.kind!r}, not {settings.kind!r}",
            hint="pack these files into a store of their own",
        )
    if held.ids != settings.ids:
        raise StoreError(
            f"{store} was packed with --id {held.ids}, but the files are added with --id {settings.ids}",
            hint=f"add them with --id {held.ids}",
        )
    if settings.on_duplicate == "error":
        for candidate in candidates:
            if candidate.media_id in held:
                raise StoreError(
                    f"{store} has {candidate.media_id!r} already, and {candidate.files[0]} has the same media id",
                    hint="leave it out, or choose one with --on-duplicate first or longest",
                )


def pack_media(
    sources: Sequence[Path],
    store: Path,
    *,
    kind: Kind | None = None,
    add: bool = False,
    on_duplicate: OnDuplicate = "error",
    transcode: Transcode | None = None,
    max_pixels: int = MAX_PIXELS,
    frame_rate: Fraction | None = None,
    ids: MediaIds = "stem",
    workers: int = 0,
    on_progress: Progress | None = None,
) -> PackSummary:
    """Pack media files into a store. Every file is decoded once completely.

    If an earlier call was stopped, the same call continues it.

    Args:
        sources: files, which are packed whatever their names are, and folders, which are searched for names with the
            usual endings.
        store: the store's folder, which must not exist; with `add` it must.
        kind: what the files hold; by default the endings of their names decide.
        add: add to an existing store, which nobody may read meanwhile.
        on_duplicate: of files with one media id, `error` takes none, `first` the first by path, `longest` the video
            that is shown longest; with `add` an item that is in the store stays.
        transcode: re-encode the videos with these settings.
        max_pixels: skip images and videos with more pixels per frame.
        frame_rate: the sources are folders of folders of images, and each of these is a video of this rate.
        ids: whether a file is known by its name or by its path from the source in which it was found.
        workers: number of processes that decode; 0 decodes in this one.
        on_progress: called after each media id.

    Raises:
        UsageError: a source does not exist, videos and images are mixed and `kind` is None, or settings contradict each
            other.
        StoreError: the store exists (does not, with `add`), another pack is writing it, no file is of this kind, two
            files have one media id, or no file could be packed.
        OutputError: the store cannot be written.
    """
    _check_store(store, add=add)
    if kind == "image" and frame_rate is not None:
        raise UsageError("--frame-folders makes videos, but --kind is image", hint="leave one of them out")
    media, not_taken, kind = discover.find_media(sources, kind=kind, are_folders=frame_rate is not None)
    if kind == "image" and (transcode or on_duplicate == "longest"):
        raise UsageError("--transcode and --on-duplicate longest are for videos", hint="leave them out for images")
    settings = PackSettings(kind, add, on_duplicate, transcode, max_pixels, frame_rate, ids)
    candidates = _candidates(media, sources, settings)
    with writing_to(store), unfinished_store(store, add=add) as place:
        # Everything that can be refused is checked before the first file is opened for writing.
        is_continued = _continues(place, settings)
        if add:
            _check_addition(store, settings, () if is_continued else candidates)
        with closing(StoreWriter(place.folder)) as writer, closing(StoreWriter(place.journal)) as journal:
            packer = Packer(place, settings, writer=writer, journal=journal)
            packer.run(candidates, workers=workers, on_progress=on_progress)
            summary = packer.finish(candidates)
        place.publish()
    return dataclasses.replace(summary, not_taken=tuple(not_taken))
