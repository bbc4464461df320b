"""The content of folders and stores, and stores of the original layout."""

from __future__ import annotations

from pathlib import Path

import lmdb


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def content(store: Path) -> dict[bytes, bytes]:
    with lmdb.open(str(store), readonly=True, lock=False) as environment, environment.begin() as txn:
        return {bytes(key): bytes(value) for key, value in txn.cursor()}


def original_store(path: Path, items: dict[str, bytes]) -> Path:
    """Write a store of the original layout, which has nothing but file stems and bytes, or into a store."""
    with lmdb.open(str(path), map_size=2**28, lock=False) as environment, environment.begin(write=True) as txn:
        for name, data in items.items():
            txn.put(name.encode(), data)
    return path
