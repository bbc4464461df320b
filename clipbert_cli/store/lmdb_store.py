"""Reading the media of one LMDB, and opening whatever is at a path: an LMDB or a folder of files.

A store that `clipbert pack` wrote has media records (see `records.py`). A store of the original layout has none, nor
has a folder: their videos are probed when they are first used, which decodes each of them once more.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import lmdb

from clipbert_cli.errors import DecodeError, StoreError
from clipbert_cli.media.images import probe_image
from clipbert_cli.media.packets import PacketTable
from clipbert_cli.path_kinds import A_STORE, DATA_FILE, MEDIA, PathKind, look_at, unlike
from clipbert_cli.store import discover, records
from clipbert_cli.store.environment import Environment, open_environment
from clipbert_cli.store.source import MediaFolder, MediaSource
from clipbert_cli.store.unfinished import check_not_being_written
from clipbert_cli.types import Kind, MediaIds, MediaNames, VideoInfo

_Parsed = TypeVar("_Parsed")

_DAMAGED_PAGE = (lmdb.CorruptedError, lmdb.PageNotFoundError)
"""The errors of a page that is damaged; other pages can be read."""

_log = logging.getLogger("clipbert.store")


def open_media(
    path: Path, *, kind: Kind | None, frame_rate: float | None = None, names: MediaNames = "stem"
) -> MediaSource:
    """Open the media at `path`: an LMDB folder, an LMDB that is a single file, or a folder of media files.

    Args:
        kind: None takes what the store holds, or what the names of the folder's files say.
        frame_rate: each folder of images under `path` is a video of so many frames per second.
        names: how those who ask for media name them in a folder. A store keeps the ids with which it was packed.

    Raises:
        PathError: nothing is there, or it is neither of these.
        StoreError: it is damaged, not complete, of the other kind, or has no media.
    """
    if not MEDIA.takes(found := look_at(path)):
        makes = f"check the name, or make a store: clipbert pack FOLDER {path}"
        hint = discover.unmatched_pattern([path]) or (makes if found.kind is PathKind.NOTHING else None)
        raise unlike(path, MEDIA, hint=hint)
    if is_lmdb(path):
        return open_store(path, kind=kind)
    ids: MediaIds = "path" if names == "path" else "stem"
    rate = Fraction(str(frame_rate)) if frame_rate is not None and kind != "image" else None
    files, _, kind = discover.find_media([path], kind=kind, are_folders=rate is not None)
    groups = discover.group_by_media_id(files, [path], ids=ids, are_folders=rate is not None)
    discover.check_one_file_per_id(
        groups,
        hint="rename or leave out one of them, or name media by their paths: pack the folder with --id path, or, for "
        "the splits of a recipe, set data.media_id: path",
    )
    by_id = {media_id: first for media_id, (first,) in groups.items()}
    return MediaFolder(path, kind=kind, files=by_id, ids=ids, frame_rate=rate)


def open_store(path: Path, *, kind: Kind | None = None) -> LmdbStore:
    """Open a store; warn if its media records are of an older version, which are not used.

    Args:
        kind: None takes what the store holds.

    Raises:
        PathError, StoreError: as `open_media`, or it is a folder of media files.
    """
    if not A_STORE.takes(look_at(path)):
        raise unlike(path, A_STORE)
    store = LmdbStore(path, kind=kind)
    check_not_being_written(path, has_manifest=store.manifest is not None)
    if store.manifest is not None and not store.has_records:
        _log.warning(
            "%s has media records of version %s, which are not used: version %s is current. Make them again: "
            "clipbert store scan %s",
            store.path,
            store.manifest["format"],
            records.FORMAT,
            store.path,
        )
    return store


def is_lmdb(path: Path) -> bool:
    """Return whether `path` is a file or a folder with LMDB's data file, and so no folder of media files."""
    return path.is_file() or (path / DATA_FILE).exists()


