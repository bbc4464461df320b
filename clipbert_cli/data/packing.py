"""Media files -> one LMDB store, all or nothing."""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import lmdb

from clipbert_cli.data import records
from clipbert_cli.data.images import probe_image
from clipbert_cli.data.media_files import PLURAL, by_stem, find_files, guess_kind, has_suffix
from clipbert_cli.data.partial import partial_folder, remove_leftovers
from clipbert_cli.data.probe import Kind, inspect_video
from clipbert_cli.data.store import DATA_FILE
from clipbert_cli.errors import DecodeError, OutputError, StoreError

MAX_ITEM_BYTES = 2**32 - 1
"""Largest value of LMDB."""

_FIRST_MAP_BYTES = 2**28
_COMMIT_BYTES = 2**26
_OUT_OF_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True, slots=True)
class PackProgress:
    """How far a pack is: files done of `total`, and bytes read so far."""

    done: int
    total: int
    bytes: int


@dataclass(frozen=True, slots=True)
class PackSummary:
    """What a pack did.

    `skipped` are files that were left out and `damaged` are videos that were packed but do not decode to their end,
    each with the reason; `removed` are folders that a killed earlier pack had left.
    """

    store: Path
    kind: Kind
    packed: int
    bytes: int
    skipped: tuple[tuple[Path, str], ...] = field(repr=False)
    damaged: tuple[tuple[Path, str], ...] = field(repr=False)
    removed: tuple[Path, ...] = ()


def pack_media(
    sources: Sequence[Path],
    store: Path,
    *,
    kind: Kind | None = None,
    on_progress: Callable[[PackProgress], None] | None = None,
) -> PackSummary:
    """Pack media files into a new store; every item is decoded once, fully, on the way.

    Args:
        sources: files, which are tried whatever their name; and folders, searched for names with a usual ending.
        store: the store's folder; must not exist yet.
        kind: what the files hold; by default what their names' endings say.
        on_progress: called after each file.

    Raises:
        UsageError: a source does not exist, or videos and images are mixed and `kind` is None.
        StoreError: the store exists, another pack is writing it, no file is of this kind, two files have one stem, or
            not one file could be packed.
        OutputError: the store's place cannot be written, or its disk is full.
    """
    if os.path.lexists(store):
        raise StoreError(f"{store} exists, and packing never changes a store", hint="remove it, or choose another name")
    files = find_files(sources)
    kind = kind or guess_kind(files)
    named = {os.path.realpath(source) for source in sources if source.is_file()}
    media = by_stem(path for path in files if has_suffix(path, kind) or os.path.realpath(path) in named)
    if not media:
        raise StoreError(f"there are no {PLURAL[kind]} in {', '.join(map(str, sources))} ({len(files)} other files)")
    with _writing_to(store):
        removed = remove_leftovers(store)
        with partial_folder(store) as (folder, publish):
            summary = _write(media, folder, store=store, kind=kind, removed=removed, on_progress=on_progress)
            if not summary.packed:
                path, reason = summary.skipped[0]
                raise StoreError(
                    f"not one of {len(media)} files could be packed; the first: {path}: {reason}",
                    hint=f"check that these are {PLURAL[kind]} (--kind)",
                )
            publish()
    return summary


def _write(
    media: dict[str, Path],
    folder: Path,
    *,
    store: Path,
    kind: Kind,
    removed: tuple[Path, ...],
    on_progress: Callable[[PackProgress], None] | None,
) -> PackSummary:
    skipped: list[tuple[Path, str]] = []
    damaged: list[tuple[Path, str]] = []
    packed = packed_bytes = read_bytes = 0
    writer = _Writer(folder)
    try:
        writer.put({records.MANIFEST_KEY: records.manifest_record(kind=kind, complete=False)})
        for done, (media_id, path) in enumerate(sorted(media.items()), start=1):
            try:
                key, data = _media_key(media_id), _read(path)
                read_bytes += len(data)
                known, damage = _learn(media_id, data, kind)
            except DecodeError as exc:
                skipped.append((path, str(exc)))
            else:
                writer.put({key: data, **known})
                packed, packed_bytes = packed + 1, packed_bytes + len(data)
                if damage:
                    damaged.append((path, damage))
            if on_progress:
                on_progress(PackProgress(done, len(media), read_bytes))
        manifest = records.manifest_record(kind=kind, complete=True, items=packed, size=packed_bytes)
        writer.put({records.MANIFEST_KEY: manifest})
        writer.finish()
    finally:
        writer.close()
    return PackSummary(store, kind, packed, packed_bytes, tuple(skipped), tuple(damaged), removed)


