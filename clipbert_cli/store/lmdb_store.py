"""Media in one LMDB, read; and what stands at a path, an LMDB or a folder of files.

A store written by `clipbert pack` knows its items (see `records.py`). One in the original layout, or a folder, does
not: its videos are probed when they are first used, which decodes each once more.
"""

from __future__ import annotations

import os
import weakref
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb

from clipbert_cli.errors import DecodeError, StoreError
from clipbert_cli.media.images import probe_image
from clipbert_cli.media.packets import PacketTable
from clipbert_cli.store import records
from clipbert_cli.store.discover import PLURAL, by_stem, find_files, has_suffix
from clipbert_cli.store.source import MediaFolder, MediaSource
from clipbert_cli.store.writer import DATA_FILE
from clipbert_cli.types import Kind, VideoInfo

_MAX_KEY_BYTES = 511  # LMDB as it is built everywhere


def open_media(path: Path, *, kind: Kind) -> MediaSource:
    """The media at `path`: an LMDB folder, a single-file LMDB, or a folder of media files.

    Raises:
        StoreError: nothing there, neither of them, damaged, not finished by its pack, or of the other kind.
    """
    pack = f"make it with: clipbert pack <folder of {PLURAL[kind]}> {path}"
    if not path.exists():
        raise StoreError(f"media store {path} does not exist", hint=pack)
    if path.is_file() or (path / DATA_FILE).exists():
        return LmdbStore(path, kind=kind)
    files = [file for file in find_files([path]) if has_suffix(file, kind)]
    if not files:
        raise StoreError(f"{path} is neither a store (no {DATA_FILE}) nor a folder of {PLURAL[kind]}", hint=pack)
    return MediaFolder(path, kind=kind, files=by_stem(files))


class LmdbStore(MediaSource):
    """One LMDB, by `clipbert pack` or in the original layout. Opened read-only and without a lock file."""

    def __init__(self, path: Path, *, kind: Kind) -> None:
        super().__init__(path, kind=kind)
        # The media records may be in a store of their own beside a store that is not to be changed.
        beside = records_beside(path)
        self._beside = LmdbStore(beside, kind=kind) if (beside / DATA_FILE).exists() else None
        manifest = self._records_in()._get(records.MANIFEST_KEY)
        self.has_records = manifest is not None
        if manifest is not None:
            self._check(manifest)

    def _check(self, record: bytes) -> None:
        try:
            manifest = records.manifest(record)
            version, complete, held = int(manifest["format"]), manifest["complete"], manifest["kind"]
        except (ValueError, KeyError, TypeError) as exc:
            raise self._damaged("its manifest cannot be read") from exc
        if version > records.FORMAT:
            raise StoreError(
                f"{self.path} has store format {version}; this clipbert reads up to {records.FORMAT}",
                hint="update clipbert, or pack the media again",
            )
        if not complete:
            raise StoreError(
                f"{self.path} is not finished: a pack is adding to it, or was stopped",
                hint="give its clipbert pack command again: it goes on where it stopped",
            )
        if held != self.kind:
            raise StoreError(f"{self.path} is a store of kind {held!r}, and {self.kind!r} is expected (data.media)")

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in self.__dict__.items() if name != "_environment"}
        return state | {"_probed": {}, "_probed_bytes": 0}

    def __contains__(self, media_id: object) -> bool:
        if not isinstance(media_id, str) or not 0 < len(_key(media_id)) <= _MAX_KEY_BYTES:
            return False
        with self._reading() as txn, txn.cursor() as cursor:  # no value is read: a store may hold terabytes
            return bool(cursor.set_key(_key(media_id)))

    def __iter__(self) -> Iterator[str]:
        with self._reading() as txn, txn.cursor() as cursor:
            for key in cursor.iternext(keys=True, values=False):
                if not bytes(key).startswith(records.PREFIX):
                    yield bytes(key).decode(errors="surrogateescape")

    def __len__(self) -> int:
        with self._reading() as txn:
            total = int(txn.stat()["entries"])
            with txn.cursor() as cursor:
                found = cursor.set_range(records.PREFIX)
                while found and bytes(cursor.key()).startswith(records.PREFIX):
                    total -= 1
                    found = cursor.next()
            return total

    def read(self, media_id: str) -> bytes:
        data = self._get(_key(media_id))
        if data is None:
            raise self._unknown(media_id)
        return data

    @contextmanager
    def reading(self, media_id: str) -> Iterator[bytes | memoryview]:
        key = _key(media_id)
        try:
            txn = self._opened().begin(buffers=True)
            data = txn.get(key) if 0 < len(key) <= _MAX_KEY_BYTES else None
        except lmdb.Error as exc:
            raise self._damaged(str(exc)) from exc
        with txn:
            if data is None:
                raise self._unknown(media_id)
            yield data

    def info(self, media_id: str) -> VideoInfo | None:
        record = self._stored(records.info_key, media_id)
        if record is None:
            return super().info(media_id)
        try:
            return records.video_info(record)
        except (ValueError, KeyError, TypeError) as exc:
            raise self._damaged(f"what it knows of {media_id!r} cannot be read") from exc

    def packets(self, media_id: str) -> PacketTable | None:
        if self._stored(records.info_key, media_id) is None:
            return super().packets(media_id)
        record = self._stored(records.packets_key, media_id)
        try:
            return None if record is None else records.packet_table(record)
        except (ValueError, KeyError, TypeError, zlib.error) as exc:
            raise self._damaged(f"its packet table of {media_id!r} cannot be read") from exc

    def _stored(self, key: Callable[[str], bytes], media_id: str) -> bytes | None:
        return self.raw(key(media_id)) if self.kind == "video" and self.has_records else None

    def raw(self, key: bytes) -> bytes | None:
        """Return a media record, None where there is none."""
        return self._records_in()._get(key) if self.has_records else None

    def _records_in(self) -> LmdbStore:
        return self if self._beside is None else self._beside

    def record(self, media_id: str) -> dict[str, Any] | None:
        """What is known of an item, as it is stored; None where it was not packed here."""
        record = self.raw(records.info_key(media_id))
        return None if record is None else records.fields(record)

    def checksum(self, media_id: str) -> int | None:
        try:
            found = (self.record(media_id) or {}).get("crc32")
        except (ValueError, AttributeError) as exc:
            raise self._damaged(f"what it knows of {media_id!r} cannot be read") from exc
        return found if isinstance(found, int) else None

    def _get(self, key: bytes) -> bytes | None:
        if not 0 < len(key) <= _MAX_KEY_BYTES:
            return None
        try:
            with self._reading() as txn:
                value = txn.get(key)
                return None if value is None else bytes(value)
        except lmdb.Error as exc:
            raise self._damaged(str(exc)) from exc

    def _reading(self) -> lmdb.Transaction:
        """A read transaction."""
        return self._opened().begin()

    def _opened(self) -> lmdb.Environment:
        """This process's environment (opened here on first use, after a fork anew)."""
        environment: Environment | None = self.__dict__.get("_environment")
        if environment is None or environment.process != os.getpid():
            try:
                environment = self._environment = open_environment(self.path)
            except (lmdb.Error, OSError) as exc:
                raise self._damaged(str(exc)) from exc
        return environment.lmdb

    def _damaged(self, why: str) -> StoreError:
        return StoreError(
            f"{self.path} cannot be read as a media store: {why}",
            hint=f"pack it again: clipbert pack <folder of {PLURAL[self.kind]}> <new store>",
        )


