"""A file that is being downloaded: the bytes so far, and the version of the remote file that they belong to."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

from clipbert_cli.errors import UnreadableError
from clipbert_cli.files import publish_file, without_links, write_json
from clipbert_cli.foreign import read_json


class PartialFile:
    """The first `size` bytes of a download, which survive when the process is killed.

    NAME.part         the bytes so far
    NAME.part.json    {"source": where they came from, "validator": the ETag or Last-Modified of the file there}

    Args:
        target: where the whole file goes.
        checksum_known: whether the catalogue has a checksum, which would reveal bytes of another version.
    """

    def __init__(self, target: Path, *, checksum_known: bool) -> None:
        self.target = target
        self.path = target.with_name(target.name + ".part")
        self.checksum_known = checksum_known
        self._version = target.with_name(target.name + ".part.json")
        target.parent.mkdir(parents=True, exist_ok=True)
        # Without a buffer, every byte that was received is in the file when the process is killed.
        self._file = open(self.path, "ab", buffering=0, opener=without_links)  # noqa: SIM115 - closed by __exit__
        self.size = self.path.stat().st_size
        self.source, self.validator = self._known_version()

    def _known_version(self) -> tuple[str | None, str | None]:
        """Return source and validator of the bytes; None where an earlier process could not write them."""
        try:
            version = read_json(self._version)
            source, validator = version["source"], version["validator"]
        except (FileNotFoundError, UnreadableError, LookupError, TypeError):
            return None, None
        return (source, validator) if {type(source), type(validator)} <= {str, type(None)} else (None, None)

    def __enter__(self) -> PartialFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self.size == 0 and self.path.exists():
            self.path.unlink()
            self._version.unlink(missing_ok=True)

    def prepare(self, source: str) -> None:
        """Get ready to continue from `source`: start again if bytes of two versions could be joined unnoticed."""
        if self.source != source:
            # A validator is the name that one server gave to its file: it says nothing about another server's file.
            self.source, self.validator = source, None
        if self.validator is None and not self.checksum_known:
            self.restart()

    def set_version(self, source: str, validator: str | None) -> None:
        """Remember which version of the file the bytes belong to, also for the next process."""
        if (self.source, self.validator) != (source, validator) or not self._version.exists():
            self.source, self.validator = source, validator
            write_json(self._version, {"source": source, "validator": validator})

    def write(self, chunk: bytes) -> None:
        """Append bytes."""
        rest = memoryview(chunk)
        while rest:  # an unbuffered file may write less than it was given
            written = self._file.write(rest) or 0
            self.size += written
            rest = rest[written:]

    def restart(self) -> None:
        """Throw the bytes away."""
        self._version.unlink(missing_ok=True)
        self.validator = None
        self._file.truncate(0)
        self.size = 0

    def finish(self) -> None:
        """Give the whole file its name."""
        os.fsync(self._file.fileno())
        # First the version, then the name: a process that is killed in between leaves nothing that stays for ever.
        self._version.unlink(missing_ok=True)
        publish_file(self.path, self.target)
