"""Media files on disk: which files count as videos and images, and finding them in folders."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from clipbert_cli.errors import StoreError, UsageError
from clipbert_cli.types import MEDIA_SUFFIXES, Kind

PLURAL: dict[Kind, str] = {"video": "videos", "image": "images"}


def has_suffix(path: Path, kind: Kind) -> bool:
    """Whether the file's name says that it holds `kind`; case does not matter."""
    return path.suffix.lower() in MEDIA_SUFFIXES[kind]


def find_files(sources: Iterable[Path]) -> list[Path]:
    """Every file in the sources, sorted, each once: folders with all that is below them, links followed.

    Raises:
        UsageError: a source does not exist.
        OSError: a folder cannot be read.
    """
    found: dict[str, Path] = {}
    for source in sources:
        if not source.exists():
            raise UsageError(f"{source} does not exist", hint="name folders or media files that are there")
        for path in _walk(source) if source.is_dir() else (source,):
            found.setdefault(os.path.realpath(path), path)
    return sorted(found.values())


def _walk(folder: Path) -> Iterator[Path]:
    visited = set()  # links may lead in circles

    def stop(exc: OSError) -> None:
        raise exc

    for here, folders, names in os.walk(folder, followlinks=True, onerror=stop):
        status = os.stat(here)
        identity = (status.st_dev, status.st_ino)
        if identity in visited:
            folders.clear()
            continue
        visited.add(identity)
        yield from (Path(here, name) for name in names)


def guess_kind(files: list[Path]) -> Kind:
    """What the files' names say they hold.

    Raises:
        UsageError: both videos and images.
        StoreError: neither.
    """
    videos = sum(has_suffix(path, "video") for path in files)
    images = sum(has_suffix(path, "image") and not has_suffix(path, "video") for path in files)
    if videos and images:
        raise UsageError(
            f"there are {videos} videos and {images} images: a store holds one kind",
            hint="say which with --kind video or --kind image",
        )
    if not videos and not images:
        raise StoreError(
            f"none of {len(files)} files is a video or an image by its name's ending",
            hint="say what the files hold with --kind, and name them one by one if their endings are unusual",
        )
    return "video" if videos else "image"


def by_stem(files: Iterable[Path]) -> dict[str, Path]:
    """media_id -> file.

    Raises:
        StoreError: two files have one stem; the message names both.
    """
    found: dict[str, Path] = {}
    clashes = []
    for path in files:
        other = found.setdefault(path.stem, path)
        if other is not path:
            clashes.append((other, path))
    if clashes:
        first, second = clashes[0]
        more = f" (and {len(clashes) - 1} more such pairs)" if len(clashes) > 1 else ""
        raise StoreError(
            f"two files have one media id {first.stem!r}: {first} and {second}{more}",
            hint="rename or leave out one of them: the file's name without its ending is the media id",
        )
    return found
