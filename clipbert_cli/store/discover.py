"""Media files on disk: finding them in folders, which kind they are, and their media ids."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from clipbert_cli.errors import StoreError, UsageError
from clipbert_cli.path_kinds import SOURCES, look_at, unlike
from clipbert_cli.printable import plural, shortened
from clipbert_cli.types import MEDIA_SUFFIXES, Kind, MediaIds

PLURAL: dict[Kind, str] = {"video": "videos", "image": "images"}


def has_suffix(path: Path, kind: Kind) -> bool:
    """Return whether the ending of the file's name is one of `kind`, in upper or lower case."""
    return path.suffix.lower() in MEDIA_SUFFIXES[kind]


def find_files(sources: Iterable[Path]) -> list[Path]:
    """Return every file of the sources once, sorted by path; folders are searched at any depth, links are followed.

    A link to a file counts as a file under its own name: the caches of download tools consist of links to files whose
    names are checksums. Links of the same name to the same file are one file.

    Raises:
        PathError: a source is no media file and no folder of them.
        OSError: a folder cannot be read.
    """
    found: dict[tuple[str, str], Path] = {}
    for source in sources:
        if not SOURCES.takes(look_at(source)):
            raise unlike(source, SOURCES, hint=unmatched_pattern([source]))
        for path in _walk(source) if source.is_dir() else (source,):
            found.setdefault((os.path.realpath(path), path.name), path)
    return sorted(found.values())


def unmatched_pattern(missing: Iterable[Path | str]) -> str | None:
    """Return what to do if one of the names that do not exist is a pattern that the shell did not replace."""
    found = next((str(name) for name in missing if re.search(r"[*?[]", str(name))), None)
    return found and f"the shell replaces {found} only without quotes, and where files match it: see ls {found}"


def find_media(
    sources: Sequence[Path], *, kind: Kind | None, are_folders: bool = False
) -> tuple[list[Path], list[Path], Kind]:
    """Return the media of the sources, their other files, and the kind. Files that are named are taken in any case.

    Args:
        kind: None takes what the endings of the names say.
        are_folders: the media are the folders that hold images, each of which is a video.

    Raises:
        UsageError: a source does not exist or is a file where folders are expected, or the kind is not clear.
        StoreError: there are no media.
        OSError: a folder cannot be read.
    """
    files = find_files(sources)
    named = [source for source in sources if source.is_file()]
    if are_folders:
        if named:
            raise UsageError(f"{named[0]} is a file, but --frame-folders packs folders of images", hint="name folders")
        kind, wanted = "video", "folders of images"
        media = sorted({path.parent for path in files if has_suffix(path, "image")})
        others = [path for path in files if not has_suffix(path, "image")]
    else:
        kind = kind or guess_kind(files, sources)
        wanted, taken = PLURAL[kind], set(map(os.path.realpath, named))
        others = [path for path in files if not (has_suffix(path, kind) or os.path.realpath(path) in taken)]
        media = sorted(set(files).difference(others))
    if not media:
        raise StoreError(
            f"there are no {wanted} in {shortened([*map(str, sources)])} ({len(others)} other files)",
            hint="name the folder that holds them, or choose another kind (--kind; in a recipe data.media); for "
            "folders of frames: --frame-folders (in a recipe data.fps_of_frames)",
        )
    return media, others, kind


def _walk(folder: Path) -> Iterator[Path]:
    # A link may lead to a folder above it. Without this set, such a circle would be walked until the path is too long.
    visited = set()

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


def guess_kind(files: list[Path], sources: Sequence[Path]) -> Kind:
    """Return the kind that the endings of the names of the sources' files say.

    Raises:
        UsageError: there are videos and images, or neither.
    """
    videos = sum(has_suffix(path, "video") for path in files)
    # .gif is an ending of both kinds and counts as a video, as in TGIF, unless --kind image is given.
    images = sum(has_suffix(path, "image") and not has_suffix(path, "video") for path in files)
    if videos and images:
        raise UsageError(
            f"there are {plural(videos, 'video')} and {plural(images, 'image')}, but a store holds one kind",
            hint="choose one with --kind video or --kind image",
        )
    if not videos and not images:
        raise UsageError(
            f"none of {len(files)} files in {shortened([*map(str, sources)], 3)} has the ending of a video or an image",
            hint="name the folder that holds the media files; or give --kind, and name files with unusual endings",
        )
    return "video" if videos else "image"


def group_by_media_id(
    files: Iterable[Path], sources: Sequence[Path], *, ids: MediaIds = "stem", are_folders: bool = False
) -> dict[str, list[Path]]:
    """Return the files of each media id, in the order of the files.

    The media id is the file's name, or its path from the source in which it was found, without its ending. It is in
    Unicode's composed form NFC: macOS writes names decomposed, and annotations made elsewhere would not match them.
    Folders of frames have no ending.
    """
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        name = path.name if are_folders else path.stem
        if ids == "path":
            source = next((source for source in sources if path != source and path.is_relative_to(source)), path.parent)
            name = path.relative_to(source).with_name(name).as_posix()
        groups[unicodedata.normalize("NFC", name)].append(path)
    return groups


def check_one_file_per_id(groups: dict[str, list[Path]], *, hint: str) -> None:
    """Check that no two files have the same media id.

    Raises:
        StoreError: two have; the message names the first two.
    """
    clashes = [(media_id, files) for media_id, files in groups.items() if len(files) > 1]
    if clashes:
        media_id, (first, second, *_) = clashes[0]
        more = f" (and {len(clashes) - 1} more such media ids)" if len(clashes) > 1 else ""
        raise StoreError(f"two files have the media id {media_id!r}: {first} and {second}{more}", hint=hint)
