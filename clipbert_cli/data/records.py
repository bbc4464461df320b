"""The keys and JSON records that `pack` writes beside the media of a store.

    <media_id>                   the media file's bytes                 (the original's layout; media_id = file stem)
    /clipbert/manifest           what the store is, and whether it is complete
    /clipbert/info/<media_id>    what was learnt of one item

A file stem cannot hold a slash, so these keys never meet a media id.
"""

from __future__ import annotations

import json
from fractions import Fraction
from itertools import groupby, pairwise
from typing import Any

from clipbert_cli.batch import VideoInfo
from clipbert_cli.data.probe import ProbedImage, ProbedVideo

FORMAT = 1
PREFIX = b"/clipbert/"
MANIFEST_KEY = PREFIX + b"manifest"
_INFO_PREFIX = PREFIX + b"info/"


def info_key(media_id: str) -> bytes:
    """Where the record of an item is."""
    return _INFO_PREFIX + media_id.encode()


def manifest_record(*, kind: str, complete: bool, items: int = 0, size: int = 0) -> bytes:
    """The store's manifest; `size` is the media's bytes altogether."""
    return _json({"format": FORMAT, "complete": complete, "kind": kind, "items": items, "bytes": size})


def video_record(probed: ProbedVideo, **of_the_file: int) -> bytes:
    """A video's record. Times are kept as runs of equal steps; fractions as text."""
    info = probed.info
    steps = (after - before for before, after in pairwise(info.pts))
    return _json(
        {
            **of_the_file,
            "codec": probed.codec,
            "container": probed.container,
            "width": info.width,
            "height": info.height,
            "num_frames": info.num_frames,
            "duration": info.duration,
            "average_rate": None if info.average_rate is None else str(info.average_rate),
            "time_base": str(info.time_base),
            "complete": info.complete,
            "keyframes": probed.keyframes,
            "pts": {
                "start": info.pts[0],
                "steps": [[step, sum(1 for _ in run)] for step, run in groupby(steps)],
            },
        }
    )


def image_record(probed: ProbedImage, **of_the_file: int) -> bytes:
    """An image's record."""
    return _json(
        {
            **of_the_file,
            "format": probed.format,
            "mode": probed.mode,
            "width": probed.width,
            "height": probed.height,
            "frames": probed.frames,
        }
    )


def video_info(record: bytes) -> VideoInfo:
    """What sampling needs, from `video_record`.

    Raises:
        ValueError, KeyError, TypeError: the record is damaged.
    """
    fields = json.loads(record)
    pts = [fields["pts"]["start"]]
    for step, count in fields["pts"]["steps"]:
        pts.extend(range(pts[-1] + step, pts[-1] + step * count + 1, step) if step else [pts[-1]] * count)
    rate = fields["average_rate"]
    return VideoInfo(
        width=fields["width"],
        height=fields["height"],
        num_frames=fields["num_frames"],
        duration=fields["duration"],
        average_rate=None if rate is None else Fraction(rate),
        time_base=Fraction(fields["time_base"]),
        pts=tuple(pts),
        complete=fields["complete"],
    )


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
