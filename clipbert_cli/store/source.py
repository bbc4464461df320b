"""Media by id: what every source offers; folders of files or frames, and bytes, as sources. `lmdb_store.py`: LMDBs."""

from __future__ import annotations

import dataclasses
import logging
import os
import stat
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from fractions import Fraction
from pathlib import Path

from clipbert_cli.errors import DecodeError, StoreError, UnreadableError
from clipbert_cli.foreign import open_file
from clipbert_cli.media.frame_folder import folder_as_video
from clipbert_cli.media.packets import PacketTable
from clipbert_cli.media.probe import probe_video
from clipbert_cli.media.sampling import segment_info
from clipbert_cli.store import records
from clipbert_cli.store.discover import PLURAL
from clipbert_cli.store.environment import MAX_ITEM_BYTES
from clipbert_cli.types import Kind, MediaIds, Segment, VideoInfo

_log = logging.getLogger("clipbert.store")

_REMEMBERED = 30_000
"""Limit of the videos whose records a process remembers after it has probed them: some 250 MB."""

_Records = tuple[bytes, bytes | None]


class MediaSource(ABC):
    """Media by id. Iteration gives the ids in order. Each process that uses a source opens its own handles."""

    ids: MediaIds = "stem"
    """Whether the ids are names of files or their paths."""

    absent: frozenset[str] = frozenset()
    """Ids that are not here and are known not to be: such media count as damaged ones."""

    has_records: bool
    """Whether there are media records. Without them videos are probed on first use, which decodes them once more."""

    def __init__(self, path: Path, *, kind: Kind) -> None:
        self.path = path
        self.kind = kind
        self._probed: dict[str, _Records] = {}

    def __contains__(self, media_id: object) -> bool:
        return isinstance(media_id, str) and self._holds(self.held_id(media_id))

    @abstractmethod
    def __iter__(self) -> Iterator[str]: ...

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def reading(self, media_id: str) -> AbstractContextManager[bytes | memoryview]:
        """Give the media file's bytes while a block lasts; without copying them where that is possible.

        Raises:
            StoreError: there is no such item, or it cannot be read.
        """

    def read(self, media_id: str) -> bytes:
        """Return the media file's bytes.

        Raises:
            StoreError: there is no such item, or it cannot be read.
        """
        with self.reading(media_id) as data:
            return bytes(data)

    def info(self, media_id: str) -> VideoInfo | None:
        """Return what sampling needs to know of a video or segment, None for an image.

        Without a record the video is probed.

        Raises:
            StoreError: as `read`.
            DecodeError: the video has to be probed and cannot be decoded.
        """
        if self.kind == "image":
            return None
        video, segment = self._resolved(media_id)
        info = self._info(video)
        return info if segment is None else dataclasses.replace(info, segment=segment)

    def _info(self, media_id: str) -> VideoInfo:
        return records.video_info(self._probe(media_id)[0])

    def packets(self, media_id: str) -> PacketTable | None:
        """Return a video's packet table; None for an image, and for a video that has to be decoded from its start.

        Raises:
            StoreError, DecodeError: as `info`.
        """
        record = None if self.kind == "image" else self._probe(self.held_id(media_id))[1]
        return None if record is None else records.packet_table(record)

    def checksum(self, media_id: str) -> int | None:
        """Return the CRC-32 of the media file's bytes as they were packed, None where it is not known.

        Raises:
            StoreError: as `read`.
        """
        return None

    def _probe(self, media_id: str) -> _Records:
        found = self._probed.get(media_id)
        if found is None:
            probed = probe_video(self.read(media_id))
            table = None if probed.packets is None else records.packets_record(probed.packets)
            # Records and not objects are remembered: they are a tenth as large.
            found = records.video_record(probed), table
            if len(self._probed) < _REMEMBERED:
                self._probed[media_id] = found
        return found

    def missing(self, media_ids: Iterable[str]) -> list[str]:
        """Return those ids that are not here, each once, in their order; warn of ids that are in another form."""
        unique = dict.fromkeys(media_ids)
        missing = [media_id for media_id in unique if media_id not in self]
        videos = dict.fromkeys(Segment.split(media_id)[0] for media_id in unique)
        changed = [media_id for media_id in videos if self.held_id(media_id) != media_id]
        if changed:
            _log.warning(
                "%d media ids are in %s in another Unicode form (NFC or NFD), such as %r; they are taken as equal",
                len(changed),
                self.path,
                changed[0],
            )
        return missing

    def segments_outside(self, media_ids: Iterable[str]) -> list[str]:
        """Return why segments lie outside of their videos, as far as media records say it; other ids say nothing."""
        mistakes = []
        for media_id in sorted(media_ids) if self.has_records else ():
            info = self.info(media_id) if Segment.split(media_id)[1] else None
            # Damaged videos are bad media, and no mistake of the annotations.
            if info is not None and info.segment is not None and info.complete:
                try:
                    segment_info(info, info.segment)
                except DecodeError as exc:
                    mistakes.append(f"{media_id}: {exc}")
        return mistakes

    def held_id(self, media_id: str) -> str:
        """Return the id under which an item is here: the given one, or one that is equal to it in Unicode's form NFC.

        The id of a segment gives that of its video. An id that is not here is returned as it is.
        """
        return self._resolved(media_id)[0]

    def _resolved(self, media_id: str) -> tuple[str, Segment | None]:
        """Return the id under which an item is here, and the segment of it that is meant."""
        video, segment = Segment.split(media_id)
        # A file may be called so.
        if segment is not None and self._holds(media_id):
            return media_id, None
        return self._in_held_form(video), segment

    def _in_held_form(self, media_id: str) -> str:
        if media_id.isascii() or self._holds(media_id):
            return media_id
        forms = (unicodedata.normalize(form, media_id) for form in ("NFC", "NFD"))
        return next((form for form in forms if self._holds(form)), media_id)

    @abstractmethod
    def _holds(self, media_id: str) -> bool:
        """Return whether there is an item of exactly this id."""

    def locate(self, media_id: str) -> str:
        """Return how messages name an item, such as `video 'cat' in vis_db/pets`."""
        # A file that a command names by its path is in no folder of media.
        return f"{self.kind} {media_id!r}" + ("" if self.path == Path(".") else f" in {self.path}")

    def _unknown(self, media_id: str) -> StoreError:
        return StoreError(
            f"{self.path} has no {self.kind} {media_id!r}",
            hint="pack the folder that holds it, or correct the id, which has no ending of a file "
            f"(there are {len(self)} {PLURAL[self.kind]})",
        )


