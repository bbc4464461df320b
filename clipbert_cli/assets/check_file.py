"""Whether a whole file is the published one: checksum, size, and what it starts with."""

from __future__ import annotations

import hashlib
import re
import threading
from dataclasses import dataclass
from pathlib import Path

from clipbert_cli.assets.catalog import FileEntry
from clipbert_cli.assets.transfer import Stopped

PAGE = re.compile(rb"\s*(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
MAGIC = {".zip": b"PK", ".gz": b"\x1f\x8b", ".tgz": b"\x1f\x8b"}


@dataclass(frozen=True)
class Received:
    """A file as it arrived."""

    source: str
    bytes: int
    sha256: str
    warnings: tuple[str, ...] = ()


class WrongContent(Exception):  # noqa: N818 - becomes a Refused or a DownloadError
    """A whole file that is not the published one."""


def check_content(name: str, entry: FileEntry, size: int, digests: dict[str, str], path: Path) -> tuple[str, ...]:
    """Compare a whole file with what is published; warnings for figures that are not sure.

    Raises:
        WrongContent: a web page, no archive, another checksum, or another size where the size is verified.
    """
    with open(path, "rb") as file:
        start = file.read(4096)
    if PAGE.match(start):
        raise WrongContent("it is a web page")
    magic = MAGIC.get(Path(name).suffix)
    if magic and not start.startswith(magic):
        raise WrongContent(f"it is no {Path(name).suffix} file (it starts with {start[:8]!r})")
    for kind in ("sha256", "md5"):
        published = getattr(entry, kind)
        if published and digests[kind] != published:
            raise WrongContent(f"its {kind} is {digests[kind]}, published is {published}")
    if entry.bytes and size != entry.bytes:
        if entry.mark == "verified":
            raise WrongContent(f"it has {size:,} bytes, published are {entry.bytes:,}")
        return (f"{name}: {size:,} bytes where {entry.bytes:,} were expected ({entry.mark})",)
    return ()


def check_file(name: str, entry: FileEntry, path: Path, stop: threading.Event, *, source: str) -> Received:
    """Read a file on disk and compare it with what is published.

    Raises:
        WrongContent: see `check_content`.
    """
    digests, size = new_digests(), 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            size += len(block)
            for digest in digests.values():
                digest.update(block)
            if stop.is_set():
                raise Stopped
    hexadecimal = {kind: digest.hexdigest() for kind, digest in digests.items()}
    warnings = check_content(name, entry, size, hexadecimal, path)
    return Received(source, size, hexadecimal["sha256"], warnings)


def new_digests() -> dict[str, hashlib._Hash]:
    return {"sha256": hashlib.sha256(), "md5": hashlib.md5(usedforsecurity=False)}
