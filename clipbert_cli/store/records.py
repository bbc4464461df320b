"""The keys of a store and the records that `pack` writes beside the media.

    <media_id>                   the media file's bytes  (the original's layout; media_id = file stem or relative path)
    /clipbert/manifest           kind and version of the records (JSON); a store that is being made has none
    /clipbert/info/<media_id>    the media record: header values, checksum, presentation times (JSON), sealed
    /clipbert/packets/<media_id> the packet table, for videos that are decoded without their container:
                                 zlib(JSON line, then six arrays in little-endian order), sealed

A sealed record ends with the CRC-32 of its key and itself (four bytes, little-endian): one flipped bit in a time step
would change predictions without a word.

No media id begins with a slash, so none can be equal to one of the other keys.
"""

from __future__ import annotations

import base64
import json
import zlib
from itertools import groupby, pairwise
from typing import Any

import numpy as np

from clipbert_cli.errors import UnreadableError
from clipbert_cli.foreign import parse_fraction, parse_json
from clipbert_cli.media.images import ProbedImage
from clipbert_cli.media.packets import PacketTable
from clipbert_cli.media.probe import ProbedVideo
from clipbert_cli.types import Kind, MediaIds, VideoInfo

FORMAT = 5
"""Version of the media records. It is raised whenever what is computed of an item changes, so that records of an older
version are not used."""

PREFIX = b"/clipbert/"
MANIFEST_KEY = PREFIX + b"manifest"
INFO_PREFIX = PREFIX + b"info/"
_PACKETS_PREFIX = PREFIX + b"packets/"

MAX_FRAMES = 10_000_000
"""The limit of frames and of packets in a record: 92 hours at 30 frames per second."""

DAMAGED = (UnreadableError, ValueError, KeyError, TypeError, ArithmeticError, zlib.error)
"""The errors of functions that read a damaged record."""

_SEAL_BYTES = 4

_ARRAYS = ("<i8", "<u4", "<i4", "?", "?", "<u4")
"""Types of the arrays of a packet table: gaps, sizes, distances, entry, skippable, checksums."""

_NO_FRAME = -(2**31)
"""The distance of a packet that shows no frame; no real distance is as small."""


# The clockwise turn that makes an image of each EXIF orientation upright. Mirrored ones are turned as well.
_DEGREES = {1: 0, 2: 0, 3: 180, 4: 180, 5: 270, 6: 90, 7: 90, 8: 270}


def media_key(media_id: str) -> bytes:
    """Return the key of an item's bytes. Ids that come from file names may hold bytes that are not UTF-8."""
    return media_id.encode(errors="surrogateescape")


def media_id_of(key: bytes) -> str:
    """Return the media id of a key that `media_key` made."""
    return key.decode(errors="surrogateescape")


MAX_KEY_BYTES = 511
"""LMDB's limit as it is compiled everywhere. A longer key is an error there, not a key that is missing."""

MAX_ID_BYTES = MAX_KEY_BYTES - len(_PACKETS_PREFIX)
"""Longest media id of a store that has records, whose keys are longer than the ids."""


def info_key(media_id: str) -> bytes:
    """Return the key of an item's media record."""
    return INFO_PREFIX + media_key(media_id)


def packets_key(media_id: str) -> bytes:
    """Return the key of a video's packet table."""
    return _PACKETS_PREFIX + media_key(media_id)


