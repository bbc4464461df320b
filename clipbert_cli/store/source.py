"""Media by id, wherever they are: what every source can do, and a folder of files. An LMDB is in `store.py`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from clipbert_cli.errors import StoreError
from clipbert_cli.media.packets import PacketTable
from clipbert_cli.media.probe import inspect_video
from clipbert_cli.store import records
from clipbert_cli.store.discover import PLURAL
from clipbert_cli.types import Kind, VideoInfo

_REMEMBERED_BYTES = 2**28  # of what was probed, a process: about 30,000 videos

_Records = tuple[bytes, bytes | None]


class MediaSource(ABC):
    """Media by id. Iteration is over the ids, sorted; each process that uses a source opens its own handles."""

    def __init__(self, path: Path, *, kind: Kind) -> None:
        self.path = path
        self.kind = kind
        self._probed: dict[str, _Records] = {}
        self._probed_bytes = 0

    has_records: bool
    """Whether what sampling needs is stored: False means that videos are probed on first use."""

    @abstractmethod
    def __contains__(self, media_id: object) -> bool: ...

    @abstractmethod
    def __iter__(self) -> Iterator[str]: ...

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, media_id: str) -> bytes:
        """The media file's bytes.

        Raises:
            StoreError: no such id, or it cannot be read.
        """

    @contextmanager
    def reading(self, media_id: str) -> Iterator[bytes | memoryview]:
        """The media file's bytes while the block lasts; where the store can, without copying them.

        Raises:
            StoreError: as `read`.
        """
        yield self.read(media_id)

    def info(self, media_id: str) -> VideoInfo | None:
        """What sampling needs to know of a video (None of an image); where it is not stored, probed and remembered.

        Raises:
            StoreError: as `read`.
            DecodeError: the video has to be probed and cannot be decoded.
        """
        if self.kind == "image":
            return None
        return records.video_info(self._probe(media_id)[0])

    def packets(self, media_id: str) -> PacketTable | None:
        """Where a video's packets are; None of an image, and of a video that has to be decoded from its start.

        Raises:
            StoreError, DecodeError: as `info`.
        """
        if self.kind == "image":
            return None
        record = self._probe(media_id)[1]
        return None if record is None else records.packet_table(record)

    def checksum(self, media_id: str) -> int | None:
        """CRC-32 of the media file's bytes as they were packed; None where it is not known.

        Raises:
            StoreError: as `read`.
        """
        return None

    def _probe(self, media_id: str) -> _Records:
        found = self._probed.get(media_id)
        if found is None:
            probed = inspect_video(self.read(media_id))
            table = None if probed.packets is None else records.packets_record(probed.packets)
            found = records.video_record(probed), table
            size = len(found[0]) + len(table or b"")
            if self._probed_bytes + size <= _REMEMBERED_BYTES:
                self._probed[media_id] = found
                self._probed_bytes += size
        return found

    def missing(self, media_ids: Iterable[str]) -> list[str]:
        """Those ids that are not here, each once, in their order."""
        return [media_id for media_id in dict.fromkeys(media_ids) if media_id not in self]

    def locate(self, media_id: str) -> str:
        """A media item as messages name it, e.g. `video 'cat' in vis_db/pets`."""
        return f"{self.kind} {media_id!r} in {self.path}"

    def _unknown(self, media_id: str) -> StoreError:
        return StoreError(
            f"{self.path} has no {self.kind} {media_id!r}",
            hint=f"pack the folder that holds it, or correct the id (the store has {len(self)} {PLURAL[self.kind]})",
        )


class MediaFolder(MediaSource):
    """A folder of media files, found when it was opened: id = stem, at any depth."""

    has_records = False

    def __init__(self, path: Path, *, kind: Kind, files: dict[str, Path]) -> None:
        super().__init__(path, kind=kind)
        self._files = dict(sorted(files.items()))

    def __contains__(self, media_id: object) -> bool:
        return media_id in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def read(self, media_id: str) -> bytes:
        file = self._files.get(media_id)
        if file is None:
            raise self._unknown(media_id)
        try:
            return file.read_bytes()
        except OSError as exc:
            raise StoreError(f"{self.kind} {media_id!r} cannot be read from {file}: {exc.strerror}") from exc
