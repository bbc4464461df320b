"""What is at a path, for the errors about a path at which something else is expected.

A path is a run, a store, predictions and so on by the names in a folder, of which a bounded number is looked at, and by
the ending and the first bytes of a file. Nothing is opened to be used, so whatever is found may still be damaged.
"""

from __future__ import annotations

import codecs
import os
import re
import shlex
import stat
from collections import deque
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from pathlib import Path

from clipbert_cli.errors import ClipbertError, PathError, UnreadableError, UsageError
from clipbert_cli.foreign import first_bytes
from clipbert_cli.hub import is_hub_name
from clipbert_cli.printable import shortened
from clipbert_cli.types import MEDIA_SUFFIXES

RECIPE_FILE, DATA_FILE, STATE_FILE = "recipe.yaml", "data.mdb", "state.json"
"""The files that make a folder a run or an exported model, a store, and a checkpoint of a run."""

SCORES, UNFINISHED = "scores.npy", "unfinished"
"""The names in a folder of scores that is complete, or is being written."""

_ENTRIES, _OF_EACH = 2000, 500
"""The number of entries of a folder and of the folders below it that are looked at, in all and of each."""

_START = 2**16
"""The number of bytes at the start of a file that are looked at."""

_TABLES = (".csv", ".tsv")
_LINES = (".jsonl", ".ndjson")
_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")
_WEIGHTS = (".safetensors", ".pt", ".pth", ".ckpt", ".pkl")
_LMDB_MAGIC = b"\xde\xc0\xef\xbe"


class PathKind(Enum):
    """What is at a path, as messages call it."""

    RUN = "a run"
    EXPORT = "an exported model"
    CHECKPOINT = "a checkpoint"
    STORE = "a store"
    SCORES = "a folder of scores"
    MEDIA = "a folder of media files"
    EMPTY = "an empty folder"
    FOLDER = "a folder"
    RECIPE = "a recipe"
    PREDICTIONS = "a file of predictions"
    ANNOTATIONS = "a file of annotations"
    JSON = "a JSON file"
    MEDIA_FILE = "a media file"
    WEIGHTS = "a file of weights"
    ARCHIVE = "an archive"
    EMPTY_FILE = "an empty file"
    FILE = "a file"
    # A pipe or a device, or what cannot be looked at: its reader knows more.
    OTHER = "no regular file"
    ADDRESS = "an address"
    HUB = "a repository of the Hugging Face Hub"
    NOTHING = "which does not exist"


@dataclass(frozen=True)
class AtPath:
    """What is at a path.

    Args:
        runs, stores: those in a folder and in the folders in it.
        run: the run in which a checkpoint, another folder or a file is.
    """

    kind: PathKind
    runs: tuple[Path, ...] = ()
    stores: tuple[Path, ...] = ()
    run: Path | None = None

    def __str__(self) -> str:
        if self.kind is PathKind.CHECKPOINT or (self.kind is PathKind.FOLDER and self.run):
            return f"{self.kind.value} in the run {self.run}"
        if not (found := self.runs or self.stores):
            return str(self.kind.value)
        what = ("run" if self.runs else "store") + ("s" if len(found) > 1 else "")
        return f"a folder with the {what} {shortened([*map(str, found)], 2)}"


def look_at(path: str | Path) -> AtPath:
    """Return what is at a path. This never fails."""
    if is_hub_name(path):
        return AtPath(PathKind.HUB)
    if address(path):
        return AtPath(PathKind.ADDRESS)
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            return _folder(Path(path))
        return AtPath(_file(Path(path)) if stat.S_ISREG(mode) else PathKind.OTHER, run=_run_around(Path(path)))
    except (FileNotFoundError, NotADirectoryError):
        return AtPath(PathKind.NOTHING)
    except (OSError, ValueError, UnreadableError):
        return AtPath(PathKind.OTHER)


def address(path: str | Path) -> str | None:
    """Return the address such as https://example.com/a.mp4 that was given as a path; None for other paths."""
    # As a path, https:// has one slash.
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/+", str(path))
    return found and f"{found[1]}://{str(path)[found.end() :]}"