def records_beside(store: Path) -> Path:
    """Return the store of media records that belongs to a store without its own."""
    return store.with_name(f"{store.name}.records")


def stored_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest of an LMDB; None where it has none (the original's layout).

    Raises:
        StoreError: it cannot be read.
    """
    try:
        with open_environment(path).lmdb.begin() as txn:
            record = txn.get(records.MANIFEST_KEY)
            return None if record is None else records.manifest(bytes(record))
    except (lmdb.Error, OSError, ValueError, KeyError, TypeError) as exc:
        raise StoreError(f"{path} cannot be read as a media store: {exc}", hint="pack it again") from exc


def _key(media_id: str) -> bytes:
    return media_id.encode(errors="surrogateescape")


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
    for place in (records_beside(store), store):
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


class Environment:
    """An open LMDB environment; closed when nothing holds it any more."""

    def __init__(self, path: Path) -> None:
        self.process = os.getpid()
        # Read-ahead is on: media are large values, and cold ones are read three times as fast with it.
        self.lmdb = lmdb.open(str(path), subdir=path.is_dir(), readonly=True, lock=False, create=False, max_dbs=0)
        # LMDB maps the file and trusts its size: reading beyond the end would kill the process (SIGBUS).
        file = path / DATA_FILE if path.is_dir() else path
        pages, page = self.lmdb.info()["last_pgno"] + 1, self.lmdb.stat()["psize"]
        if file.stat().st_size < pages * page:
            self.lmdb.close()
            raise lmdb.CorruptedError(f"{file} is cut off: {file.stat().st_size} of {pages * page} bytes are there")


# LMDB allows one environment per file and process, and two splits may share a store.
_environments: weakref.WeakValueDictionary[tuple[int, int], Environment] = weakref.WeakValueDictionary()


def open_environment(path: Path) -> Environment:
    """The process's one environment of an LMDB.

    Raises:
        lmdb.Error, OSError: it cannot be opened, or is cut off.
    """
    status = (path / DATA_FILE if path.is_dir() else path).stat()
    identity = (status.st_dev, status.st_ino)
    environment = _environments.get(identity)
    if environment is not None and environment.process != os.getpid():
        environment.lmdb.close()  # the parent's, inherited by a fork
        environment = None
    if environment is None:
        environment = _environments[identity] = Environment(path)
    return environment
