"""What is here, what is missing, and what a download would do: nothing here changes a file.

DATA/pretrained/, DATA/txt_db/           weights and annotations, in place
DATA/media/NAME/ARCHIVE/                 unpacked media, a folder an archive; what a person hands over: HANDED_OVER
DATA/vis_db/NAME                         the store that packing makes of DATA/media/NAME
DATA/downloads/ASSET/FILE                files on their way; .part where unfinished
DATA/downloads/received/ASSET/FILE.json  what arrived: source, size, sha256
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clipbert_cli.assets.catalog import Catalog, FileEntry, Part
from clipbert_cli.errors import UsageError
from clipbert_cli.types import MEDIA_SUFFIXES, Kind

State = Literal["complete", "partial", "absent"]
HANDED_OVER = "handed-over"


@dataclass(frozen=True)
class Layout:
    """Where things are under the data folder."""

    data: Path

    @property
    def downloads(self) -> Path:
        return self.data / "downloads"

    def file(self, name: str, part: Part) -> Path:
        """Where a file of the catalogue arrives: weights in their place, the rest among the downloads."""
        if name in part.place:
            return self.data / str(part.folder) / part.place[name]
        return self.downloads / name

    def receipt(self, name: str) -> Path:
        return self.downloads / "received" / f"{name}.json"

    def unpacked(self, name: str, part: Part) -> Path:
        """The folder that an archive of a media part becomes."""
        return self.data / str(part.folder) / name.rsplit("/", 1)[1].split(".", 1)[0]

    def handed_over(self, part: Part) -> Path:
        return self.data / str(part.folder) / HANDED_OVER

    def store(self, part: Part) -> Path:
        return self.data / str(part.store)

    def products(self, part: Part) -> list[Path]:
        """What there is to use once the part is complete."""
        if part.kind == "media":
            return [self.store(part) if self.store(part).exists() else self.data / str(part.folder)]
        return [self.data / product for product in part.products()]

    def has_media(self, part: Part) -> bool:
        """Whether a media part's files are all unpacked, or were handed over."""
        if self.handed_over(part).exists():
            return True
        return bool(part.files) and all(self.unpacked(name, part).exists() for name in part.files)

    def state(self, part: Part) -> State:
        """Outputs appear whole or not at all, so that being there is being complete."""
        begun = any(self._begun(name, part) for name in (*part.files, *part.optional))
        if part.kind == "media":
            if self.store(part).exists() or self.has_media(part):
                return "complete"
            begun = begun or any(self.unpacked(name, part).exists() for name in part.files)
        else:
            here = [path.exists() for path in self.products(part)]
            if all(here):
                return "complete"
            begun = begun or any(here)
        return "partial" if begun else "absent"

    def _begun(self, name: str, part: Part) -> bool:
        return self.file(name, part).exists() or self.arrived_bytes(name, part) > 0

    def arrived_bytes(self, name: str, part: Part) -> int:
        """How much of a file is here already."""
        path = self.file(name, part)
        for candidate in (path, path.with_name(path.name + ".part")):
            if candidate.exists():
                return candidate.stat().st_size
        return 0


@dataclass(frozen=True)
class PlannedFile:
    """One file and where it will come from."""

    name: str
    entry: FileEntry
    target: Path
    arrived_bytes: int
    optional: bool
    handed_over: Path | None = None


@dataclass(frozen=True)
class PlannedPart:
    """One part: `files` are those that are still needed, none where it is complete."""

    name: str
    part: Part
    state: State
    files: tuple[PlannedFile, ...]
    media_folder: Path | None = None

    @property
    def manual(self) -> bool:
        """Whether a person must get something that the catalogue has no source for, and has not handed it over."""
        if self.state == "complete" or self.media_folder:
            return False
        return not self.files or any(
            not (file.entry.sources or file.optional or file.handed_over or file.target.exists()) for file in self.files
        )


