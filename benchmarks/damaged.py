"""Is every damaged media file decoded or reported, without a crash or hang, and how many show a wrong frame unnoticed?

    python benchmarks/damaged.py [--items 1000] [--more 5000] [--json]

The script makes good videos and images, and damages them with a seeded generator: it truncates them, flips bits, zeroes
blocks or swaps halves. Every video frame shows its own index, so a wrong frame is recognised: decoded frames must show
rising indices of the video, and must not be black. Each file is probed, and its first, middle and last frames are
decoded in both ways. Then `pack` reads all files. Last, memory must stay flat over `--more` files.

A video ends where FFmpeg reports an error. FFmpeg decodes some flipped bits without one, in codecs and containers that
have no checksums. The resulting wrong frames are counted by codec, apart from those of files that are reported as
damaged further on. After packing, checksums guard the bytes.
"""

from __future__ import annotations

import resource
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from harness import Outcome, command_line, run
from made_media import image, marked_frame, read_index, video

from clipbert_cli.errors import DecodeError
from clipbert_cli.media.frames import decode_frames
from clipbert_cli.media.images import decode_image
from clipbert_cli.media.probe import probe_video
from clipbert_cli.store.pack import pack_media
from clipbert_cli.types import Kind

FRAMES = 48
LIMIT_S = 10.0
# File -> codec and options of the encoder.
VIDEOS: dict[str, tuple[str, dict[str, str]]] = {
    "h264_0.mp4": ("libx264", {"crf": "20"}),
    "h264_1.mp4": ("libx264", {"crf": "20", "g": "48"}),
    "h264_2.mp4": ("libx264", {"crf": "20", "g": "1"}),
    "h264_3.mp4": ("libx264", {"crf": "20", "bf": "0"}),
    "h264_4.mp4": ("libx264", {"crf": "20", "x264-params": "open-gop=1:bframes=3:keyint=12"}),
    **{f"h264.{ending}": ("libx264", {"crf": "12", "g": "12", "bf": "2"}) for ending in ("mkv", "ts", "flv", "avi")},
    "intra_refresh.mp4": ("libx264", {"x264-params": "intra-refresh=1:keyint=12"}),
    "hevc.mp4": ("libx265", {"x265-params": "keyint=12:log-level=none"}),
    "mpeg4_0.avi": ("mpeg4", {"bf": "0", "g": "12"}),
    "mpeg4_1.avi": ("mpeg4", {"bf": "2", "g": "12"}),
    "vp8.webm": ("libvpx", {"g": "12", "cpu-used": "8"}),
    "vp9.webm": ("libvpx-vp9", {"g": "12", "cpu-used": "8"}),
    "moving.gif": ("gif", {}),
    "mpeg2.vob": ("mpeg2video", {"g": "12"}),
}
PICTURES = ("jpeg", "png", "webp", "bmp", "tiff", "gif")


def good_media() -> dict[str, bytes]:
    """Return files by name; the videos have FRAMES frames."""
    containers = {"mkv": "matroska", "ts": "mpegts"}
    media = {}
    for name, (codec, options) in VIDEOS.items():
        ending = name.rpartition(".")[2]
        media[name] = video(FRAMES, codec=codec, container=containers.get(ending, ending), options=options)
    return media | {f"picture_{form}.{form}": image(marked_frame(7), form) for form in PICTURES}


def damage(data: bytes, rng: np.random.Generator) -> bytes:
    """Return the data with one of the four kinds of damage."""
    kind, size = int(rng.integers(4)), len(data)
    if kind == 0:
        return data[: int(rng.integers(0, size))]
    if kind == 3:
        middle = int(rng.integers(size // 4, 3 * size // 4))
        return data[middle:] + data[:middle]
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 9))):
        place = int(rng.integers(0, size))
        if kind == 1:
            changed[place] ^= 1 << int(rng.integers(8))
        else:
            length = len(changed[place : place + int(rng.integers(8, 400))])
            changed[place : place + length] = bytes(length)
    return bytes(changed)


