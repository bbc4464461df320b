"""What folders and stores hold."""

from __future__ import annotations

from pathlib import Path

import lmdb


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def content(store: Path) -> dict[bytes, bytes]:
    with lmdb.open(str(store), readonly=True, lock=False) as environment, environment.begin() as txn:
        return {bytes(key): bytes(value) for key, value in txn.cursor()}
