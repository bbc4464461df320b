"""Make what a store keeps from the files of one media id. The worker processes of a pack call `ingest`."""

from __future__ import annotations

import contextlib
import dataclasses
import unicodedata
import zlib
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from clipbert_cli.errors import DecodeError
from clipbert_cli.media.canvas import check_aspect_ratio
from clipbert_cli.media.ffmpeg import limited_to, watching
from clipbert_cli.media.frame_folder import folder_as_video, frame_files
from clipbert_cli.media.images import probe_image
from clipbert_cli.media.probe import ProbedVideo, probe_video
from clipbert_cli.store import records
from clipbert_cli.store.source import read_media_file
from clipbert_cli.store.transcode import Transcode, transcode_video
from clipbert_cli.store.worker_pool import advance
from clipbert_cli.store.writer import MAX_ITEM_BYTES
from clipbert_cli.types import Kind, MediaIds, OnDuplicate

_CONTROL = ("Cc", "Zl", "Zp")
"""Unicode's categories of control characters and line breaks, which no table and no JSON lines show as they are."""

_SECONDS_TO_DECODE = 10
_SECONDS_PER_BYTE = 60e-6
"""The videos of benchmarks/decode.py need less than one second per megabyte; a minute is for the slowest codecs."""

_SECONDS_PER_PIXEL = 1e-6
"""The slowest codecs of benchmarks/decode.py need a hundredth of it per pixel of a frame."""

_TRANSCODING = 5
"""Encoding may take so many times as long as decoding alone."""


@dataclass(frozen=True, slots=True)
class PackSettings:
    """The settings of a pack. A stopped pack is only continued with equal settings.

    With `frame_rate` the files are folders of frames.
    """

    kind: Kind
    add: bool
    on_duplicate: OnDuplicate
    transcode: Transcode | None
    max_pixels: int
    frame_rate: Fraction | None
    ids: MediaIds


@dataclass(frozen=True, slots=True)
class Candidate:
    """A media id and the files of which one may become its item, as `on_duplicate` of the settings says."""

    media_id: str
    files: tuple[Path, ...]
    settings: PackSettings


@dataclass(frozen=True, slots=True)
class Ingested:
    """The result of `ingest` for one candidate.

    Args:
        file: the chosen file; None if no file can be used.
        crc32: checksum of the item's bytes.
        seconds: how long the video is shown.
        records: media record and packet table by key.
        data: the item's bytes, if they are not the file's; the parent process reads the file itself, because passing
            its bytes between processes would be slower.
        damage: what is wrong with the chosen file, which can be used nevertheless; empty if it is whole.
        skipped: (file, reason) of the other files.
    """

    file: Path | None
    crc32: int = 0
    seconds: float = 0.0
    records: dict[bytes, bytes] = field(default_factory=dict, repr=False)
    data: bytes | None = field(default=None, repr=False)
    damage: str = ""
    skipped: tuple[tuple[Path, str], ...] = ()


def ingest(candidate: Candidate) -> Ingested:
    """Decode the files of a candidate completely and choose one."""
    takes_first = candidate.settings.on_duplicate != "longest"
    best: Ingested | None = None
    skipped: list[tuple[Path, str]] = []
    usable: list[Path] = []
    for file in candidate.files:
        if best is not None and takes_first:
            usable.append(file)
            continue
        try:
            with limited_to(candidate.settings.max_pixels):
                ingested = _ingest_file(candidate, file)
        except DecodeError as exc:
            skipped.append((file, str(exc)))
            continue
        usable.append(file)
        if best is None or ingested.seconds > best.seconds:
            best = ingested
    if best is None:
        return Ingested(None, skipped=tuple(skipped))
    skipped += [(file, f"{best.file} has the same media id and is packed") for file in usable if file != best.file]
    return dataclasses.replace(best, skipped=tuple(skipped))


def _ingest_file(candidate: Candidate, file: Path) -> Ingested:
    try:
        candidate.media_id.encode()
    except UnicodeEncodeError as exc:
        raise DecodeError("its name is not valid UTF-8; rename it, for example with convmv") from exc
    if any(unicodedata.category(char) in _CONTROL for char in candidate.media_id):
        raise DecodeError("its name has a control character; rename it")
    data, settings = None, candidate.settings
    with watching(_advance):
        if settings.frame_rate is not None:
            data = folder_as_video(file, settings.frame_rate)
        if settings.transcode is not None:
            data = transcode_video(data or read_media_file(file), settings.transcode)
    stored = read_media_file(file) if data is None else data
    if len(stored) > MAX_ITEM_BYTES:
        raise DecodeError("its frames are larger than 4 GiB, the limit for an item of a store")
    known, probed = media_records(candidate.media_id, stored, settings.kind)
    return Ingested(
        file,
        zlib.crc32(stored),
        probed.info.shown_seconds if probed else 0.0,
        known,
        data,
        probed.info.failure if probed else "",
    )


def media_records(media_id: str, data: bytes, kind: Kind) -> tuple[dict[bytes, bytes], ProbedVideo | None]:
    """Return the records of an item by key, and what probing a video gave (None for an image).

    Raises:
        DecodeError: the item cannot be used.
    """
    of_the_file = {"bytes": len(data), "crc32": zlib.crc32(data)}
    with watching(_advance):
        if kind == "image":
            record = records.image_record(probe_image(data), **of_the_file)
            return records.sealed({records.info_key(media_id): record}), None
        probed = probe_video(data)
    check_aspect_ratio(probed.info.height, probed.info.width)  # Training would refuse the video.
    known = {records.info_key(media_id): records.video_record(probed, **of_the_file)}
    if probed.packets:
        known[records.packets_key(media_id)] = records.packets_record(probed.packets)
    return records.sealed(known), probed


def _advance(pixels: int) -> None:
    advance(pixels * _SECONDS_PER_PIXEL)


def seconds_allowed(size: int) -> float:
    """Return the seconds of processor time in which media of `size` bytes must give their first and each next frame.

    A damaged file can send a decoder into an endless loop. It must not stop the others. The number of frames is not
    limited: 80 seconds of a still picture in 4K fit into 100 kB and take 20 seconds to decode.
    """
    return _SECONDS_TO_DECODE + size * _SECONDS_PER_BYTE


def seconds_for(candidate: Candidate) -> float:
    """Return `seconds_allowed` for all files of a candidate together."""
    total = 0
    for file in candidate.files:
        with contextlib.suppress(OSError):
            total += sum(path.stat().st_size for path in (frame_files(file) if file.is_dir() else (file,)))
    return seconds_allowed(total) * (1 if candidate.settings.transcode is None else _TRANSCODING)
