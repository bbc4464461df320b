"""Media files -> one LMDB store: complete or absent, and continued where a pack was stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import lmdb

from clipbert_cli.errors import DecodeError, StoreError, UnreadableError, UsageError
from clipbert_cli.foreign import parse_json
from clipbert_cli.media.ffmpeg import MAX_PIXELS
from clipbert_cli.media.frame_folder import frame_files
from clipbert_cli.store import records
from clipbert_cli.store.discover import (
    PLURAL,
    check_one_file_per_id,
    find_files,
    find_frame_folders,
    group_by_media_id,
    guess_kind,
    has_suffix,
)
from clipbert_cli.store.ingest import Candidate, Ingested, ingest, read_file, seconds_for, shown_seconds
from clipbert_cli.store.lmdb_store import LmdbStore, is_lmdb, records_beside
from clipbert_cli.store.transcode import Transcode
from clipbert_cli.store.unfinished import UnfinishedStore, unfinished_store
from clipbert_cli.store.worker_pool import WorkerCrash, in_order
from clipbert_cli.store.writer import DATA_FILE, StoreWriter, writing_to
from clipbert_cli.types import Kind, MediaIds, OnDuplicate

Progress = Callable[[int, int], None]
"""Called with the number of finished media ids and the number of all."""

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
        on_duplicate: of files with one media id, `error` takes none, `first` the first by path (with `add` the item in
            the store), `longest` the video that is shown longest.
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
    media, not_taken, kind = _find_media(sources, kind) if frame_rate is None else _find_frame_folders(sources, kind)
    if kind == "image" and (transcode or on_duplicate == "longest"):
        raise UsageError("--transcode and --on-duplicate longest are for videos", hint="leave them out for images")
    settings = _Settings(kind, add, on_duplicate, transcode, max_pixels, frame_rate, ids)
    candidates = _candidates(media, sources, settings)
    with writing_to(store), unfinished_store(store, add=add) as place:
        # Everything that can be refused is checked before the first file is opened for writing.
        is_continued = _check_settings(place, settings)
        if add:
            _check_addition(store, settings, () if is_continued else candidates)
        with _Packer(place, settings) as packer:
            try:
                packer.run(candidates, workers=workers, on_progress=on_progress)
                summary = packer.finish(candidates)
            except (lmdb.Error, OSError):
                # What was added so far is whole. Without a complete manifest the store would be lost to its readers.
                # The journal stays, so that the same command goes on when there is space again.
                if add:
                    with contextlib.suppress(lmdb.Error, OSError):
                        packer.complete(transcode=None)
                raise
            except Exception:
                if add:
                    packer.complete(transcode=None)
                    place.publish()
                raise
        place.publish()
    return dataclasses.replace(summary, not_taken=tuple(not_taken))


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
        raise StoreError(f"{store} is not a store to add to", hint="leave --add out to make a new one")


def _find_media(sources: Sequence[Path], kind: Kind | None) -> tuple[list[Path], list[Path], Kind]:
    """Return the files to pack, the other files of the sources, and the kind."""
    files = find_files(sources)
    kind = kind or guess_kind(files)
    named = {os.path.realpath(source) for source in sources if source.is_file()}
    media = [path for path in files if has_suffix(path, kind) or os.path.realpath(path) in named]
    if not media:
        raise StoreError(
            f"there are no {PLURAL[kind]} in {', '.join(map(str, sources))} ({len(files)} other files)",
            hint="name the folder that holds them, or choose another --kind",
        )
    taken = set(media)
    return media, [path for path in files if path not in taken], kind


def _find_frame_folders(sources: Sequence[Path], kind: Kind | None) -> tuple[list[Path], list[Path], Kind]:
    """Return what `_find_media` returns; the media are folders of frames."""
    if kind == "image":
        raise UsageError("--frame-folders makes videos, but --kind is image", hint="leave one of them out")
    folders, others = find_frame_folders(sources)
    if not folders:
        raise StoreError(
            f"there are no folders of images in {', '.join(map(str, sources))} ({len(others)} other files)",
            hint="name the folder that holds one folder of frames per video",
        )
    return folders, others, "video"


@dataclass(frozen=True, slots=True)
class _Settings:
    kind: Kind
    add: bool
    on_duplicate: OnDuplicate
    transcode: Transcode | None
    max_pixels: int
    frame_rate: Fraction | None
    ids: MediaIds


def _candidates(media: Iterable[Path], sources: Sequence[Path], settings: _Settings) -> list[Candidate]:
    """Return the media ids in order, each with its files."""
    groups = group_by_media_id(media, sources, ids=settings.ids, are_folders=settings.frame_rate is not None)
    if settings.on_duplicate == "error":
        hint = "rename or leave out one of them, keep both with --id path, or choose one with --on-duplicate"
        if settings.kind == "image":
            hint += "; for folders of frames of videos: --frame-folders --fps N"
        check_one_file_per_id(groups, hint=hint)
    if too_long := [media_id for media_id in groups if len(records.media_key(media_id)) > records.MAX_ID_BYTES]:
        file, size = groups[too_long[0]][0], len(records.media_key(too_long[0]))
        raise StoreError(
            f"{file}: its media id has {size} bytes, but a store takes at most {records.MAX_ID_BYTES}",
            hint="shorten the names of the folders, or name a folder that is nearer to the files",
        )
    return [
        Candidate(
            media_id,
            tuple(files),
            kind=settings.kind,
            longest=settings.on_duplicate == "longest",
            transcode=settings.transcode,
            max_pixels=settings.max_pixels,
            frame_rate=settings.frame_rate,
        )
        for media_id, files in sorted(groups.items())
    ]


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


def _as_json(settings: _Settings) -> bytes:
    return json.dumps(dataclasses.asdict(settings), default=str).encode()


def _check_settings(place: UnfinishedStore, settings: _Settings) -> bool:
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


def _check_addition(store: Path, settings: _Settings, candidates: Iterable[Candidate]) -> None:
    """Raise StoreError if these candidates cannot be added to the store."""
    held = LmdbStore(store, complete=False)
    if is_lmdb(records_beside(store)):
        raise StoreError(
            f"{store} has its media records in {records_beside(store)}, which an addition does not reach",
            hint=f"remove {records_beside(store)}, then: clipbert store scan {store}",
        )
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


class _Packer(contextlib.AbstractContextManager["_Packer"]):
    """Writes items in the order of their media ids, so that the store does not depend on the number of processes.

    What is finished is recorded in a journal, an LMDB of its own. The store's LMDB would keep the deleted records, with
    local paths and times, in its free pages: two packs of the same files would differ.
    """

    def __init__(self, place: UnfinishedStore, settings: _Settings) -> None:
        self.place, self.settings = place, settings
        self.resumed = 0
        # The store's and the journal's records of each media id since the last commit.
        self._uncommitted: list[tuple[dict[bytes, bytes | None], dict[bytes, bytes | None]]] = []
        with contextlib.ExitStack() as stack:
            self.writer = stack.enter_context(contextlib.closing(StoreWriter(place.folder)))
            self.journal = stack.enter_context(contextlib.closing(StoreWriter(place.journal)))
            self._open = stack.pop_all()
        # Before the first item: a pack that is killed at any moment after it can be continued.
        self.journal.put({_SETTINGS_KEY: _as_json(settings)})
        self.journal.commit()
        held = self._manifest()
        self._is_marked = held is not None and not held["complete"]

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
        """Mark the store as complete.

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
        self.complete(transcode=self.settings.transcode)
        store, kind = self.place.store, self.settings.kind
        return PackSummary(store, kind, packed, size, tuple(skipped), tuple(damaged), self.resumed)

    def complete(self, *, transcode: Transcode | None) -> None:
        """Write the manifest of a complete store; what is not committed is forgotten."""
        self.writer.discard()
        if not self._is_marked:
            return  # nothing was added
        held = self._manifest()
        items, size = self.writer.count_media(without=records.PREFIX)
        how = dataclasses.asdict(transcode) if transcode else held and held.get("transcode")
        manifest = records.manifest_record(
            kind=self.settings.kind, complete=True, ids=self.settings.ids, items=items, size=size, transcode=how
        )
        self.writer.put({records.MANIFEST_KEY: manifest})
        self.writer.commit()

    def _manifest(self) -> dict[str, Any] | None:
        record = self.writer.get(records.MANIFEST_KEY)
        return None if record is None else records.manifest(record)

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
        self._put(items, {records.media_key(candidate.media_id): record})

    def _put(self, items: dict[bytes, bytes | None], record: dict[bytes, bytes | None]) -> None:
        self.writer.put(items)
        self.journal.put(record)
        self._uncommitted.append((items, record))

    def _item(self, candidate: Candidate, ingested: Ingested, file: Path) -> tuple[int, dict[bytes, bytes | None]]:
        """Return the size and the records of an item.

        Raises:
            DecodeError: it is not to be written; the message says why.
        """
        self._check_held(candidate, ingested)
        data = read_file(file) if ingested.data is None else ingested.data
        if zlib.crc32(data) != ingested.crc32:
            raise DecodeError("it changed while it was packed")
        mark: dict[bytes, bytes | None] = {}
        if not self._is_marked:
            # With the first item and not before: an addition that adds nothing leaves the store as it was.
            self._is_marked = True
            transcode = (self._manifest() or {}).get("transcode")
            manifest = records.manifest_record(
                kind=self.settings.kind, complete=False, ids=self.settings.ids, transcode=transcode
            )
            mark = {records.MANIFEST_KEY: manifest}
        # An item that is replaced may have had a packet table that the new one does not have.
        old_packets = {records.packets_key(candidate.media_id): None}
        media = {records.media_key(candidate.media_id): data}
        return len(data), {**mark, **media, **old_packets, **ingested.records}

    def _check_held(self, candidate: Candidate, ingested: Ingested) -> None:
        """Raise DecodeError if an item that the store had before (`add`) is kept."""
        if not self.settings.add or records.media_key(candidate.media_id) not in self.writer:
            return
        # The item is of this addition, which was stopped, and its file has changed since.
        if self._outcome(candidate) is not None:
            return
        if self.settings.on_duplicate == "longest" and self._held_seconds(candidate.media_id) < ingested.seconds:
            return
        raise DecodeError(_HELD)

    def _held_seconds(self, media_id: str) -> float:
        """Return the seconds of a video that the store has; infinite if they are not known."""
        key = records.info_key(media_id)
        value = self.writer.get(key) if self.settings.kind == "video" else None
        try:
            return math.inf if value is None else shown_seconds(records.video_info(records.unsealed(key, value)))
        except records.DAMAGED:
            return math.inf

    def _commit(self) -> None:
        """Write what was put.

        Raises:
            lmdb.Error, OSError: it cannot be written; as much of it as there is space for is.
        """
        try:
            self._commit_both()
        except (lmdb.Error, OSError):
            with contextlib.suppress(lmdb.Error, OSError):
                self._commit_one_by_one()
            raise
        self._uncommitted.clear()

    def _commit_one_by_one(self) -> None:
        for items, record in self._uncommitted:
            self.writer.discard()
            self.journal.discard()
            self.writer.put(items)
            self.journal.put(record)
            self._commit_both()

    def _commit_both(self) -> None:
        # In this order: after a kill in between, items are packed again, but none is missing that the journal has.
        self.writer.commit()
        self.journal.commit()
        self.place.holds_items |= bool(self._uncommitted)


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