def _media_key(media_id: str) -> bytes:
    try:
        return media_id.encode()
    except UnicodeEncodeError as exc:
        raise DecodeError("its name is not valid UTF-8") from exc


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_ITEM_BYTES:
            raise DecodeError("it is larger than 4 GiB, the most a store's item can be")
        if not path.is_file():
            raise DecodeError("it is not a regular file")
        return path.read_bytes()
    except OSError as exc:
        raise DecodeError(f"it cannot be read: {exc.strerror}") from exc


def _learn(media_id: str, data: bytes, kind: Kind) -> tuple[dict[bytes, bytes], str | None]:
    """An item's records, and what is wrong with an item that can be used nevertheless."""
    of_the_file = {"bytes": len(data), "crc32": zlib.crc32(data)}
    if kind == "image":
        return {records.info_key(media_id): records.image_record(probe_image(data), **of_the_file)}, None
    probed = inspect_video(data)
    damage = None
    if not probed.info.complete:
        damage = f"decoding fails after frame {len(probed.info.pts)}"
        if probed.info.num_frames:
            damage += f" of {probed.info.num_frames}"
    known = {records.info_key(media_id): records.video_record(probed, **of_the_file)}
    if probed.packets:
        known[records.packets_key(media_id)] = records.packets_record(probed.packets)
    return known, damage


class _Writer:
    """A new LMDB that grows as needed and is on the disk after `finish`."""

    def __init__(self, folder: Path) -> None:
        self._data_file = folder / DATA_FILE
        self._map_bytes = _FIRST_MAP_BYTES
        # One writer in a folder of its own needs no lock file; durability is made once, in `finish`.
        self._environment = lmdb.open(
            str(folder), map_size=self._map_bytes, mode=0o644, lock=False, sync=False, max_dbs=0
        )
        self._pending: dict[bytes, bytes] = {}
        self._pending_bytes = 0

    def put(self, items: dict[bytes, bytes]) -> None:
        self._pending |= items
        self._pending_bytes += sum(map(len, items.values()))
        if self._pending_bytes >= _COMMIT_BYTES:
            self._commit()

    def finish(self) -> None:
        self._commit()
        self._environment.sync(True)

    def close(self) -> None:
        self._environment.close()

    def _commit(self) -> None:
        while True:
            try:
                with self._environment.begin(write=True) as txn:
                    for key, value in self._pending.items():
                        txn.put(key, value)
            except lmdb.MapFullError:
                self._map_bytes = 2 * max(self._map_bytes, self._pending_bytes)
                self._environment.set_mapsize(self._map_bytes)
            except lmdb.Error:
                self._check_space()
                raise
            else:
                self._pending, self._pending_bytes = {}, 0
                return

    def _check_space(self) -> None:
        """Raises the OSError that stopped a write: LMDB calls a write that was cut short an input/output error."""
        with self._data_file.open("ab") as file:
            os.posix_fallocate(file.fileno(), file.tell(), max(1, self._pending_bytes))


@contextmanager
def _writing_to(store: Path) -> Iterator[None]:
    """Turns what goes wrong while writing into `OutputError`."""
    try:
        yield
    except (lmdb.Error, OSError) as exc:
        full = isinstance(exc, lmdb.DiskError) or getattr(exc, "errno", None) in _OUT_OF_SPACE
        reason = exc.strerror if isinstance(exc, OSError) else str(exc)
        raise OutputError(
            f"{store} cannot be written: {'there is no space left' if full else reason}",
            hint="free some space, or write elsewhere" if full else "choose a folder that you can write",
        ) from exc