def sealed(records: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Return records by key, each followed by the checksum that `unsealed` compares."""
    return {key: record + _seal(key, record) for key, record in records.items()}


def unsealed(key: bytes, value: bytes) -> bytes:
    """Return the record in a value of a store.

    Raises:
        ValueError: its checksum is not that of the key and the record.
    """
    record = value[:-_SEAL_BYTES]
    if value[-_SEAL_BYTES:] != _seal(key, record):
        raise ValueError("its checksum differs")
    return record


def _seal(key: bytes, record: bytes) -> bytes:
    return zlib.crc32(record, zlib.crc32(key)).to_bytes(_SEAL_BYTES, "little")


def manifest_record(*, kind: str, ids: MediaIds = "stem", transcode: dict[str, int] | None = None) -> bytes:
    """Return the manifest of a store.

    Args:
        ids: whether media ids are names or paths.
        transcode: settings with which the videos were re-encoded.
    """
    fields: dict[str, Any] = {"format": FORMAT, "kind": kind}
    return to_json(fields | ({} if ids == "stem" else {"ids": ids}) | ({"transcode": transcode} if transcode else {}))


def manifest(record: bytes) -> dict[str, Any]:
    """Return the fields of `manifest_record`.

    Raises:
        UnreadableError, ValueError, KeyError, TypeError: the record is damaged.
    """
    fields: dict[str, Any] = parse_json(record, "the manifest", line=None)
    _check_types(fields, {"format": (int,), "kind": (str,)})
    return fields


def video_record(probed: ProbedVideo, **of_the_file: int) -> bytes:
    """Return a video's media record. `of_the_file` are its size and checksum (`bytes`, `crc32`)."""
    info = probed.info
    steps = (after - before for before, after in pairwise(info.pts))
    return to_json(
        {
            **of_the_file,
            "codec": probed.codec,
            "width": info.width,
            "height": info.height,
            "num_frames": info.num_frames,
            "duration": info.duration,
            # Fractions are text: 30000/1001 as a float would give other frame indices at the edge of a clip.
            "average_rate": None if info.average_rate is None else str(info.average_rate),
            "time_base": str(info.time_base),
            "complete": info.complete,
            "orientation": info.orientation,
            "size_changes": info.size_changes,
            "damage": info.damage,
            "decode": "linear" if probed.packets is None else "packets",
            # Most videos have a constant rate: runs of equal steps keep an hour of video in a few bytes.
            "pts": {
                "start": info.pts[0],
                "steps": [[step, sum(1 for _ in run)] for step, run in groupby(steps)],
            },
        }
    )


def image_record(probed: ProbedImage, **of_the_file: int) -> bytes:
    """Return an image's media record. `of_the_file` are its size and checksum (`bytes`, `crc32`)."""
    return to_json(
        {
            **of_the_file,
            **{name: getattr(probed, name) for name in ("format", "width", "height", "frames", "orientation")},
            "decode": "pillow",
        }
    )


def media_fields(record: bytes, kind: Kind) -> dict[str, Any]:
    """Return the fields of `video_record` or `image_record`, whichever belongs to the kind.

    Raises:
        One of DAMAGED: the record is damaged.
    """
    fields = parse_json(record, "the media record", line=None)
    _check_types(fields, {"bytes": (int,), "crc32": (int,), **_TYPES[kind]})
    if any(fields[name] < 0 for name in ("bytes", "crc32", "width", "height")) or fields["orientation"] not in _DEGREES:
        raise ValueError("a number is negative, or no orientation")
    if kind == "video":
        video_info_of(fields)
    return dict(fields)


def listing(media_id: str, kind: str, record: dict[str, Any] | None) -> dict[str, Any]:
    """Return what `store ls --json` says of an item: always the same keys, None where a fact is unknown.

    `width` and `height` are those of the first frame as it is coded, `rotation` is the clockwise turn in degrees that
    makes it upright, `frames` counts the frames that decode, and `rate` is the header's frames per second.
    """
    known = record or {}
    facts = {
        "id": media_id,
        "kind": kind,
        "codec": known.get("codec") or known.get("format"),
        "width": known.get("width"),
        "height": known.get("height"),
        "rotation": _DEGREES[record["orientation"]] if record else None,
        "frames": known.get("frames"),
        "first_seconds": None,
        "last_seconds": None,
        "rate": None,
        "bytes": known.get("bytes"),
        "decoded_by": known.get("decode"),
        "damage": None,
    }
    if record and kind == "video":
        info = video_info_of(record)
        facts |= {
            "frames": len(info.pts),
            "first_seconds": round(info.seconds(0), 6),
            "last_seconds": round(info.seconds(-1), 6),
            "rate": None if info.average_rate is None else round(float(info.average_rate), 6),
            "damage": info.failure or None,
        }
    return facts


def video_info(record: bytes) -> VideoInfo:
    """Return from `video_record` what sampling needs.

    Raises:
        One of DAMAGED: the record is damaged.
    """
    return video_info_of(parse_json(record, "the media record", line=None))


def video_info_of(fields: dict[str, Any]) -> VideoInfo:
    """Return from the fields of `video_record` what sampling needs.

    Raises:
        One of DAMAGED: a field is missing or damaged.
    """
    _check_types(fields, _TYPES["video"])
    smallest = {"width": 1, "height": 1, "num_frames": 0}
    if any(fields[name] < least for name, least in smallest.items()) or fields["orientation"] not in _DEGREES:
        raise ValueError("a number is too small, or no orientation")
    time_base = parse_fraction(fields["time_base"])
    rate = None if fields["average_rate"] is None else parse_fraction(fields["average_rate"])
    if time_base <= 0 or (rate is not None and rate < 0):
        raise ValueError("its rate or time base is not positive")
    return VideoInfo(
        width=fields["width"],
        height=fields["height"],
        num_frames=fields["num_frames"],
        duration=fields["duration"],
        average_rate=rate,
        time_base=time_base,
        pts=_times(fields["pts"]["start"], fields["pts"]["steps"]),
        complete=fields["complete"],
        orientation=fields["orientation"],
        size_changes=tuple((frame, height, width) for frame, height, width in fields["size_changes"]),
        damage=fields["damage"],
    )


def _times(start: Any, steps: Any) -> tuple[int, ...]:
    """Return the times of frames from the first one and runs of equal steps."""
    if type(start) is not int or any(type(step) is not int or type(count) is not int for step, count in steps):
        raise TypeError("a time is of another type")
    if any(count < 0 for _, count in steps) or sum(count for _, count in steps) >= MAX_FRAMES:
        raise ValueError("it has too many frames")
    pts = [start]
    for step, count in steps:
        pts.extend(range(pts[-1] + step, pts[-1] + step * count + 1, step) if step else [pts[-1]] * count)
    if not -_LATEST < min(pts) <= max(pts) < _LATEST:
        raise ValueError("a time is too large")
    return tuple(pts)


_LATEST = 2**62
"""The limit of times: differences of two of them fit into 64 bits."""


_TYPES: dict[Kind, dict[str, tuple[type, ...]]] = {
    "video": {
        **dict.fromkeys(("width", "height", "num_frames", "orientation"), (int,)),
        **dict.fromkeys(("codec", "time_base", "damage", "decode"), (str,)),
        "duration": (int, type(None)),
        "average_rate": (str, type(None)),
        "complete": (bool,),
    },
    "image": {
        **dict.fromkeys(("width", "height", "frames", "orientation"), (int,)),
        **dict.fromkeys(("format", "decode"), (str,)),
    },
}


def _check_types(fields: dict[str, Any], types: dict[str, tuple[type, ...]]) -> None:
    """Raise TypeError or KeyError for a field that no record has."""
    if wrong := [name for name in types if type(fields[name]) not in types[name]]:
        raise TypeError(f"{wrong[0]} is of another type")


def packets_record(table: PacketTable) -> bytes:
    """Return the record of a packet table, about 1 % of the video's size."""
    header = {
        "packets": len(table.sizes),
        "codec": table.codec,
        "tag": table.tag,
        "extradata": base64.b64encode(table.extradata).decode(),
        "bits": table.bits,
        "color_range": table.color_range,
        "data_size": table.data_size,
    }
    # Instead of offsets the gaps to the end of the packet before, and instead of frame indices the distances from the
    # place in decoding order: both are mostly small and equal, so that zlib makes almost nothing of them.
    ends = np.concatenate([[0], (table.offsets + table.sizes)[:-1]])  # (P,)
    arrays = (
        table.offsets - ends,
        table.sizes,
        np.where(table.shows < 0, _NO_FRAME, table.shows - np.arange(len(table.shows))),
        table.entry,
        table.skippable,
        table.checksums,
    )
    body = b"".join(array.astype(form).tobytes() for array, form in zip(arrays, _ARRAYS, strict=True))
    return zlib.compress(to_json(header) + b"\n" + body)


def packet_table(record: bytes) -> PacketTable:
    """Return the table from `packets_record`.

    Raises:
        One of DAMAGED: the record is damaged.
    """
    # A few bytes can stand for gigabytes of zeros.
    content = zlib.decompressobj().decompress(record, MAX_FRAMES * sum(np.dtype(form).itemsize for form in _ARRAYS))
    line, _, body = content.partition(b"\n")
    header = parse_json(line, "the packet table", line=None)
    count, start, arrays = header["packets"], 0, []
    if type(count) is not int or not 0 < count <= MAX_FRAMES:
        raise ValueError("it has no packets, or too many")
    for form in _ARRAYS:
        arrays.append(np.frombuffer(body, dtype=form, count=count, offset=start))
        start += arrays[-1].nbytes
    gaps, sizes, distances, entry, skippable, checksums = arrays  # (P,) each
    # Sums of sizes exceed 32 bits in files of more than 4 GiB.
    sizes = sizes.astype(np.int64)
    _check_types(header, _TABLE_TYPES)
    shows = np.where(distances == _NO_FRAME, -1, distances + np.arange(count))
    _check_order(shows, entry)
    return PacketTable(
        codec=header["codec"],
        tag=header["tag"],
        extradata=base64.b64decode(header["extradata"]),
        bits=header["bits"],
        color_range=header["color_range"],
        data_size=header["data_size"],
        offsets=np.cumsum(gaps + np.concatenate([[0], sizes[:-1]])),
        sizes=sizes,
        shows=shows,
        entry=entry,
        skippable=skippable,
        checksums=checksums,
    )


_TABLE_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("codec", "tag", "extradata"), (str,)),
    **dict.fromkeys(("bits", "color_range", "data_size"), (int,)),
}


def _check_order(shows: np.ndarray, entry: np.ndarray) -> None:
    """Raise ValueError unless each frame has one packet, and decoding can start at or before each of them."""
    frames = shows[shows >= 0]
    if not len(frames) or shows.min() < -1 or frames.max() >= len(frames) or np.bincount(frames).min() == 0:
        raise ValueError("its packets do not show each frame once")
    first = int(np.argmax(entry))
    if not entry[first] or (shows[:first] >= 0).any() or shows[first] > 0:
        raise ValueError("decoding cannot start before its first frame")


def to_json(value: dict[str, Any]) -> bytes:
    """Return a compact JSON record."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
