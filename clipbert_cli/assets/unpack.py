"""Unpack zip and tar archives into a folder that appears whole or not at all.

An archive comes from a stranger. One member that would be written outside the folder, that is a link, a device or
encrypted, or that makes the archive too large refuses the whole archive.
"""

from __future__ import annotations

import fnmatch
import io
import lzma
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator
from contextlib import closing
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
    limit = FREE_BYTES + MAX_RATIO * archive.stat().st_size
    number = size = found = 0
    try:
        listed = _zip_members(archive) if kind == "zip" else _tar_members(archive)
        with atomic_folder(folder) as temporary, closing(listed):
            for member in listed:
                number, size = number + 1, size + member.size
                problem = member.problem or _name_problem(member.name)
                if member.size < 0:
                    problem = "states a negative size"
                elif number > MAX_FILES:
                    problem = f"is one of more than {MAX_FILES:,} files"
                elif size > limit:
                    problem = f"unpacks to more than {limit:,} bytes in all"
                elif not problem and member.open and _matches(member.name, members):
                    problem = _write(member.open, temporary / member.name)
                    found += 1
                if problem:
                    raise _refused(archive, f"member {member.name!r} {problem}")
            if not found:
                raise DownloadError(
                    f"{archive}: none of its {number:,} files matches {', '.join(members or ['*'])}",
                    hint="it is another archive than expected: remove it and download again",
                )
    except _DAMAGED as exc:
        raise DownloadError(
            f"{archive}: damaged, or no {kind} archive: {exc}", hint="remove it and download again"
        ) from exc


def _name_problem(name: str) -> str | None:
    path = PurePosixPath(name)
    # Backslashes and drive letters are names like any other here, but not where somebody copies the folder to.
    if path.is_absolute() or name.startswith("\\") or name[1:2] == ":":
        return "has an absolute name"
    if ".." in path.parts or ".." in name.split("\\"):
        return "reaches outside with '..'"
    return "has an impossible name" if "\0" in name or not path.parts else None


def _matches(name: str, patterns: list[str] | None) -> bool:
    return patterns is None or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _write(opened: Callable[[], IO[bytes]], target: Path) -> str | None:
    """Write one member; return what is wrong. The libraries read no more than the size that the archive states."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        file = open(target, "xb")  # noqa: SIM115 - closed below; only creating it may mean "there twice"
    # A second member of the same name would replace a file that has been checked.
    except (FileExistsError, IsADirectoryError, NotADirectoryError):
        return "is there twice"
    with file, opened() as source:
        shutil.copyfileobj(source, file, 1 << 20)
    return None


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


def _refused(archive: Path, why: str) -> DownloadError:
    return DownloadError(
        f"{archive}: refused: {why}; nothing was unpacked",
        hint="do not trust this archive: remove it and get it from another source",
    )


def _zip_members(archive: Path) -> Generator[_Member, None, None]:
    with _ZipFile(archive) as file, zipfile.ZipFile(file) as zipped:
        for info in zipped.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            problem = None
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                problem = "is a link" if kind == stat.S_IFLNK else "is no plain file"
            elif info.flag_bits & 0x1:
                problem = "is encrypted"
            opened = None if info.is_dir() else partial(zipped.open, info)
            # `orig_filename` is the name in the archive; zipfile cuts `filename` at the first NUL byte.
            yield _Member(info.orig_filename, info.file_size, problem, opened)


def _tar_members(archive: Path) -> Generator[_Member, None, None]:
    with tarfile.open(archive, tarinfo=_Header) as tarred:
        while (info := tarred.next()) is not None:
            # tarfile keeps a list of all members, and a million names would fill the memory.
            tarred.members = []  # type: ignore[attr-defined]
            problem = None if info.isfile() or info.isdir() else "is a link or no plain file"
            opened = cast(Callable[[], IO[bytes]], partial(tarred.extractfile, info)) if info.isfile() else None
            yield _Member(info.name, info.size, problem, opened)
