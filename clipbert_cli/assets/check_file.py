"""Decide whether a whole file is the published one: its checksum, its size, and the bytes that it starts with."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from clipbert_cli.assets.catalog import FileEntry
from clipbert_cli.errors import ClipbertError

Contents = Mapping[str, Callable[[Path], None]]
"""`content` of an entry in the catalogue -> a function that raises ClipbertError if a file does not hold it."""

# A host that is out of quota, or wants a confirmation or a login, answers "200 OK" with an HTML page, not the file.
HTML_START = re.compile(rb"\s*(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class FetchedFile:
    """A whole file that agrees with the catalogue, and where it came from."""

    name: str
    source: str
    bytes: int
    sha256: str
    warnings: tuple[str, ...] = ()


class StoppedError(Exception):
    """The user pressed Ctrl-C: a thread stops here and leaves a state from which the next download continues."""


class SourceRefusedError(Exception):
    """This source does not give the file; the next source may."""


class WrongContentError(SourceRefusedError):
    """A whole file that is not the published one."""


def check_file(
    name: str, entry: FileEntry, path: Path, *, source: str | Path, stop: threading.Event, contents: Contents
) -> FetchedFile:
    """Compare a file on disk with its entry in the catalogue.

    A published checksum must match. The size must match where the catalogue's figure is verified; where it is not, a
    difference becomes a warning. A file whose `content` is stated is opened.

    Args:
        source: where it came from, an address or the user's own copy.

    Raises:
        WrongContentError: a web page, another checksum, another size or other content.
        StoppedError: `stop` was set.
    """
    # SHA-256 always, as it identifies the file in the result; MD5 only where a publisher states nothing better.
    digests = {"sha256": hashlib.sha256()}
    if entry.md5:
        digests["md5"] = hashlib.md5(usedforsecurity=False)
    size = 0
    with open(path, "rb") as file:
        # Before the checksum, since "it is a web page" helps more than two different checksums.
        if HTML_START.match(file.read(4096)):
            raise WrongContentError("it is a web page")
        file.seek(0)
        while block := file.read(1 << 20):
            size += len(block)
            for digest in digests.values():
                digest.update(block)
            if stop.is_set():
                raise StoppedError
    found = {kind: digest.hexdigest() for kind, digest in digests.items()}
    for kind, published in (("sha256", entry.sha256), ("md5", entry.md5)):
        if published and found[kind] != published:
            raise WrongContentError(f"its {kind} is {found[kind]}, published is {published}")
    warnings = []
    if entry.bytes and size != entry.bytes:
        if entry.mark == "verified":
            raise WrongContentError(f"it has {size:,} bytes, published are {entry.bytes:,}")
        warnings.append(f"{name}: {size:,} bytes where {entry.bytes:,} were expected ({entry.mark})")
    if entry.content:
        try:
            contents[entry.content](path)
        except ClipbertError as exc:
            # The file has another name while it is downloaded, which helps nobody.
            reasons = str(exc).replace(f"{path}: ", "").splitlines()
            raise WrongContentError(f"it is no {entry.content}: {'; '.join(map(str.strip, reasons))}") from exc
    if isinstance(source, str) and entry.note:
        warnings.append(f"{name}: {entry.note}")
    return FetchedFile(name, str(source), size, found["sha256"], tuple(warnings))
