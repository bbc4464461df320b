"""Media files -> one LMDB store: whole or not at all, and resumed where a pack was stopped."""

from __future__ import annotations

import dataclasses
import os
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from clipbert_cli.errors import DecodeError, StoreError, UsageError
from clipbert_cli.store import records
from clipbert_cli.store.discover import PLURAL, find_files, guess_kind, has_suffix
from clipbert_cli.store.ingest import Learned, Unit, learn, read_file, seconds_for, seconds_of
from clipbert_cli.store.lmdb_store import stored_manifest
from clipbert_cli.store.pack_state import Entry, Journal, Workplace, workplace
from clipbert_cli.store.transcode import Transcode
from clipbert_cli.store.worker_pool import Died, in_order
from clipbert_cli.store.writer import StoreWriter, writing_to
from clipbert_cli.types import Kind

OnDuplicate = Literal["error", "first", "longest"]


@dataclass(frozen=True, slots=True)
class PackProgress:
    """How far a pack is: files done of `total`, and bytes packed so far."""

    done: int
    total: int
    bytes: int


@dataclass(frozen=True, slots=True)
class PackSummary:
    """What a pack did.

    `skipped` are files that were left out and `damaged` are videos that were packed but do not decode to their end,
    each with the reason; `resumed` counts the media ids that an earlier pack, which was stopped, had done.
    """

    store: Path
    kind: Kind
    packed: int
    bytes: int
    skipped: tuple[tuple[Path, str], ...] = field(repr=False)
    damaged: tuple[tuple[Path, str], ...] = field(repr=False)
    resumed: int = 0


def pack_media(
    sources: Sequence[Path],
    store: Path,
    *,
    kind: Kind | None = None,
    add: bool = False,
    on_duplicate: OnDuplicate = "error",
    transcode: Transcode | None = None,
    workers: int = 0,
    on_progress: Callable[[PackProgress], None] | None = None,
) -> PackSummary:
    """Pack media files into a store; every file is decoded once, fully, on the way.

    What a pack that was stopped had done is kept: the same call goes on from there.

    Args:
        sources: files, which are tried whatever their name; and folders, searched for names with a usual ending.
        store: the store's folder; must not exist yet, and must with `add`.
        kind: what the files hold; by default what their names' endings say.
        add: add to a store. Nobody should read it meanwhile.
        on_duplicate: of files with one media id, `error` takes none, `first` the first by path (with `add` what the
            store has), `longest` the video that is shown longest.
        transcode: re-encode videos.
        workers: decoding processes; 0 decodes in this one.
        on_progress: called after each media id.

    Raises:
        UsageError: a source does not exist, videos and images are mixed and `kind` is None, or settings that do not
            go together.
        StoreError: the store exists (does not, with `add`), another pack is writing it, no file is of this kind, two
            files have one stem, or not one file could be packed.
        OutputError: the store's place cannot be written, or its disk is full.
    """
    _check_store(store, add=add)
    media, kind = _find_media(sources, kind)
    if kind == "image" and (transcode or on_duplicate == "longest"):
        raise UsageError("--transcode and --on-duplicate longest are for videos", hint="leave them out for images")
    units = _units(media, kind, on_duplicate, transcode)
    settings = {
        "kind": kind,
        "on_duplicate": on_duplicate,
        "transcode": None if transcode is None else dataclasses.asdict(transcode),
    }
    with writing_to(store), workplace(store, add=add) as place:
        journal = Journal(place.journal, settings)
        writer = StoreWriter(place.folder)
        try:
            packer = _Packer(place, writer, journal, kind=kind, add=add, on_duplicate=on_duplicate)
            packer.run(units, workers=workers, on_progress=on_progress)
            summary = packer.finish(units, transcode)
        except Exception:
            if add:  # what was added so far is whole: the store stays as usable as it was
                packer.complete(None)
                place.publish()
            raise
        finally:
            writer.close()
            journal.close()
        place.publish()
    return summary


