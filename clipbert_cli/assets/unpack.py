"""Unpack zip and tar archives into a folder that appears whole or not at all.

An archive comes from a stranger. One member that would be written outside the folder, that is a link, a device or
encrypted, or that makes the archive too large refuses the whole archive.
"""

from __future__ import annotations

import fnmatch
import io
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Literal, Self, cast

from clipbert_cli.errors import DownloadError
from clipbert_cli.files import atomic_folder

MAX_FILES = 250_000
"""The limit of files. The largest public archive, COCO's train2014.zip, has 82,783."""

MAX_RATIO = 50
"""How many times larger than the archive its files may be: texts compress to a tenth at best."""

FREE_BYTES = 100_000_000
"""So many bytes are allowed to any archive besides, since small files may compress better."""


@dataclass(frozen=True)
class _Member:
    """One entry of an archive; `problem` says why it may not be unpacked, `open` is None for a folder."""

    name: str
    size: int
    problem: str | None
    open: Callable[[], IO[bytes]] | None


def unpack(
    archive: Path,
    folder: Path,
    *,
    kind: Literal["zip", "tar"],
    members: list[str] | None = None,
) -> None:
    """Unpack the files that match `members` into `folder`, which must not exist.

    Args:
        members: patterns such as "*/videos/*.mp4"; default: all. Members that do not match are checked as well.

    Raises:
        DownloadError: the archive is damaged, unsafe, or has no such member; nothing is left of it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_folder(folder) as temporary, ExitStack() as stack:
            unpacking = _Unpacking(archive)
            checked: Iterable[_Member]
            if kind == "zip":
                # The directory at the end of a zip names all members: nothing is written before all are checked.
                file = stack.enter_context(_ZipFile(archive))
                zipped = stack.enter_context(zipfile.ZipFile(file))
                checked = [unpacking.check(member) for member in _zip_members(zipped)]
            else:
                tarred = stack.enter_context(tarfile.open(archive, tarinfo=_Header))
                checked = (unpacking.check(member) for member in _tar_members(tarred, temporary))
            found = False
            for member in checked:
                wanted = members is None or any(fnmatch.fnmatchcase(member.name, pattern) for pattern in members)
                if member.open and wanted:
                    unpacking.write(member, temporary / member.name)
                    found = True
            if not found:
                raise DownloadError(
                    f"{archive}: none of its {unpacking.files:,} files matches {', '.join(members or ['*'])}",
                    hint="it is another archive than expected: remove it and download again",
                )
    except _DAMAGED as exc:
        raise DownloadError(
            f"{archive}: damaged, or no {kind} archive: {exc}", hint="remove it and download again"
        ) from exc


_DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, NotImplementedError, ValueError, LookupError, OverflowError),
)
"""What the libraries raise for damaged or unsupported archives."""

MAX_HEADER = 2**20
"""The limit of bytes in a header of a tar archive, which has a long name or the time of a file."""


class _Header(tarfile.TarInfo):
    """A member's header. tarfile would read one of gigabytes, and go back in the archive for a negative size."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0 or (header.size > MAX_HEADER and header.type not in _CONTENT_TYPES):
            raise tarfile.ReadError(f"the header {header.name!r} states {header.size} bytes")
        return header


_CONTENT_TYPES = (*tarfile.REGULAR_TYPES, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE)


MAX_DIRECTORY = 2**25
"""The limit of bytes in the directory of a zip archive: 134 for each of `MAX_FILES`."""


class _ZipFile(io.FileIO):
    """A zip archive's file. zipfile reads the whole directory at once, before its members can be counted."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAX_DIRECTORY:
            raise _refused(Path(self.name), f"its directory of {size:,} bytes has more than {MAX_DIRECTORY:,}")
        return super().read(size)


class _Unpacking:
    """The members of one archive, checked and written one by one, with their number and size so far."""

    def __init__(self, archive: Path) -> None:
        self.archive = archive
        self.max_bytes = FREE_BYTES + MAX_RATIO * archive.stat().st_size
        self.files = 0
        self.bytes = 0

    def check(self, member: _Member) -> _Member:
        """Return `member`; refuse one that may not be unpacked or that makes the archive too large."""
        name, path = member.name, PurePosixPath(member.name)
        self.files += 1
        self.bytes += member.size
        # Backslashes and drive letters are names like any other here, but not where somebody copies the folder to.
        if path.is_absolute() or name.startswith("\\") or (len(name) > 1 and name[1] == ":"):
            raise self._refused(name, "has an absolute name")
        if ".." in path.parts or ".." in name.split("\\"):
            raise self._refused(name, "reaches outside with '..'")
        if "\0" in name or not path.parts:
            raise self._refused(name, "has an impossible name")
        if self.files > MAX_FILES:
            raise self._refused(name, f"is one of more than {MAX_FILES:,} files")
        if self.bytes > self.max_bytes:
            raise self._refused(name, f"unpacks to more than {self.max_bytes:,} bytes in all")
        if member.problem:
            raise self._refused(name, member.problem)
        return member

    def write(self, member: _Member, target: Path) -> None:
        """Write one member, which must have exactly the size that the archive states for it."""
        assert member.open is not None, "folders are not written"
        left = member.size
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            file = open(target, "xb")  # noqa: SIM115 - closed below; only creating it may mean "there twice"
        # A second member of the same name would replace a file that has been checked.
        except (FileExistsError, IsADirectoryError, NotADirectoryError):
            raise self._refused(member.name, "is there twice") from None
        with file, member.open() as source:
            # The stated size is what `check` has added up: data that goes on behind it would evade the limit.
            while block := source.read(1 << 20):
                left -= len(block)
                if left < 0:
                    raise self._refused(member.name, f"is larger than the {member.size:,} bytes it states")
                file.write(block)
        if left:
            raise self._refused(member.name, f"is {left:,} bytes shorter than it states")

    def _refused(self, name: str, why: str) -> DownloadError:
        return _refused(self.archive, f"member {name!r} {why}")


def _refused(archive: Path, why: str) -> DownloadError:
    return DownloadError(
        f"{archive}: refused: {why}; nothing was unpacked",
        hint="do not trust this archive: remove it and get it from another source",
    )


def _zip_members(zipped: zipfile.ZipFile) -> Iterator[_Member]:
    for info in zipped.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        problem = None
        if kind == stat.S_IFLNK:
            problem = "is a link"
        elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            problem = "is no plain file"
        elif info.flag_bits & 0x1:
            problem = "is encrypted"
        opened = None if info.is_dir() else partial(zipped.open, info)
        # `orig_filename` is the name in the archive; zipfile cuts `filename` at the first NUL byte.
        yield _Member(info.orig_filename, info.file_size, problem, opened)


def _tar_members(tarred: tarfile.TarFile, folder: Path) -> Iterator[_Member]:
    while (info := tarred.next()) is not None:
        # tarfile keeps a list of all members, and a million names would fill the memory.
        tarred.members = []  # type: ignore[attr-defined]
        problem = None
        try:
            tarfile.data_filter(info, str(folder))
        except tarfile.FilterError as exc:
            problem = f"is unsafe: {exc}"
        if info.issym() or info.islnk():
            problem = f"is a link (to {info.linkname!r})"
        opened = cast(Callable[[], IO[bytes]], partial(tarred.extractfile, info)) if info.isfile() else None
        yield _Member(info.name, info.size, problem, opened)