def outcome(name: str, data: bytes) -> str:
    """Return `decoded`, `decoded up to damage` or `reported`.

    If a frame is wrong, return `wrong picture` and the codec, or `wrong picture before reported damage` if FFmpeg
    reports an error further on.

    Raises:
        AssertionError: a frame is black, or the two ways of decoding give different frames.
    """
    try:
        if name.startswith("picture"):
            assert decode_image(data).shape[2] == 3
            return "decoded"
        probed = probe_video(data)
        count = len(probed.info.pts)
        wanted = sorted({0, count // 2, count - 1})
        shown = []
        for packets in {id(table): table for table in (None, probed.packets)}.values():
            frames = decode_frames(data, (tuple(wanted),), info=probed.info, packets=packets)[0]
            assert all(frame.max() > 32 for frame in frames), f"{name}: a black frame"
            shown.append([read_index(frame) for frame in frames])
        assert all(indices == shown[0] for indices in shown), f"{name}: two ways, two pictures: {shown}"
    except DecodeError:
        return "reported"
    if sorted(shown[0]) != shown[0] or not set(shown[0]) <= set(range(FRAMES)):
        return f"wrong picture{'' if probed.info.complete else ' before reported damage'}: {probed.codec}"
    return "decoded" if probed.info.complete else "decoded up to damage"


def decode_and_pack(media: Mapping[str, bytes], folder: Path, items: int, *, seed: int) -> dict[str, Any]:
    """Damage, decode and pack `items` files; return counts of outcomes, the slowest file and what `pack` reported."""
    rng = np.random.default_rng(seed)
    counts: Counter[str] = Counter()
    slowest = (0.0, "")
    for number in range(items):
        name = list(media)[number % len(media)]
        data = damage(media[name], rng)
        start = time.perf_counter()
        counts[outcome(name, data)] += 1
        slowest = max(slowest, (time.perf_counter() - start, f"{number} {name}"))
        kind = "image" if name.startswith("picture") else "video"
        (folder / kind).mkdir(exist_ok=True)
        (folder / kind / f"{number}_{name}").write_bytes(data)
    assert slowest[0] < LIMIT_S, slowest
    packed = {f"pack of {kind}s": pack(folder / kind, kind) for kind in ("video", "image")}
    return {**dict(sorted(counts.items())), "slowest": f"{slowest[0]:.2f} s, {slowest[1]}", **packed}


def pack(folder: Path, kind: Kind) -> dict[str, int]:
    summary = pack_media([folder], folder.with_name(f"{kind}.store"), kind=kind, workers=2)
    files = len(list(folder.iterdir()))
    assert summary.packed + len(summary.skipped) == files, f"{files} files, {summary}"
    return {"packed": summary.packed, "skipped": len(summary.skipped), "damaged": len(summary.damaged)}


def memory_growth(media: Mapping[str, bytes], items: int, *, seed: int) -> float:
    """Return the relative growth of memory over many items, after a warm-up of a fifth as many."""
    rng = np.random.default_rng(seed)
    sizes = []
    for count in (items // 5, items):
        for number in range(count):
            name = list(media)[number % len(media)]
            outcome(name, damage(media[name], rng))
        sizes.append(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize())
    return sizes[1] / sizes[0] - 1


def measure(options: Namespace, folder: Path) -> Outcome:
    media = good_media()
    report = decode_and_pack(media, folder, options.items, seed=0)
    growth = report["memory_growth"] = memory_growth(media, options.more, seed=1)
    wrong = sum(count for name, count in report.items() if name.startswith("wrong picture:"))
    result = (
        f"{options.items} damaged files: none crashed or hung, {wrong} showed a wrong picture unnoticed; "
        f"memory grew by {growth:.1%} over {options.more} more"
    )
    return Outcome(report, result)


if __name__ == "__main__":
    run(command_line(__doc__, items=1000, more=5000), measure)