def _check_store(store: Path, *, add: bool) -> None:
    if not add:
        if os.path.lexists(store):
            raise StoreError(f"{store} exists", hint="add to it with --add, remove it, or choose another name")
        return
    if not store.is_dir():
        raise StoreError(f"{store} is not a store to add to", hint="leave --add out to make a new one")
    if stored_manifest(store) is None:
        raise StoreError(f"{store} has no media records", hint=f"add them first: clipbert store scan {store}")


def _find_media(sources: Sequence[Path], kind: Kind | None) -> tuple[list[Path], Kind]:
    files = find_files(sources)
    kind = kind or guess_kind(files)
    named = {os.path.realpath(source) for source in sources if source.is_file()}
    media = [path for path in files if has_suffix(path, kind) or os.path.realpath(path) in named]
    if not media:
        raise StoreError(f"there are no {PLURAL[kind]} in {', '.join(map(str, sources))} ({len(files)} other files)")
    return media, kind


def _units(media: Iterable[Path], kind: Kind, on_duplicate: OnDuplicate, transcode: Transcode | None) -> list[Unit]:
    """The media ids in order, each with its files."""
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for path in media:
        by_stem[path.stem].append(path)
    if on_duplicate == "error":
        clashes = [files for files in by_stem.values() if len(files) > 1]
        if clashes:
            more = f" (and {len(clashes) - 1} more such media ids)" if len(clashes) > 1 else ""
            raise StoreError(
                f"two files have one media id {clashes[0][0].stem!r}: {clashes[0][0]} and {clashes[0][1]}{more}",
                hint="rename or leave out one of them, or say which to take: --on-duplicate first or longest",
            )
    longest = on_duplicate == "longest"
    return [Unit(media_id, tuple(files), kind, longest, transcode) for media_id, files in sorted(by_stem.items())]


