"""The keys and JSON records that `pack` writes beside the media of a store.

    <media_id>                   the media file's bytes                 (the original's layout; media_id = file stem)
    /clipbert/manifest           what the store is, and whether it is complete
    /clipbert/info/<media_id>    what was learnt of one item (JSON)
    /clipbert/packets/<media_id> where a video's packets are, for items that are decoded without their container:
                                 zlib(JSON line, then six arrays in little-endian order)

A file stem cannot hold a slash, so these keys never meet a media id.
"""

from __future__ import annotations

import base64
import json
import zlib
from fractions import Fraction
from itertools import groupby, pairwise
from typing import Any

import numpy as np

from clipbert_cli.media.images import ProbedImage
from clipbert_cli.media.packets import PacketTable
from clipbert_cli.media.probe import ProbedVideo
from clipbert_cli.types import VideoInfo

FORMAT = 1
PREFIX = b"/clipbert/"
MANIFEST_KEY = PREFIX + b"manifest"
_INFO_PREFIX = PREFIX + b"info/"
_PACKETS_PREFIX = PREFIX + b"packets/"

_ARRAYS = ("<i8", "<u4", "<i4", "?", "?", "<u4")  # gaps, sizes, distances, entry, skippable, checksums
_ARRAYS_AT_FIRST = 5  # the first stores had no checksums
_NO_FRAME = -(2**31)


def info_key(media_id: str) -> bytes:
    """Where the record of an item is."""
    return _INFO_PREFIX + media_id.encode()


def packets_key(media_id: str) -> bytes:
    """Where the packet table of an item is."""
    return _PACKETS_PREFIX + media_id.encode()


def manifest_record(
    *, kind: str, complete: bool, items: int = 0, size: int = 0, transcode: dict[str, int] | None = None
) -> bytes:
    """The store's manifest; `size` is the media's bytes altogether, `transcode` how its videos were re-encoded."""
    fields = {"format": FORMAT, "complete": complete, "kind": kind, "items": items, "bytes": size}
    return _json(fields | ({"transcode": transcode} if transcode else {}))


def manifest(record: bytes) -> dict[str, Any]:
    """The fields of `manifest_record`.

    Raises:
        ValueError, KeyError, TypeError: the record is damaged.
    """
    fields: dict[str, Any] = json.loads(record)
    int(fields["format"]), bool(fields["complete"]), str(fields["kind"])
    return fields


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
            "decode": "linear" if probed.packets is None else "packets",
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


def fields(record: bytes) -> dict[str, Any]:
    """What `video_record` or `image_record` hold, by name."""
    found: dict[str, Any] = json.loads(record)
    return found


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


def packets_record(table: PacketTable) -> bytes:
    """A packet table. Offsets are kept as gaps to the end of the packet before, frames as distances from their place
    in decoding order, so that both are mostly small and equal."""
    ends = np.concatenate([[0], (table.offsets + table.sizes)[:-1]])
    header = {
        "packets": len(table.sizes),
        "codec": table.codec,
        "tag": table.tag,
        "extradata": base64.b64encode(table.extradata).decode(),
        "bits": table.bits,
        "data_size": table.data_size,
        "arrays": len(_ARRAYS) if table.checksums is not None else _ARRAYS_AT_FIRST,
    }
    arrays = (
        table.offsets - ends,
        table.sizes,
        np.where(table.shows < 0, _NO_FRAME, table.shows - np.arange(len(table.shows))),
        table.entry,
        table.skippable,
        *(() if table.checksums is None else (table.checksums,)),
    )
    body = b"".join(array.astype(form).tobytes() for array, form in zip(arrays, _ARRAYS, strict=False))
    return zlib.compress(_json(header) + b"\n" + body)


def packet_table(record: bytes) -> PacketTable:
    """The table, from `packets_record`.

    Raises:
        ValueError, KeyError, TypeError, zlib.error: the record is damaged.
    """
    line, _, body = zlib.decompress(record).partition(b"\n")
    header = json.loads(line)
    count, start, arrays = header["packets"], 0, []
    for form in _ARRAYS[: header.get("arrays", _ARRAYS_AT_FIRST)]:
        arrays.append(np.frombuffer(body, dtype=form, count=count, offset=start))
        start += arrays[-1].nbytes
    gaps, sizes, distances, entry, skippable, *checksums = arrays
    sizes = sizes.astype(np.int64)
    return PacketTable(
        codec=header["codec"],
        tag=header["tag"],
        extradata=base64.b64decode(header["extradata"]),
        bits=header["bits"],
        data_size=header["data_size"],
        offsets=np.cumsum(gaps + np.concatenate([[0], sizes[:-1]])),
        sizes=sizes,
        shows=np.where(distances == _NO_FRAME, -1, distances + np.arange(count)),
        entry=entry,
        skippable=skippable,
        checksums=checksums[0] if checksums else None,
    )


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
