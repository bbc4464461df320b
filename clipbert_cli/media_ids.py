"""Find the media id that a name in an annotation file means."""

from __future__ import annotations

from pathlib import PurePosixPath

from clipbert_cli.types import MEDIA_SUFFIXES, MediaNames, Segment

_ENDINGS = frozenset().union(*MEDIA_SUFFIXES.values())


def media_id_of(name: str, names: MediaNames) -> str:
    """Return the media id that an annotation means. With `path` it has the folders, divided by `/`."""
    if names == "stem":
        return name
    name, segment = Segment.split(name)
    # Windows divides the folders of a path in its own way.
    path = PurePosixPath(name.replace("\\", "/"))
    media_id = str(path) if names == "path" else path.name
    if path.suffix.lower() in _ENDINGS:
        media_id = media_id[: -len(path.suffix)]
    return media_id if segment is None else segment.of(media_id)
