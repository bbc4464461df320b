"""Compare the data folder with the catalogue and plan a download. Nothing in this file changes the disk.

DATA/pretrained/, DATA/txt_db/      weights and annotations, in their final place
DATA/media/NAME/ARCHIVE/            unpacked media, one folder per archive
DATA/vis_db/NAME                    the store that packing makes of DATA/media/NAME
DATA/downloads/ASSET/FILE           downloaded files that are not used up yet; FILE.part while it is incomplete
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clipbert_cli.assets.catalog import AssetPart, Catalog, FileEntry, base_name
from clipbert_cli.errors import UsageError


@dataclass(frozen=True)
class DataLayout:
    """The paths of files, media and stores under the data folder."""

    data: Path

    @property
    def downloads(self) -> Path:
        return self.data / "downloads"

    def file(self, name: str, part: AssetPart) -> Path:
        """Return where a file arrives: weights in their final place, all others among the downloads."""
        # Weights are used as they are: they are not copied from the downloads, which would double the disk space.
        if place := part.weights().get(name):
            return self.folder(part) / place
        return self.downloads / name

    def folder(self, part: AssetPart) -> Path:
        return self.data / str(part.folder)

    def store(self, part: AssetPart) -> Path:
        return self.data / part.store

    def unpacked(self, name: str, part: AssetPart) -> Path:
        """Return the folder that an archive of media is unpacked to."""
        return self.folder(part) / base_name(name).split(".", 1)[0]

    # The store replaces its media: after packing, the user may remove the folder to save disk space.
    def products(self, part: AssetPart) -> list[Path]:
        """Return the paths that a complete part consists of: for media the store, or its archives' unpacked files."""
        if part.kind == "media":
            return [self.folder(part) if part.files and not self.store(part).exists() else self.store(part)]
        return [self.data / product for product in part.products()]

    def is_complete(self, part: AssetPart) -> bool:
        """Return whether a part is complete. Files and folders appear whole, so it is enough that they exist."""
        if part.kind != "media":
            return all(path.exists() for path in self.products(part))
        if self.store(part).exists():
            return True
        return bool(part.files) and all(self.unpacked(name, part).exists() for name in part.files)


def arrived_bytes(target: Path) -> int:
    """Return how many bytes of a file have been downloaded."""
    for path in (target, target.with_name(target.name + ".part")):
        if path.exists():
            return path.stat().st_size
    return 0


@dataclass(frozen=True)
class PlannedFile:
    """A file that a part needs. `provided` is the copy that the user passed with --source."""

    name: str
    entry: FileEntry
    target: Path
    optional: bool = False
    provided: Path | None = None

    @property
    def path(self) -> Path:
        """The place of the file once it has been downloaded or checked."""
        return self.provided or self.target


@dataclass(frozen=True)
class PlannedPart:
    """A part that was asked for: whether it is complete before the download, and the files that it still needs."""

    name: str
    part: AssetPart
    is_complete: bool
    files: tuple[PlannedFile, ...] = ()

    @property
    def manual(self) -> bool:
        """True if the user must fetch something by hand: the catalogue has no source for it."""
        without = (
            not (file.entry.sources or file.optional or file.provided or file.target.exists()) for file in self.files
        )
        return not self.is_complete and (not self.files or any(without))


@dataclass(frozen=True)
class DownloadPlan:
    """The work of a download, part by part."""

    layout: DataLayout
    parts: tuple[PlannedPart, ...]
    pack: bool

    def files(self) -> dict[str, PlannedFile]:
        """Return the files to fetch, each once: several parts may need the same file."""
        return {file.name: file for part in self.parts for file in part.files}

    def download_bytes(self, *, exact: bool = False) -> int:
        """Return how many bytes are still to be downloaded; `exact` leaves out sizes that are estimates."""
        return sum(
            max(0, ((file.entry.bytes if exact else file.entry.expected_bytes) or 0) - arrived_bytes(file.target))
            for file in self.files().values()
            if not file.provided and file.entry.sources
        )

    def needed_bytes(self) -> int:
        """Return the free disk space that the whole plan needs: downloads, unpacked media and, with `pack`, stores.

        Videos and images do not compress, so that media and store are taken to be as large as their archive.
        """
        media = [file for part in self.parts if part.part.kind == "media" for file in part.files]
        copies = 2 if self.pack else 1
        return self.download_bytes() + copies * sum(file.entry.expected_bytes or 0 for file in media)

    def unknown_sizes(self) -> list[str]:
        """Return the files to download for which the catalogue has no size."""
        return [name for name, file in self.files().items() if file.entry.sources and file.entry.expected_bytes is None]

    def free_bytes(self) -> int:
        """Return the free space of the disk that the data folder is on, or would be on."""
        folder = self.layout.data.absolute()
        # The data folder itself may not exist yet.
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free


def make_plan(
    catalog: Catalog, parts: Mapping[str, AssetPart], data: Path, *, source: Path | None = None, pack: bool = False
) -> DownloadPlan:
    """Compare `parts` with what the data folder `data` and the user's own files in `source` have.

    Args:
        source: a file of the catalogue, or a folder that holds such files.

    Raises:
        UsageError: `source` does not exist, or has nothing that is needed.
    """
    layout = DataLayout(data)
    wanted = {name: part for name, part in parts.items() if not layout.is_complete(part)}
    provided: dict[str, Path] = {}
    if source is not None:
        if not source.exists():
            raise UsageError(f"--source {source}: no such file or folder", hint="name the files that you downloaded")
        provided = _provided_files(wanted, source)
        if wanted and not provided:
            names = sorted({base_name(file) for part in wanted.values() for file in (*part.files, *part.optional)})
            stores = [str(layout.store(part)) for part in wanted.values() if part.kind == "media"]
            raise UsageError(
                f"--source {source}: none of the files that are needed is there: {', '.join(names) or 'no archives'}",
                hint="name the file or the folder that has it"
                + (f"; unpacked media: clipbert pack {source} {' or '.join(stores)}" if stores else ""),
            )
    planned = []
    for name, part in parts.items():
        files = [
            PlannedFile(file, catalog.files[file], layout.file(file, part), file in part.optional, provided.get(file))
            for file in (*part.files, *part.optional)
        ]
        # Archives that an earlier download has unpacked are not downloaded again when another one of the part failed.
        needed = tuple(
            file
            for file in files
            if not (file.optional and not file.entry.sources and not file.provided)
            and not (part.kind == "media" and layout.unpacked(file.name, part).exists())
        )
        is_complete = name not in wanted
        planned.append(PlannedPart(name, part, is_complete, () if is_complete else needed))
    return DownloadPlan(layout, tuple(planned), pack)


def _provided_files(parts: Mapping[str, AssetPart], source: Path) -> dict[str, Path]:
    """Return file -> path for the files of the catalogue that `source` is or has, as FILE or as ASSET/FILE."""
    found = {}
    for file in {file for part in parts.values() for file in (*part.files, *part.optional)}:
        name = base_name(file)
        candidates = [source / file, source / name] if source.is_dir() else [source] * (source.name == name)
        path = next((candidate for candidate in candidates if candidate.is_file()), None)
        if path:
            found[file] = path
    return found
