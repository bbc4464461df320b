"""Media ids that a source lacks: which of its ids is meant, and what has to be changed."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from clipbert_cli.store.source import MediaFolder, MediaSource
from clipbert_cli.types import Segment, media_id_of

# Comparing one id with all others letter by letter takes seconds where there are many.
_MOST_COMPARED, _COMPARED_WITH = 5, 20_000

_DIGITS = re.compile(r"[0-9]")

_FIXES: dict[str, str] = {
    "file": "the annotations give names of files: set data.media_id: name",
    "path": "the media ids are paths: name media by their paths, and set data.media_id: path",
    "zeros": "the numbers differ in their zeros, which spreadsheets remove: format the column as text",
    "case": "media ids keep upper and lower case: write them as the files are named",
    "writing": "the ids differ in how they are written: write them as the files are named",
}
"""Reason why ids differ -> what to do."""


@dataclass(frozen=True)
class NearMiss:
    """A media id that is not there, the nearest one that is (None if none is near), and why they differ."""

    media_id: str
    nearest: str | None
    reason: str = ""

    def __str__(self) -> str:
        return self.media_id if self.nearest is None else f"{self.media_id}  (there is {self.nearest!r})"


def near_misses(source: MediaSource, missing: Sequence[str]) -> list[NearMiss]:
    """Return the nearest id of the source for each missing one, in order."""
    held = list(source)
    alike, unseparated, numbered = (_unique(held, each) for each in (_plain, _unseparated, _last_number))
    found = []
    for number, media_id in enumerate(missing):
        video, _ = Segment.split(media_id)
        nearest = alike.get(_plain(video)) or unseparated.get(_unseparated(video))
        if nearest is None and (same_number := numbered.get(_last_number(video))):
            # val0002 is not meant by train0002, but may be by 2.
            nearest = same_number if video.isdecimal() or same_number.isdecimal() else None
        if nearest is None and number < _MOST_COMPARED and len(held) <= _COMPARED_WITH:
            close = difflib.get_close_matches(video, held, n=3, cutoff=0.8)
            nearest = next((each for each in close if _DIGITS.findall(each) == _DIGITS.findall(video)), None)
        found.append(NearMiss(media_id, nearest, "" if nearest is None else _reason(video, nearest)))
    return found


def fix(misses: Iterable[NearMiss], source: MediaSource) -> str:
    """Return what to do about the most frequent reason, and about media that nothing is near to."""
    reasons = Counter(miss.reason for miss in misses)
    absent = reasons.pop("", 0)
    steps = [_FIXES[reason] for reason, _ in reasons.most_common(1)]
    add = f"put the missing files into {source.path}" if isinstance(source, MediaFolder) else "pack the missing files"
    # Ids that are similar may still be those of two media.
    if absent or "writing" in reasons:
        steps.append(f"{add}, remove their records, or leave them out with data.on_missing_media: skip")
    return "; for media that are not there: ".join(steps)


def _unique(ids: Iterable[str], simplify: Callable[[str], str]) -> dict[str, str]:
    """Return ids by what `simplify` leaves of them, if that is not empty."""
    found: dict[str, list[str]] = {}
    for media_id in ids:
        found.setdefault(simplify(media_id), []).append(media_id)
    # Two ids that are alike are no answer to the question which one is meant.
    return {simple: alike[0] for simple, alike in found.items() if simple and len(alike) == 1}


def _plain(media_id: str) -> str:
    name = unicodedata.normalize("NFKC", media_id_of(media_id.strip(), "name")).casefold()
    return re.sub(r"0*([0-9]+)", r"\1", re.sub(r"[\s_-]+", "_", name))


def _unseparated(media_id: str) -> str:
    return _plain(media_id).replace("_", "")


def _last_number(media_id: str) -> str:
    numbers = re.findall(r"[0-9]+", media_id_of(media_id, "name"))
    return numbers[-1].lstrip("0") or "0" if numbers else ""


def _reason(missing: str, nearest: str) -> str:
    if media_id_of(missing, "name") == nearest:
        return "file"
    if "/" in nearest and media_id_of(missing, "name") == nearest.rpartition("/")[2]:
        return "path"
    if missing.isdecimal() and nearest.isdecimal():
        return "zeros"
    return "case" if missing.lower() == nearest.lower() else "writing"