@dataclass(frozen=True)
class Plan:
    """What a download will do, part by part."""

    layout: Layout
    parts: tuple[PlannedPart, ...]
    pack: bool

    def files(self) -> dict[str, PlannedFile]:
        """The files to get, each once."""
        return {file.name: file for part in self.parts for file in part.files}

    def download_bytes(self, *, exact: bool = False) -> int:
        """What is still to come over the network; `exact` counts only sizes that are no estimates."""
        return sum(
            max(0, ((file.entry.bytes if exact else file.entry.expected_bytes) or 0) - file.arrived_bytes)
            for file in self.files().values()
            if not file.handed_over and file.entry.sources
        )

    def needed_bytes(self) -> int:
        """Free disk that the whole plan takes at its height: downloads, unpacked media, and stores with `pack`."""
        copies = 2 if self.pack else 1
        unpacked = sum(
            file.entry.expected_bytes or 0 for part in self.parts if part.part.kind == "media" for file in part.files
        )
        return self.download_bytes() + copies * unpacked

    def unknown_sizes(self) -> list[str]:
        """Files to fetch whose size nobody states."""
        return [name for name, file in self.files().items() if file.entry.sources and file.entry.expected_bytes is None]

    def free_bytes(self) -> int:
        """What the disk of the data folder, or of its nearest existing parent, has free."""
        folder = self.layout.data.absolute()
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free


def make_plan(
    catalog: Catalog,
    parts: Mapping[str, Part],
    data: Path,
    *,
    source: Path | None = None,
    pack: bool = False,
) -> Plan:
    """Look at the data folder and at what a person hands over.

    Raises:
        UsageError: `source` does not exist, holds nothing that is wanted, or could belong to several parts.
    """
    layout = Layout(data)
    states = {name: layout.state(part) for name, part in parts.items()}
    wanted = [name for name, state in states.items() if state != "complete"]
    handed = _handed_over(catalog, [parts[name] for name in wanted], source)
    media = _handed_over_media({name: parts[name] for name in wanted}, handed, source, only_use=not handed)
    if source is not None and wanted and not handed and media is None:
        names = sorted(
            {file.rsplit("/", 1)[1] for name in wanted for file in (*parts[name].files, *parts[name].optional)}
        )
        raise UsageError(
            f"--source {source}: nothing here that is wanted: {', '.join(names) or 'media files'} were expected",
            hint="give the file, the folder that holds it, or the folder of unpacked media",
        )
    planned = []
    for name, part in parts.items():
        files: tuple[PlannedFile, ...] = ()
        folder = media[1] if media and media[0] == name else None
        if name in wanted and not folder:
            files = tuple(
                PlannedFile(
                    file,
                    catalog.files[file],
                    layout.file(file, part),
                    layout.arrived_bytes(file, part),
                    file in part.optional,
                    handed.get(file),
                )
                for file in (*part.files, *(o for o in part.optional if catalog.files[o].sources or o in handed))
                if not (part.kind == "media" and layout.unpacked(file, part).exists())
            )
        planned.append(PlannedPart(name, part, states[name], files, folder))
    return Plan(layout, tuple(planned), pack)


def _handed_over(catalog: Catalog, parts: list[Part], source: Path | None) -> dict[str, Path]:
    """Wanted file -> where the person put it: `source` itself, or in it by name, or in it by asset and name."""
    if source is None:
        return {}
    if not source.exists():
        raise UsageError(f"--source {source}: no such file or folder", hint="name what you got by hand")
    found = {}
    for file in {file for part in parts for file in (*part.files, *part.optional)}:
        base = file.rsplit("/", 1)[1]
        candidates = [source / file, source / base] if source.is_dir() else [source] * (source.name == base)
        path = next((candidate for candidate in candidates if candidate.is_file()), None)
        if path:
            found[file] = path
    return found


def _handed_over_media(
    parts: Mapping[str, Part], handed: Mapping[str, Path], source: Path | None, *, only_use: bool
) -> tuple[str, Path] | None:
    """The media part that `source` is the folder of, if it is one."""
    if source is None or not source.is_dir():
        return None
    candidates = [
        name
        for name, part in parts.items()
        if part.media_kind and not set(part.files) & set(handed) and _holds(source, part.media_kind)
    ]
    if len(candidates) > 1 and only_use:
        raise UsageError(
            f"--source {source}: these could be the media of {' or '.join(candidates)}",
            hint=f"name one of them: clipbert download {candidates[0]} --source {source}",
        )
    return (candidates[0], source) if len(candidates) == 1 else None


def _holds(folder: Path, media_kind: Kind) -> bool:
    suffixes = MEDIA_SUFFIXES[media_kind]
    return any(os.path.splitext(name)[1].lower() in suffixes for _, _, names in os.walk(folder) for name in names)
