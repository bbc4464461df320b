"""Pack media files into one LMDB store: which files, and what is refused before anything is written."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

from clipbert_cli.errors import StoreError, UsageError
from clipbert_cli.media.ffmpeg import MAX_PIXELS
from clipbert_cli.path_kinds import A_STORE, DATA_FILE, look_at, unlike
from clipbert_cli.store import discover, records
from clipbert_cli.store.environment import writing_to
from clipbert_cli.store.ingest import Candidate, PackSettings, Transcode
from clipbert_cli.store.lmdb_store import LmdbStore
from clipbert_cli.store.packer import Packer, PackSummary, continues
from clipbert_cli.store.unfinished import unfinished_store
from clipbert_cli.store.worker_pool import Progress
from clipbert_cli.types import Kind, MediaIds, OnDuplicate


def pack_media(
    sources: Sequence[Path],
    store: Path,
    *,
    kind: Kind | None = None,
    add: bool = False,
    on_duplicate: OnDuplicate = "error",
    transcode: Transcode | None = None,
    max_pixels: int = MAX_PIXELS,
    frame_rate: Fraction | None = None,
    ids: MediaIds = "stem",
    workers: int = 0,
    on_progress: Progress | None = None,
) -> PackSummary:
    """Pack media files into a store. Every file is decoded once completely.

    If an earlier call was stopped, the same call continues it.

    Args:
        sources: files, which are packed whatever their names are, and folders, which are searched for names with the
            usual endings.
        store: the store's folder, which must not exist; with `add` it must.
        kind: what the files hold; by default the endings of their names decide.
        add: add to an existing store, which nobody may read meanwhile.
        on_duplicate: of files with one media id, `error` takes none, `first` the first by path, `longest` the video
            that is shown longest; with `add` an item that is in the store stays.
        transcode: re-encode the videos with these settings.
        max_pixels: skip images and videos with more pixels per frame.
        frame_rate: the sources are folders of folders of images, and each of these is a video of this rate.
        ids: whether a file is known by its name or by its path from the source in which it was found.
        workers: number of processes that decode; 0 decodes in this one.
        on_progress: called after each media id.

    Raises:
        UsageError: a source does not exist, videos and images are mixed and `kind` is None, or settings contradict each
            other.
        StoreError: the store exists (does not, with `add`), another pack is writing it, no file is of this kind, two
            files have one media id, or no file could be packed.
        OutputError: the store cannot be written.
    """
    _check_store(store, add=add)
    if kind == "image" and frame_rate is not None:
        raise UsageError("--frame-folders makes videos, but --kind is image", hint="leave one of them out")
    media, not_taken, kind = discover.find_media(sources, kind=kind, are_folders=frame_rate is not None)
    if kind == "image" and (transcode or on_duplicate == "longest"):
        raise UsageError("--transcode and --on-duplicate longest are for videos", hint="leave them out for images")
    settings = PackSettings(kind, add, on_duplicate, transcode, max_pixels, frame_rate, ids)
    candidates = _candidates(media, sources, settings)
    with writing_to(store), unfinished_store(store, add=add) as place:
        # Everything that can be refused is checked before the first file is opened for writing.
        is_continued = continues(place, settings)
        if add:
            _check_addition(store, settings, () if is_continued else candidates)
        with Packer(place, settings) as packer:
            packer.run(candidates, workers=workers, on_progress=on_progress)
            summary = packer.finish(candidates)
        place.publish()
    return dataclasses.replace(summary, not_taken=tuple(not_taken))


def _check_store(store: Path, *, add: bool) -> None:
    try:
        os.fspath(store).encode()
    except UnicodeEncodeError as exc:
        raise StoreError(f"{store} is not valid UTF-8, which LMDB needs", hint="choose another name") from exc
    if not add and os.path.lexists(store):
        if (store / DATA_FILE).is_file():
            raise StoreError(f"{store} exists", hint="add to it with --add, or choose another name")
        raise StoreError(
            f"{store} exists and is no store", hint="the new store comes last: clipbert pack FILES_OR_FOLDERS STORE"
        )
    if add and not (store / DATA_FILE).is_file():
        if A_STORE.takes(look_at(store)):
            raise StoreError(
                f"{store} is a single file, not a store to add to", hint="pack these files into a store of their own"
            )
        raise unlike(store, A_STORE, hint="leave --add out to make a new one")


def _candidates(media: Iterable[Path], sources: Sequence[Path], settings: PackSettings) -> list[Candidate]:
    """Return the media ids in order, each with its files."""
    groups = discover.group_by_media_id(media, sources, ids=settings.ids, are_folders=settings.frame_rate is not None)
    if settings.on_duplicate == "error":
        hint = "rename or leave out one of them, keep both with --id path, or choose one with --on-duplicate"
        if settings.kind == "image":
            hint += "; for folders of frames of videos: --frame-folders --fps N"
        discover.check_one_file_per_id(groups, hint=hint)
    if too_long := [media_id for media_id in groups if len(records.media_key(media_id)) > records.MAX_ID_BYTES]:
        file, size = groups[too_long[0]][0], len(records.media_key(too_long[0]))
        raise StoreError(
            f"{file}: its media id has {size} bytes, but a store takes at most {records.MAX_ID_BYTES}",
            hint="shorten the names of the folders, or name a folder that is nearer to the files",
        )
    return [Candidate(media_id, tuple(files), settings) for media_id, files in sorted(groups.items())]


def _check_addition(store: Path, settings: PackSettings, candidates: Iterable[Candidate]) -> None:
    """Raise StoreError if these candidates cannot be added to the store."""
    held = LmdbStore(store)
    if not held.has_records:
        raise StoreError(f"{store} has no media records", hint=f"add them first: clipbert store scan {store}")
    if held.kind != settings.kind:
        raise StoreError(
            f"{store} is a store of kind {held.kind!r}, not {settings.kind!r}",
            hint="pack these files into a store of their own",
        )
    if held.ids != settings.ids:
        raise StoreError(
            f"{store} was packed with --id {held.ids}, but the files are added with --id {settings.ids}",
            hint=f"add them with --id {held.ids}",
        )
    if settings.on_duplicate == "error":
        for candidate in candidates:
            if candidate.media_id in held:
                raise StoreError(
                    f"{store} has {candidate.media_id!r} already, and {candidate.files[0]} has the same media id",
                    hint="leave it out, or choose one with --on-duplicate first or longest",
                )
