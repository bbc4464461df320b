"""Make what a store keeps from the files of one media id. The worker processes of a pack call `ingest`.

Videos may be re-encoded, with loss, so that sampling is cheap: smaller frames, short groups of pictures, no B-frames.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import unicodedata
import zlib
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from clipbert_cli.errors import DecodeError
from clipbert_cli.media.canvas import check_aspect_ratio
from clipbert_cli.media.container import display_matrix, open_video
from clipbert_cli.media.ffmpeg import limited_to, watching
from clipbert_cli.media.frame_folder import folder_as_video, frame_files
from clipbert_cli.media.frames import COLOURSPACE, has_alpha, to_rgb
from clipbert_cli.media.images import probe_image
from clipbert_cli.media.probe import ProbedVideo, probe_video
from clipbert_cli.store import records
from clipbert_cli.store.environment import MAX_ITEM_BYTES
from clipbert_cli.store.source import read_media_file
from clipbert_cli.store.worker_pool import advance
from clipbert_cli.types import Kind, MediaIds, OnDuplicate

_TIME_BASE = Fraction(1, 90_000)
"""The clock of MPEG: the usual frame rates are whole numbers of its ticks, or nearly so."""


@dataclass(frozen=True, slots=True)
class Transcode:
    """Settings of the re-encoded videos, which are H.264 in MP4 without sound.

    Args:
        long_side: limit of the longer side in pixels; frames below it keep their size.
        gop: number of frames from one key frame to the next.
        crf: quality of x264, 0 to 51; a smaller value is a better picture and a larger file.
    """

    long_side: int = 448
    gop: int = 16
    crf: int = 23

    def __post_init__(self) -> None:
        if not (16 <= self.long_side <= 16_384 and 1 <= self.gop <= 10_000 and 0 <= self.crf <= 51):
            raise ValueError(f"{self}: long_side must be 16 to 16384, gop 1 to 10000 and crf 0 to 51")


def transcode_video(data: bytes, settings: Transcode) -> bytes:
    """Return the re-encoded video.

    Its frames keep their times, counted from the first one, and their orientation. Colours are those that decoding the
    source gives: of any source they become BT.601 of limited range, and transparent pixels lie on white. Frames of
    another size than the first one are scaled.

    Raises:
        DecodeError: the video does not decode to its end. The new file would decode without an error, so that nobody
            would notice later that its end is missing.
    """
    file = io.BytesIO()
    with open_video(data) as video, av.open(file, "w", format="mp4") as output:
        time_base = video.stream.time_base or Fraction(1)
        stream = None
        before = -1
        reformatter = VideoReformatter()
        for time, frame in video.frames():
            if stream is None:
                start = time
                stream = output.add_stream("libx264", rate=video.stream.average_rate or 25)
                stream.width, stream.height = _even_size(frame.width, frame.height, settings.long_side)
                stream.pix_fmt = "yuv420p"
                # Written into the stream, so that other programs show the right colours, too.
                stream.codec_context.color_range = ColorRange.MPEG
                stream.codec_context.colorspace = Colorspace.ITU601
                stream.set_display_matrix(display_matrix(frame))
                stream.codec_context.time_base = stream.time_base = _TIME_BASE
                # Packing has one process per core already.
                stream.codec_context.thread_count = 1
                # `fastdecode` leaves out CABAC, deblocking and weighted prediction: files are a quarter larger, clips
                # are decoded 1.7 times as fast, and pictures are nearly as close to the source (0.2 to 0.4 dB less).
                # No scene cuts, so that key frames are exactly `gop` frames apart; no B-frames, so that the frame that
                # a packet shows does not wait for a later packet. No macroblock tree: x264 reads memory there that it
                # never wrote, so that the same video would not always become the same bytes. Without the tree, a `crf`
                # of 23 gives the size of 20 with it, and pictures that are as close to the source or closer.
                stream.options = {
                    "crf": str(settings.crf),
                    "g": str(settings.gop),
                    "keyint_min": str(settings.gop),
                    "sc_threshold": "0",
                    "bf": "0",
                    "tune": "fastdecode",
                    "x264-params": "mbtree=0",
                }
            if has_alpha(frame.format.name):
                frame = VideoFrame.from_ndarray(to_rgb(reformatter, frame), format="rgb24")
            scaled = reformatter.reformat(
                frame,
                stream.width,
                stream.height,
                "yuv420p",
                interpolation="BILINEAR",
                dst_color_range="MPEG",
                threads=1,
                **COLOURSPACE,
            )
            # A decoded frame has the picture type of the source, and the encoder would repeat its key frames.
            scaled.time_base, scaled.pict_type = _TIME_BASE, PictureType.NONE
            # The encoder refuses times that do not increase; two frames of a source may round to the same tick.
            before = scaled.pts = max(before + 1, round((time - start) * time_base / _TIME_BASE))
            output.mux(stream.encode(scaled))
        if stream is None:
            raise DecodeError("no frame could be decoded: the video stream is empty")
        output.mux(stream.encode())
    return file.getvalue()


def _even_size(width: int, height: int, long_side: int) -> tuple[int, int]:
    """Return the (width, height) of the new video: at most `long_side`, and even, as 4:2:0 requires."""
    scale = min(1.0, long_side / max(width, height))
    return max(2, int(width * scale) // 2 * 2), max(2, int(height * scale) // 2 * 2)


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