class _Packer:
    """Writes what became of each unit, in their order, whatever the number of processes."""

    def __init__(
        self,
        place: Workplace,
        writer: StoreWriter,
        journal: Journal,
        *,
        kind: Kind,
        add: bool,
        on_duplicate: OnDuplicate,
    ) -> None:
        self.place, self.writer, self.journal = place, writer, journal
        self.kind, self.add, self.on_duplicate = kind, add, on_duplicate
        self.resumed = 0
        self.bytes = 0

    def run(self, units: Sequence[Unit], *, workers: int, on_progress: Callable[[PackProgress], None] | None) -> None:
        """Pack every unit that is not done."""
        if not self.journal.resumed:
            held = self._manifest()
            if held and held["kind"] != self.kind:
                raise StoreError(f"{self.place.store} is a store of kind {held['kind']!r}, not {self.kind!r}")
            self._check_duplicates(units)
            how = held and held.get("transcode")
            manifest = records.manifest_record(kind=self.kind, complete=False, transcode=how)
            self.writer.put({records.MANIFEST_KEY: manifest})
            self.writer.commit()
            self.journal.write()
        todo = (unit for unit in units if not self._is_done(unit))
        learned_in_order = in_order(learn, todo, workers=min(workers, len(units)), limit=seconds_for)
        for done, (unit, learned) in enumerate(learned_in_order, start=1):
            self._take(unit, learned)
            if self.writer.is_full:
                self._commit()
            if on_progress:
                on_progress(PackProgress(done + self.resumed, len(units), self.bytes))
        self._commit()

    def finish(self, units: Sequence[Unit], transcode: Transcode | None) -> PackSummary:
        """Mark the store complete."""
        entries = [self.journal.done[unit.media_id] for unit in units]
        packed = [entry for entry in entries if entry.bytes is not None]
        skipped = [(Path(path), reason) for entry in entries for path, reason in entry.skipped]
        if not packed and not self.add:
            path, reason = skipped[0]
            raise StoreError(
                f"not one of {len(skipped)} files could be packed; the first: {path}: {reason}",
                hint=f"check that these are {PLURAL[self.kind]} (--kind)",
            )
        self.complete(transcode)
        damaged = [(Path(entry.damage[0]), entry.damage[1]) for entry in packed if entry.damage]
        total = sum(entry.bytes or 0 for entry in packed)
        return PackSummary(
            self.place.store, self.kind, len(packed), total, tuple(skipped), tuple(damaged), self.resumed
        )

    def complete(self, transcode: Transcode | None) -> None:
        """Write the manifest of a finished store; what is not committed is forgotten."""
        self.writer.discard()
        held = self._manifest()
        items, size = self.writer.count_media(without=records.PREFIX)
        how = dataclasses.asdict(transcode) if transcode else held and held.get("transcode")
        manifest = records.manifest_record(kind=self.kind, complete=True, items=items, size=size, transcode=how)
        self.writer.put({records.MANIFEST_KEY: manifest})
        self.writer.commit()

    def _manifest(self) -> dict[str, Any] | None:
        record = self.writer.get(records.MANIFEST_KEY)
        return None if record is None else records.manifest(record)

    def _check_duplicates(self, units: Sequence[Unit]) -> None:
        """Of what the store has already."""
        if self.on_duplicate != "error" or not self.add:
            return
        for unit in units:
            if self._held(unit):
                raise StoreError(
                    f"{self.place.store} has {unit.media_id!r} already, and {unit.files[0]} has the same media id",
                    hint="leave it out, or say which to take: --on-duplicate first or longest",
                )

    def _held(self, unit: Unit) -> bool:
        try:
            return unit.media_id.encode() in self.writer
        except UnicodeEncodeError:
            return False

    def _is_done(self, unit: Unit) -> bool:
        """Whether an earlier pack did it, from these very files."""
        entry = self.journal.done.get(unit.media_id)
        if entry is None or entry.files != tuple(_identity(file) for file in unit.files):
            return False
        self.resumed += 1
        self.bytes += entry.bytes or 0
        return True

    def _take(self, unit: Unit, learned: Learned | Died) -> None:
        files = tuple(_identity(file) for file in unit.files)
        if isinstance(learned, Died):
            self.journal.add(Entry(unit.media_id, files, None, tuple((str(file), str(learned)) for file in unit.files)))
            return
        skipped = [(str(file), reason) for file, reason in learned.skipped]
        size = None
        try:
            if learned.file is not None and (reason := self._not_taken(unit, learned)):
                skipped.append((str(learned.file), reason))
            elif learned.file is not None:
                size = self._put(unit, learned, learned.file)
        except DecodeError as exc:
            skipped.append((str(learned.file), str(exc)))
        damage = (str(learned.file), learned.damage) if size is not None and learned.damage else None
        self.bytes += size or 0
        self.journal.add(Entry(unit.media_id, files, size, tuple(skipped), damage))

    def _not_taken(self, unit: Unit, learned: Learned) -> str | None:
        """Why a store's own item stays (`add`)."""
        if not self.add or unit.media_id in self.journal.done or not self._held(unit):
            return None
        if self.on_duplicate == "longest":
            record = self.writer.get(records.info_key(unit.media_id))
            if record is not None and seconds_of(records.video_info(record)) < learned.length:
                return None
        return "the store has this media id already"

    def _put(self, unit: Unit, learned: Learned, file: Path) -> int:
        data = read_file(file) if learned.data is None else learned.data
        if zlib.crc32(data) != learned.crc32:
            raise DecodeError("it changed while it was packed")
        try:
            key = unit.media_id.encode()
        except UnicodeEncodeError as exc:
            raise DecodeError("its name is not valid UTF-8") from exc
        self.writer.put({key: data, records.packets_key(unit.media_id): None, **learned.records})
        return len(data)

    def _commit(self) -> None:
        self.writer.commit()
        self.journal.write()


def _identity(file: Path) -> tuple[str, int, int]:
    try:
        status = file.stat()
    except OSError:
        return str(file), -1, -1
    return str(file), status.st_size, status.st_mtime_ns