def _folder(path: Path) -> AtPath:
    if (path / RECIPE_FILE).is_file():
        is_exported = (path / "config.json").is_file() and not (path / "checkpoints").exists()
        return AtPath(PathKind.EXPORT if is_exported else PathKind.RUN)
    if (path / DATA_FILE).exists():
        return AtPath(PathKind.STORE)
    if (path / SCORES).exists() or (path / UNFINISHED).exists():
        return AtPath(PathKind.SCORES)
    # `best` and `latest` are links. For a link to itself `Path.resolve` raises a RuntimeError.
    run = _run_around(path)
    if run and Path(os.path.realpath(path)).parent.name == "checkpoints" and (path / STATE_FILE).is_file():
        return AtPath(PathKind.CHECKPOINT, run=run)
    return _by_entries(path, run)


def _by_entries(folder: Path, run: Path | None) -> AtPath:
    """Return what a folder is by the names in it: runs and stores two levels deep, media files at any depth."""
    runs: list[Path] = []
    stores: list[Path] = []
    has_media, left = False, _ENTRIES
    waiting = deque([(folder, 0)])
    while waiting and left > 0:
        here, depth = waiting.popleft()
        with os.scandir(here) as scanned:
            entries = sorted(islice(scanned, min(left, _OF_EACH)), key=lambda entry: entry.name)
        left -= len(entries)
        # What is not seen of a large folder may be media files.
        has_media = has_media or len(entries) == _OF_EACH
        for entry in entries:
            inside = here / entry.name
            if not entry.is_dir():
                has_media = has_media or is_media_file(inside)
            elif depth < 2 and (inside / RECIPE_FILE).is_file():
                runs.append(inside)
            elif (inside / DATA_FILE).exists():
                stores += [inside] if depth < 2 else []
            elif not entry.name.startswith("."):
                waiting.append((inside, depth + 1))
    kind = PathKind.MEDIA if has_media or left <= 0 else PathKind.EMPTY if left == _ENTRIES else PathKind.FOLDER
    return AtPath(kind, tuple(runs), tuple(stores), run)


def _run_around(path: Path) -> Path | None:
    """Return the run in which a file, a checkpoint or another folder is."""
    for parent in Path(os.path.abspath(path)).parents[:3]:
        if (parent / RECIPE_FILE).is_file() and (parent / "checkpoints").exists():
            # Relative to where the person is, unless the path was typed otherwise.
            return parent if path.is_absolute() else Path(os.path.relpath(parent))
    return None


def is_media_file(path: Path) -> bool:
    """Return whether the name of a file ends as those of videos or images do."""
    return any(path.suffix.lower() in suffixes for suffixes in MEDIA_SUFFIXES.values())


def _file(path: Path) -> PathKind:
    ending = path.suffix.lower()
    start = first_bytes(path, _START)
    if ending in (".mdb", ".lmdb") or start[16:20] == _LMDB_MAGIC:
        return PathKind.STORE
    if is_media_file(path):
        return PathKind.MEDIA_FILE
    if ending in _WEIGHTS:
        return PathKind.WEIGHTS
    if ending in _ARCHIVES:
        return PathKind.ARCHIVE
    is_utf16 = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = start.decode("utf-16" if is_utf16 else "utf-8-sig", errors="ignore")
    if re.search(r'"texts?_digest"\s*:', text) or Path(f"{path}.meta.json").is_file():
        return PathKind.PREDICTIONS
    if not start:
        return PathKind.EMPTY_FILE
    if ending in (".yaml", ".yml"):
        return PathKind.RECIPE
    first = text.lstrip()[:1]
    if ending in (*_TABLES, *_LINES) or first == "[":
        return PathKind.ANNOTATIONS
    return PathKind.JSON if first == "{" else PathKind.FILE


