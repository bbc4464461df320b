"""Media ids that a source lacks: which of its ids is meant, and what has to be changed."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from clipbert_cli.store.source import MediaFolder, MediaSource
from clipbert_cli.types import Segment, media_id_of

_FILE = "the annotations give names of files: set data.media_id: name"
_PATH = "the media ids are paths: name media by their paths, and set data.media_id: path"
_WRITING = (
    "write the ids as the files are named, with their zeros (format the column of a spreadsheet as text) and case"
)


@dataclass(frozen=True)
class NearMiss:
    """A media id that is not there, the nearest one that is (None if none is near), and what maps one to the other."""

    media_id: str
    nearest: str | None
    remedy: str = ""

    def __str__(self) -> str:
        return self.media_id if self.nearest is None else f"{self.media_id}  (there is {self.nearest!r})"


def near_misses(source: MediaSource, missing: Sequence[str]) -> list[NearMiss]:
    """Return the nearest id of the source for each missing one, in order."""
    alike: dict[str, list[str]] = {}
    for held in source:
        alike.setdefault(_plain(held), []).append(held)
    found = []
    for media_id in missing:
        video, _ = Segment.split(media_id)
        near = alike.get(_plain(video), [])
        # Two ids that are alike are no answer to the question which one is meant.
        nearest = near[0] if len(near) == 1 else None
        found.append(NearMiss(media_id, nearest, "" if nearest is None else _remedy(video, nearest)))
    return found


def fix(misses: Iterable[NearMiss], source: MediaSource) -> str:
    """Return what to do about the most frequent reason, and about media that nothing is near to."""
    remedies = Counter(miss.remedy for miss in misses)
    absent = remedies.pop("", 0)
    steps = [remedy for remedy, _ in remedies.most_common(1)]
    add = f"put the missing files into {source.path}" if isinstance(source, MediaFolder) else "pack the missing files"
    # Ids that are similar may still be those of two media.
    if absent or _WRITING in remedies:
        steps.append(f"{add}, remove their records, or leave them out with data.on_missing_media: skip")
    return "; for media that are not there: ".join(steps)


def _plain(media_id: str) -> str:
    """Return an id without folder and ending, case, separators, and zeros before numbers."""
    name = unicodedata.normalize("NFKC", media_id_of(media_id.strip(), "name")).casefold()
    return re.sub(r"[\s_-]+", "", re.sub(r"0*([0-9]+)", r"\1", name))


def _remedy(missing: str, nearest: str) -> str:
    name = media_id_of(missing, "name")
    if name == nearest:
        return _FILE
    return _PATH if "/" in nearest and name == nearest.rpartition("/")[2] else _WRITING