@contextmanager
def named(source: MediaSource, media_id: str) -> Iterator[None]:
    """Add the item's name and place to the message of a `DecodeError`."""
    try:
        if media_id in source.absent:
            raise DecodeError("it is missing")
        yield
    except DecodeError as exc:
        raise DecodeError(f"{source.locate(media_id)}: {exc}", hint=exc.hint) from exc


def read_media_file(path: Path) -> bytes:
    """Return the bytes of a media file.

    Raises:
        DecodeError: it is too large, not a regular file, or not readable; the message does not name it.
    """
    try:
        with open_file(path) as file:
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode):
                # It is read more than once, and its size is known only after its end.
                raise DecodeError("it is a pipe: write it to a regular file first")
            if state.st_size > MAX_ITEM_BYTES:
                raise DecodeError("it is larger than 4 GiB, the limit for a media file")
            return file.read()
    except UnreadableError as exc:
        raise DecodeError("it is not a regular file") from exc
    except OSError as exc:
        hint = "check that the file is still there and readable"
        raise DecodeError(f"it cannot be read: {exc.strerror}", hint=hint) from exc


class MediaFolder(MediaSource):
    """Media files, such as those of a folder, which was listed when it was opened.

    Args:
        files: media id -> the file, or its bytes where they are in memory already.
        frame_rate: the files are folders of images, each of which is the frames of a video of this rate.
    """

    has_records = False

    def __init__(
        self,
        path: Path,
        *,
        kind: Kind,
        files: Mapping[str, Path | bytes],
        ids: MediaIds = "stem",
        frame_rate: Fraction | None = None,
    ) -> None:
        super().__init__(path, kind=kind)
        self._files = dict(sorted(files.items()))
        self.ids, self._frame_rate = ids, frame_rate

    def _holds(self, media_id: str) -> bool:
        return media_id in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    @contextmanager
    def reading(self, media_id: str) -> Iterator[bytes | memoryview]:
        file = self._files.get(self.held_id(media_id))
        if file is None:
            raise self._unknown(media_id)
        if isinstance(file, bytes):
            yield file
            return
        if self._frame_rate is not None:
            yield folder_as_video(file, self._frame_rate)
            return
        try:
            data = read_media_file(file)
        except DecodeError as exc:
            raise StoreError(f"{self.kind} {media_id!r} cannot be read from {file}: {exc}", hint=exc.hint) from exc
        yield data


def single_item(name: str, media: Path | bytes, *, kind: Kind) -> MediaSource:
    """Return a source that holds one item: a media file, or the bytes of one."""
    return MediaFolder(Path("."), kind=kind, files={name: media})