@dataclass(frozen=True)
class Expected:
    """What a path must be.

    Args:
        sentence: the end of a message, such as `a run is expected`.
        hint: how to get one.
        kinds: what is taken.
    """

    sentence: str
    hint: str
    kinds: tuple[PathKind, ...]

    def takes(self, found: AtPath) -> bool:
        """Return whether this may be at the path."""
        # Where there are runs or stores and no media, one of them is meant, unless any folder will do.
        is_parent = found.kind is PathKind.FOLDER and (found.runs or found.stores) and PathKind.EMPTY not in self.kinds
        return found.kind is PathKind.OTHER or (found.kind in self.kinds and not is_parent)


A_RUN = Expected(
    "a run is expected",
    "clipbert runs ls FOLDER lists the runs in a folder; clipbert finetune makes one",
    (PathKind.RUN, PathKind.EXPORT),
)
A_MODEL = Expected(A_RUN.sentence, A_RUN.hint, (*A_RUN.kinds, PathKind.CHECKPOINT, PathKind.HUB))
# An empty file may be a store that was cut off.
A_STORE = Expected(
    "a store is expected",
    "check the name, or make a store: clipbert pack FOLDER STORE",
    (PathKind.STORE, PathKind.EMPTY_FILE),
)
MEDIA = Expected(
    "a folder of media files or a store is expected",
    "name the folder that holds the media files, or a store that clipbert pack made of it",
    (PathKind.STORE, PathKind.MEDIA, PathKind.FOLDER, PathKind.EMPTY_FILE),
)
A_MEDIA_FILE = Expected(
    "a media file is expected",
    "check the name; FOLDER/* stands for all files of a folder",
    (PathKind.MEDIA_FILE, PathKind.EMPTY_FILE, PathKind.FILE),
)
SOURCES = Expected(
    "media files or folders of them are expected",
    "name the folder that holds the media files",
    (PathKind.MEDIA, PathKind.FOLDER, *A_MEDIA_FILE.kinds),
)
PREDICTIONS = Expected(
    "predictions are expected",
    "clipbert infer --run RUN --split SPLIT -o FILE writes them",
    (PathKind.PREDICTIONS, PathKind.SCORES),
)
A_RECIPE = Expected(
    "a recipe is expected",
    "clipbert recipes ls lists the shipped ones; your own begins with: clipbert recipes copy NAME mine.yaml",
    # A name may be that of a shipped recipe, and a mapping in JSON is YAML as well.
    (PathKind.RECIPE, PathKind.JSON, PathKind.EMPTY_FILE, PathKind.FILE, PathKind.NOTHING),
)
A_FOLDER = Expected(
    "a folder is expected",
    "name a folder that exists",
    (*A_RUN.kinds, PathKind.CHECKPOINT, *MEDIA.kinds[:3], PathKind.SCORES, PathKind.EMPTY),
)
A_PLACE = Expected(A_FOLDER.sentence, "name a folder, which need not exist", (*A_FOLDER.kinds, PathKind.NOTHING))
QUESTIONS = Expected(
    "a file of questions is expected",
    "name a file of JSON lines, or - for stdin",
    (PathKind.ANNOTATIONS, PathKind.JSON, PathKind.EMPTY_FILE, PathKind.FILE),
)


def unlike(
    path: str | Path, expected: Expected, *, name: str = "", what: str = "", hint: str | None = None
) -> ClipbertError:
    """Return the error about a path at which something else is than expected.

    Args:
        name: the option or argument that names the path; without one a recipe or a program does, and nobody typed it.
        what: what the value is, where it is no path.
        hint: what to do, where more is known than the expected kind.
    """
    found = look_at(path)
    says = f"{name} is {address(path) or path}, {what or found}" if name else f"{path} is {found}"
    if found.kind is PathKind.NOTHING and not name:
        says = f"{path} does not exist"
    if found.kind is PathKind.ADDRESS:
        hint = hint or f"download it first, for example: curl -LO {shlex.quote(address(path) or '')}"
    if found.kind is PathKind.ARCHIVE:
        hint = hint or "unpack it first, and name the folder"
    return (UsageError if name else PathError)(f"{says}: {expected.sentence}", hint=hint or expected.hint)
