"""What an unfinished pack has done: one JSON line a media id, in the order of the ids.

A line is written after the item is in the store, so what the journal lacks is at most done once more.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipbert_cli.errors import StoreError


@dataclass(frozen=True, slots=True)
class Entry:
    """What became of one media id.

    `files` are its source files as (path, bytes, time of change in ns); `bytes` of the value, None where no file could
    be packed; `skipped` (path, reason) pairs; `damage` of the packed file.
    """

    media_id: str
    files: tuple[tuple[str, int, int], ...]
    bytes: int | None
    skipped: tuple[tuple[str, str], ...] = ()
    damage: tuple[str, str] | None = None


class Journal:
    """Open for appending; `settings` of the pack stand in its first line.

    Raises:
        StoreError: the unfinished pack had other settings.
    """

    def __init__(self, file: Path, settings: Mapping[str, Any]) -> None:
        self.done: dict[str, Entry] = {}
        whole = 0
        if file.exists():
            for line in file.read_bytes().splitlines(keepends=True):
                if not line.endswith(b"\n"):
                    break  # the pack was killed while it wrote
                self._read(json.loads(line), settings, file)
                whole += len(line)
        self.resumed = whole > 0
        """Whether an earlier pack left work here."""
        self._stream = file.open("ab")
        self._stream.truncate(whole)
        self._pending: list[dict[str, Any]] = [] if whole else [{"settings": dict(settings)}]

    def _read(self, fields: dict[str, Any], settings: Mapping[str, Any], file: Path) -> None:
        if "settings" in fields:
            if fields["settings"] != dict(settings):
                raise StoreError(
                    f"{file.parent} is of a pack that was stopped, with other settings: {fields['settings']}, and now "
                    f"{dict(settings)}",
                    hint="pack with the same settings, or remove that folder to start anew",
                )
            return
        entry = Entry(
            fields["id"],
            tuple((path, size, changed) for path, size, changed in fields["files"]),
            fields["bytes"],
            tuple((path, reason) for path, reason in fields["skipped"]),
            None if fields["damage"] is None else (fields["damage"][0], fields["damage"][1]),
        )
        self.done[entry.media_id] = entry

    def add(self, entry: Entry) -> None:
        """Note an entry; it is in the file after `write`."""
        self.done[entry.media_id] = entry
        self._pending.append(
            {
                "id": entry.media_id,
                "files": entry.files,
                "bytes": entry.bytes,
                "skipped": entry.skipped,
                "damage": entry.damage,
            }
        )

    def write(self) -> None:
        """Put what was added on the disk."""
        lines = (json.dumps(fields, ensure_ascii=True) + "\n" for fields in self._pending)
        self._stream.write("".join(lines).encode())
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._pending = []

    def close(self) -> None:
        self._stream.close()

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.done.values())
