"""A file on its way: what came so far, its running checksums, and which version of which address it is.

NAME.part         the bytes so far
NAME.part.json    {"url": ..., "validator": ETag or Last-Modified}
"""

from __future__ import annotations

import os
from pathlib import Path

from clipbert_cli.assets.check_file import new_digests
from clipbert_cli.files import read_json, write_json


class Part:
    """NAME.part, its running checksums, and where it came from. Every write is on its way to the disk at once."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(target.name + ".part")
        self.about = target.with_name(target.name + ".part.json")
        target.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "a+b", buffering=0)  # noqa: SIM115 - closed by close()
        self._reset()
        self.url: str | None = None
        self.validator: str | None = None
        self.checksum_known = False
        said = read_json(self.about)
        if isinstance(said, dict):
            self.url, self.validator = said.get("url"), said.get("validator")
        self._file.seek(0)
        while block := self._file.read(1 << 20):
            self._count(block)

    def expect(self, url: str, *, checksum_known: bool) -> None:
        """From here on bytes come from `url`; another address's version says nothing about this one's."""
        self.checksum_known = checksum_known
        if self.url != url:
            self.url, self.validator = url, None

    @property
    def resumable(self) -> bool:
        """Whether a splice of two versions would be seen."""
        return self.validator is not None or self.checksum_known

    def came_from(self, url: str, validator: str | None) -> None:
        if (self.url, self.validator) != (url, validator) or not self.about.exists():
            self.url, self.validator = url, validator
            write_json(self.about, {"url": url, "validator": validator})

    def write(self, chunk: bytes) -> None:
        left = memoryview(chunk)
        while left:
            written = self._file.write(left) or 0
            self._count(left[:written])
            left = left[written:]

    def restart(self) -> None:
        self.about.unlink(missing_ok=True)
        self.validator = None
        self._file.truncate(0)
        self._reset()

    def finish(self) -> None:
        os.fsync(self._file.fileno())
        os.replace(self.path, self.target)
        self.about.unlink(missing_ok=True)

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.about.unlink(missing_ok=True)

    def close(self) -> None:
        self._file.close()
        if self.size == 0 and self.path.exists():
            self.discard()

    def digests(self) -> dict[str, str]:
        return {name: digest.hexdigest() for name, digest in self._digests.items()}

    def _reset(self) -> None:
        self.size = 0
        self._digests = new_digests()

    def _count(self, block: bytes | memoryview) -> None:
        self.size += len(block)
        for digest in self._digests.values():
            digest.update(block)


def sweep_part(target: Path) -> None:
    """Remove what says where `target` came from, if a killed download left it beside the finished file."""
    if target.exists() and not target.with_name(target.name + ".part").exists():
        target.with_name(target.name + ".part.json").unlink(missing_ok=True)
