"""One media id's files -> what a store keeps of it. This is what the processes of a pack do."""

from __future__ import annotations

import contextlib
import dataclasses
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from clipbert_cli.errors import DecodeError
from clipbert_cli.media.images import probe_image
from clipbert_cli.media.probe import ProbedVideo, inspect_video
from clipbert_cli.store import records
from clipbert_cli.store.transcode import Transcode, transcode_video
from clipbert_cli.store.writer import MAX_ITEM_BYTES
from clipbert_cli.types import Kind, VideoInfo


@dataclass(frozen=True, slots=True)
class Unit:
    """A media id and the files that may become it: of several the first that can be used, or (`longest`) the video that
    is shown longest."""

    media_id: str
    files: tuple[Path, ...]
    kind: Kind
    longest: bool = False
    transcode: Transcode | None = None


@dataclass(frozen=True, slots=True)
class Learned:
    """What became of a unit.

    `file` was chosen (None: no file can be used), `records` go beside its bytes and `crc32` is theirs; `data` are the
    bytes where they are not the file's. `skipped` (file, reason) pairs; `damage` says what is wrong with the chosen
    file, which can be used nevertheless.
    """

    file: Path | None
    crc32: int = 0
    length: float = 0.0
    records: dict[bytes, bytes] = field(default_factory=dict, repr=False)
    data: bytes | None = field(default=None, repr=False)
    damage: str | None = None
    skipped: tuple[tuple[Path, str], ...] = ()


def learn(unit: Unit) -> Learned:
    """Decode every file of a unit once, fully."""
    best: Learned | None = None
    skipped: list[tuple[Path, str]] = []
    usable: list[Path] = []
    for file in unit.files:
        if best is not None and not unit.longest:
            usable.append(file)
            continue
        try:
            learned = _learn(unit, file)
        except DecodeError as exc:
            skipped.append((file, str(exc)))
            continue
        usable.append(file)
        if best is None or learned.length > best.length:
            best = learned
    if best is None:
        return Learned(None, skipped=tuple(skipped))
    skipped += [(file, f"{best.file} has the same media id and is packed") for file in usable if file != best.file]
    return dataclasses.replace(best, skipped=tuple(skipped))


def seconds_allowed(size: int) -> float:
    """Processor time in which media of `size` bytes must be decoded: ten seconds, and a minute a megabyte (the videos
    of benchmarks/decode.py need less than a second a megabyte)."""
    return 10 + size * 60e-6


def seconds_for(unit: Unit) -> float:
    """`seconds_allowed` for all files of a unit; encoding them again takes longer."""
    total = 0
    for file in unit.files:
        with contextlib.suppress(OSError):
            total += file.stat().st_size
    return seconds_allowed(total) * (1 if unit.transcode is None else 5)


def read_file(path: Path) -> bytes:
    """A media file's bytes.

    Raises:
        DecodeError: too large, not a regular file, or the system does not let us; the message does not name it.
    """
    try:
        if path.stat().st_size > MAX_ITEM_BYTES:
            raise DecodeError("it is larger than 4 GiB, the most a store's item can be")
        if not path.is_file():
            raise DecodeError("it is not a regular file")
        return path.read_bytes()
    except OSError as exc:
        raise DecodeError(f"it cannot be read: {exc.strerror}") from exc


def learn_data(media_id: str, data: bytes, kind: Kind) -> tuple[dict[bytes, bytes], ProbedVideo | None]:
    """The records of an item with these bytes, and what was probed of a video.

    Raises:
        DecodeError: it cannot be used.
    """
    of_the_file = {"bytes": len(data), "crc32": zlib.crc32(data)}
    if kind == "image":
        return {records.info_key(media_id): records.image_record(probe_image(data), **of_the_file)}, None
    probed = inspect_video(data)
    known = {records.info_key(media_id): records.video_record(probed, **of_the_file)}
    if probed.packets:
        known[records.packets_key(media_id)] = records.packets_record(probed.packets)
    return known, probed


def seconds_of(info: VideoInfo) -> float:
    """How long a video is shown, up to the beginning of its last frame."""
    return float((info.pts[-1] - info.pts[0]) * info.time_base)


def damage(probed: ProbedVideo) -> str | None:
    """What is wrong with a video that does not decode to its end."""
    if probed.info.complete:
        return None
    of = f" of {probed.info.num_frames}" if probed.info.num_frames else ""
    return f"decoding fails after frame {len(probed.info.pts)}{of}"


def _learn(unit: Unit, file: Path) -> Learned:
    source = read_file(file)
    data = source if unit.transcode is None else transcode_video(source, unit.transcode)
    known, probed = learn_data(unit.media_id, data, unit.kind)
    return Learned(
        file,
        zlib.crc32(data),
        seconds_of(probed.info) if probed else 0.0,
        known,
        None if data is source else data,
        damage(probed) if probed else None,
    )
