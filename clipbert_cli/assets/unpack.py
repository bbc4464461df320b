"""Zip and tar archives into a folder that is whole or absent. An archive is a stranger's: any member that reaches
outside, links, or is no plain file or folder refuses the whole archive, and so does one that grows out of proportion.
"""

from __future__ import annotations

import fnmatch
import lzma
import stat
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from clipbert_cli.assets.transfer import Stopped
from clipbert_cli.errors import DownloadError
from clipbert_cli.files import atomic_folder


@dataclass(frozen=True)
class Limits:
    """What an archive may become. Of the public ones the largest has some 110,000 files, and text shrinks tenfold."""

    max_files: int = 250_000
    max_ratio: int = 50
    free_bytes: int = 100_000_000

    def max_bytes(self, archive_bytes: int) -> int:
        return self.free_bytes + self.max_ratio * archive_bytes


def unpack(
    archive: Path,
    folder: Path,
    *,
    kind: Literal["zip", "tar"],
    members: list[str] | None = None,
    limits: Limits | None = None,
    stop: threading.Event | None = None,
) -> int:
    """Unpack into `folder`, which must not exist; the number of files. All members are judged, `members` are kept.

    Raises:
        DownloadError: the archive is damaged, unsafe or holds no such member; nothing is left behind.
    """
    limits = limits or Limits()
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_folder(folder) as temporary:
            wanted = _Wanted(archive, members, limits, stop or threading.Event())
            count = (_unpack_zip if kind == "zip" else _unpack_tar)(archive, temporary, wanted)
            if count == 0:
                raise DownloadError(
                    f"{archive}: none of its {wanted.files:,} files matches {', '.join(members or ['*'])}",
                    hint="it is another archive than expected: remove it and download again",
                )
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, NotImplementedError) as exc:
        raise DownloadError(
            f"{archive}: damaged, or no {kind} archive: {exc}", hint="remove it and download again"
        ) from exc
    return count


class _Wanted:
    """Judges members one by one and copies what is kept, counting both."""

    def __init__(self, archive: Path, members: list[str] | None, limits: Limits, stop: threading.Event) -> None:
        self.archive = archive
        self.members = members
        self.max_files = limits.max_files
        self.max_bytes = limits.max_bytes(archive.stat().st_size)
        self.stop = stop
        self.files = 0
        self.bytes = 0

    def refuse(self, name: str, why: str) -> DownloadError:
        return DownloadError(
            f"{self.archive}: refused: member {name!r} {why}; nothing was unpacked",
            hint="do not trust this archive: remove it and get it from another source",
        )

    def judge(self, name: str, size: int) -> None:
        """Refuse a name that reaches outside, and an archive that is too much."""
        if self.stop.is_set():
            raise Stopped
        path = PurePosixPath(name)
        if path.is_absolute() or name.startswith("\\") or (len(name) > 1 and name[1] == ":"):
            raise self.refuse(name, "has an absolute name")
        if ".." in path.parts or ".." in name.split("\\"):
            raise self.refuse(name, "reaches outside with '..'")
        if "\0" in name or not path.parts:
            raise self.refuse(name, "has an impossible name")
        self.files += 1
        self.bytes += size
        if self.files > self.max_files:
            raise self.refuse(name, f"is one of more than {self.max_files:,} files")
        if self.bytes > self.max_bytes:
            raise self.refuse(name, f"unpacks to more than {self.max_bytes:,} bytes in all")

    def keeps(self, name: str) -> bool:
        return self.members is None or any(fnmatch.fnmatchcase(name, pattern) for pattern in self.members)

    def copy(self, source: IO[bytes], target: Path, name: str, size: int) -> None:
        """Write one member, of exactly `size` bytes, whatever the archive's header promised."""
        left = size
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            file = open(target, "xb")  # noqa: SIM115 - closed below; only making it may say "twice"
        except (FileExistsError, IsADirectoryError, NotADirectoryError):
            raise self.refuse(name, "is there twice") from None
        with file:
            while block := source.read(1 << 20):
                left -= len(block)
                if left < 0:
                    raise self.refuse(name, f"is larger than the {size:,} bytes it states")
                if self.stop.is_set():
                    raise Stopped
                file.write(block)
        if left:
            raise self.refuse(name, f"is {left:,} bytes shorter than it states")


def _unpack_zip(archive: Path, folder: Path, wanted: _Wanted) -> int:
    with zipfile.ZipFile(archive) as zipped:
        kept = []
        for info in zipped.infolist():
            # orig_filename is what the archive says; filename is what zipfile makes of it.
            wanted.judge(info.orig_filename, info.file_size)
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind == stat.S_IFLNK:
                raise wanted.refuse(info.orig_filename, "is a link")
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise wanted.refuse(info.orig_filename, "is no plain file")
            if info.flag_bits & 0x1:
                raise wanted.refuse(info.orig_filename, "is encrypted")
            if not info.is_dir() and wanted.keeps(info.filename):
                kept.append(info)
        for info in kept:
            with zipped.open(info) as source:
                wanted.copy(source, folder / info.filename, info.filename, info.file_size)
        return len(kept)


def _unpack_tar(archive: Path, folder: Path, wanted: _Wanted) -> int:
    count = 0
    with tarfile.open(archive) as tarred:
        for member in _members(tarred):
            wanted.judge(member.name, member.size)
            try:
                tarfile.data_filter(member, str(folder))
            except tarfile.FilterError as exc:
                raise wanted.refuse(member.name, f"is unsafe: {exc}") from exc
            if member.issym() or member.islnk():
                raise wanted.refuse(member.name, f"is a link (to {member.linkname!r})")
            if member.isfile() and wanted.keeps(member.name):
                source = tarred.extractfile(member)
                assert source is not None
                wanted.copy(source, folder / member.name, member.name, member.size)
                count += 1
    return count


def _members(tarred: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members one by one; tarfile's own list of them is emptied, or a million names would fill the memory."""
    while (member := tarred.next()) is not None:
        yield member
        tarred.members = []  # type: ignore[attr-defined]