class LmdbStore(MediaSource):
    """The media items of one LMDB, opened read-only and without a lock file.

    Args:
        kind: what is expected; None accepts either.

    `damaged_pages` is the reason, once iteration has met pages that are damaged: items on them may be missing.

    Raises:
        StoreError: it is damaged, of a later format, or of another kind than `kind`.
    """

    damaged_pages: str | None = None

    def __init__(self, path: Path, *, kind: Kind | None = None) -> None:
        super().__init__(path, kind=kind or "video")
        try:
            record = self.stored(records.MANIFEST_KEY)
            self.manifest = None if record is None else records.manifest(record)
        except records.DAMAGED as exc:
            raise self._damaged("its manifest cannot be read") from exc
        self._warned_of: set[str] = set()
        self.has_records = self.manifest is not None and self.manifest["format"] == records.FORMAT
        if self.manifest is not None:
            self._check(self.manifest, kind)
            self.kind = self.manifest["kind"]
            self.ids = "path" if self.manifest.get("ids") == "path" else "stem"
        elif kind is None:
            self.kind = self._kind_of_first_item()

    def _check(self, manifest: dict[str, Any], kind: Kind | None) -> None:
        if manifest["format"] > records.FORMAT:
            raise StoreError(
                f"{self.path} has store format {manifest['format']}, but this clipbert reads up to {records.FORMAT}",
                hint="update clipbert, or pack the media again",
            )
        if manifest["kind"] not in discover.PLURAL:
            raise self._damaged(f"its kind is {manifest['kind']!r}")
        if kind not in (None, manifest["kind"]):
            raise StoreError(
                f"{self.path} is a store of kind {manifest['kind']!r}, but {kind!r} is expected",
                hint="set data.media of the recipe, or choose another store",
            )

    def _kind_of_first_item(self) -> Kind:
        for media_id in self:
            try:
                probe_image(self.read(media_id))
            except DecodeError:
                break
            return "image"
        return "video"

    def __getstate__(self) -> dict[str, Any]:
        # An LMDB environment must not be used by another process than the one that opened it.
        state = {name: value for name, value in self.__dict__.items() if name != "_environment"}
        return state | {"_probed": {}}

    def _holds(self, media_id: str) -> bool:
        try:
            # The cursor reads no value: checking the ids of a recipe must not read terabytes.
            with self._opened().begin() as txn, txn.cursor() as cursor:
                return bool(cursor.set_key(records.media_key(media_id)))
        except lmdb.BadValsizeError:
            return False  # no store has a key that is empty or so long
        except _DAMAGED_PAGE:
            return True  # it may be there, and who reads it learns of the damage
        except lmdb.Error as exc:
            raise self._damaged(str(exc)) from exc

    def __iter__(self) -> Iterator[str]:
        last = b""
        try:
            with self._opened().begin() as txn, txn.cursor() as cursor:
                for key in cursor.iternext(values=False):
                    if not key.startswith(records.PREFIX):
                        last = key
                        yield records.media_id_of(key)
        except lmdb.Error as exc:
            self.damaged_pages = str(exc)
            yield from (records.media_id_of(key) for key in self._keys_around_damage() if key > last)

    def _keys_around_damage(self) -> list[bytes]:
        """Return the keys of media that can be known although a page is damaged: from the end, and from the records."""
        found: set[bytes] = set()
        # An error makes a transaction useless, so each direction has its own.
        with suppress(lmdb.Error), self._opened().begin() as txn, txn.cursor() as cursor:
            for key in cursor.iterprev(values=False):
                if not key.startswith(records.PREFIX):
                    found.add(key)
        with suppress(lmdb.Error):
            found.update(self._recorded_keys())
        return sorted(found)

    def _recorded_keys(self) -> Iterator[bytes]:
        """Yield the keys of the items that have media records."""
        with self._opened().begin() as txn, txn.cursor() as cursor:
            cursor.set_range(records.INFO_PREFIX)
            for key in cursor.iternext(values=False):
                if not key.startswith(records.INFO_PREFIX):
                    break
                yield key.removeprefix(records.INFO_PREFIX)

    def lost_items(self) -> list[str]:
        """Return the ids that have a media record and are not in the store."""
        lost = []
        with suppress(lmdb.Error):  # iteration reports damaged pages
            for media_id in map(records.media_id_of, self._recorded_keys()):
                if not self._holds(media_id):
                    lost.append(media_id)
        return lost

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @contextmanager
    def reading(self, media_id: str) -> Iterator[bytes | memoryview]:
        key = records.media_key(self.held_id(media_id))
        try:
            txn = self._opened().begin(buffers=True)
            data = txn.get(key)
        except lmdb.BadValsizeError:
            raise self._unknown(media_id) from None
        except _DAMAGED_PAGE as exc:
            raise DecodeError(
                f"its page of the store is damaged ({exc})", hint="pack the store again from the original files"
            ) from exc
        except lmdb.Error as exc:
            raise self._damaged(str(exc)) from exc
        # The bytes are a view of the mapped file, which is valid as long as the transaction.
        with txn:
            if data is None:
                raise self._unknown(media_id)
            yield data

    def _info(self, media_id: str) -> VideoInfo:
        return self._recorded(media_id, records.info_key(media_id), records.video_info) or super()._info(media_id)

    def packets(self, media_id: str) -> PacketTable | None:
        media_id = self.held_id(media_id)
        if self.kind == "image" or self._recorded(media_id, records.info_key(media_id), bytes) is None:
            return super().packets(media_id)
        key = records.packets_key(media_id)
        with suppress(*records.DAMAGED):
            if self.stored(key) is None:
                return None
        return self._recorded(media_id, key, records.packet_table) or super().packets(media_id)

    def stored(self, key: bytes) -> bytes | None:
        """Return a record. Raises ValueError if its page is damaged, StoreError if no page can be read."""
        try:
            with self._opened().begin() as txn:
                value = txn.get(key)
                return None if value is None else bytes(value)
        except lmdb.BadValsizeError:
            return None
        except _DAMAGED_PAGE as exc:
            raise ValueError(f"its page of the store is damaged: {exc}") from exc
        except lmdb.Error as exc:
            raise self._damaged(str(exc)) from exc

    def _checked(self, key: bytes, parse: Callable[[bytes], _Parsed]) -> _Parsed | None:
        """Return what `parse` makes of a record, None where there is none. Raises ValueError if it is damaged."""
        try:
            value = self.stored(key) if self.has_records else None
            return None if value is None else parse(records.unsealed(key, value))
        except records.DAMAGED as exc:
            raise ValueError(str(exc)) from exc

    def _recorded(self, media_id: str, key: bytes, parse: Callable[[bytes], _Parsed]) -> _Parsed | None:
        """Return what `parse` makes of a record; None where there is none or, after a warning, where it is damaged."""
        try:
            return self._checked(key, parse)
        except ValueError as exc:
            if media_id not in self._warned_of:
                self._warned_of.add(media_id)
                _log.warning("%s: the media record of %r is damaged and not used (%s)", self.path, media_id, exc)
            return None

    def sound_record(self, media_id: str) -> dict[str, Any] | None:
        """Return what `record` returns. Raises ValueError if a record or the page of the item is damaged."""
        try:
            with self._opened().begin() as txn, txn.cursor() as cursor:
                cursor.set_key(records.media_key(media_id))
        except lmdb.BadValsizeError:
            return None  # an id without bytes, which no pack makes
        except lmdb.Error as exc:
            raise ValueError(f"its page of the store is damaged: {exc}") from exc
        try:
            self._checked(records.packets_key(media_id), records.packet_table)
        except ValueError as exc:
            raise ValueError(f"its packet table is damaged: {exc}") from exc
        try:
            return self._checked(records.info_key(media_id), self._media_fields)
        except ValueError as exc:
            raise ValueError(f"its media record is damaged: {exc}") from exc

    def record(self, media_id: str) -> dict[str, Any] | None:
        """Return the fields of an item's media record, None where it has none or, after a warning, a damaged one."""
        media_id = self.held_id(media_id)
        return self._recorded(media_id, records.info_key(media_id), self._media_fields)

    def _media_fields(self, record: bytes) -> dict[str, Any]:
        return records.media_fields(record, self.kind)

    def checksum(self, media_id: str) -> int | None:
        return (self.record(media_id) or {}).get("crc32")

    def _opened(self) -> lmdb.Environment:
        """Return this process's LMDB, which is opened on first use and once more after a fork."""
        environment: Environment | None = self.__dict__.get("_environment")
        if environment is None or environment.process != os.getpid():
            try:
                environment = self._environment = open_environment(self.path)
            except (lmdb.Error, OSError) as exc:
                raise self._damaged(str(exc)) from exc
        return environment.lmdb

    def close(self) -> None:
        """Close the LMDB in this process, for all who read it here. The next use opens it again."""
        if environment := self.__dict__.get("_environment"):
            environment.close()

    def _damaged(self, why: str) -> StoreError:
        return StoreError(
            f"{self.path} cannot be read as a media store: {why}",
            hint=f"pack it again: clipbert pack FOLDER STORE, with the folder of {discover.PLURAL[self.kind]}",
        )
