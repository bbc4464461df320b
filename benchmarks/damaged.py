"""Is every damaged media file decoded or reported, without a crash or hang, and how many show a wrong frame unnoticed?

    python benchmarks/damaged.py [--items 1000] [--seed 0] [--memory-items 5000] [--json]

The script makes good videos and images, and damages them with a seeded generator: it truncates them, flips bits, zeroes
blocks or swaps halves. Every video frame shows its own index, so a wrong frame is recognised: decoded frames must show
rising indices of the video, and must not be black. Each file is probed, and its first, middle and last frames are
decoded in both ways. Finally `pack` reads all files.

A video ends where FFmpeg reports an error. FFmpeg decodes some flipped bits without one, in codecs and containers that
have no checksums. The resulting wrong frames are counted by codec, apart from those of files that are reported as
damaged further on. After packing, checksums guard the bytes.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

# The tests also load this file as a module, from another folder.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parent))

from harness import command_line, show
from made_media import image, marked_frame, read_index, video

from clipbert_cli.errors import DecodeError
from clipbert_cli.media.frames import decode_frames
from clipbert_cli.media.images import decode_image
from clipbert_cli.media.probe import probe_video
from clipbert_cli.store.pack import pack_media

FRAMES = 48
LIMIT_S = 10.0


def good_media() -> dict[str, bytes]:
    """Return some 25 files by name; the videos have FRAMES frames."""
    x264 = [{}, {"g": "48"}, {"g": "1"}, {"bf": "0"}, {"x264-params": "open-gop=1:bframes=3:keyint=12"}]
    # With frames this small, x264's macroblock tree gives different files from run to run.
    same = {"mbtree": "0"}
    media = {
        f"h264_{number}.mp4": video(FRAMES, options=same | {"crf": "20"} | options)
        for number, options in enumerate(x264)
    }
    for container, ending in (("matroska", "mkv"), ("mpegts", "ts"), ("flv", "flv"), ("avi", "avi")):
        media[f"h264.{ending}"] = video(FRAMES, container=container, options=same | {"crf": "12", "g": "12", "bf": "2"})
    media["intra_refresh.mp4"] = video(FRAMES, options=same | {"x264-params": "intra-refresh=1:keyint=12"})
    media["hevc.mp4"] = video(FRAMES, codec="libx265", options={"x265-params": "keyint=12:log-level=none"})
    for number, bframes in enumerate(("0", "2")):
        media[f"mpeg4_{number}.avi"] = video(FRAMES, codec="mpeg4", container="avi", options={"bf": bframes, "g": "12"})
    media["vp8.webm"] = video(FRAMES, codec="libvpx", container="webm", options={"g": "12", "cpu-used": "8"})
    media["vp9.webm"] = video(FRAMES, codec="libvpx-vp9", container="webm", options={"g": "12", "cpu-used": "8"})
    media["moving.gif"] = video(FRAMES, codec="gif", container="gif")
    media["mpeg2.vob"] = video(FRAMES, codec="mpeg2video", container="vob", options={"g": "12"})
    for form in ("jpeg", "png", "webp", "bmp", "tiff", "gif"):
        media[f"picture_{form}.{form}"] = image(marked_frame(7), form)
    return media


def damage(data: bytes, rng: np.random.Generator) -> bytes:
    """Return the data with one of the four kinds of damage."""
    kind = int(rng.integers(4))
    size = len(data)
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


def run(items: int, seed: int) -> dict[str, Any]:
    """Damage and decode `items` files; return the counts of outcomes, the slowest file and what `pack` reported."""
    media = list(good_media().items())
    rng = np.random.default_rng(seed)
    counts: Counter[str] = Counter()
    slowest = (0.0, "")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for number in range(items):
            name, data = media[number % len(media)]
            data = damage(data, rng)
            start = time.perf_counter()
            counts[outcome(name, data)] += 1
            slowest = max(slowest, (time.perf_counter() - start, f"{number} {name}"))
            kind = "images" if name.startswith("picture") else "videos"
            (folder / kind).mkdir(exist_ok=True)
            (folder / kind / f"{number}_{name}").write_bytes(data)
        packed = {}
        for kind in ("videos", "images"):
            store_kind = "video" if kind == "videos" else "image"
            summary = pack_media([folder / kind], folder / f"{kind}.store", kind=store_kind, workers=2)
            files = len(list((folder / kind).iterdir()))
            assert summary.packed + len(summary.skipped) == files, f"{files} files, {summary}"
            packed[kind] = {"packed": summary.packed, "skipped": len(summary.skipped), "damaged": len(summary.damaged)}
    assert slowest[0] < LIMIT_S, slowest
    return {"outcomes": dict(counts), "slowest": slowest, "pack": packed}


def memory_growth(media: list[tuple[str, bytes]], rng: np.random.Generator, *, items: int) -> float:
    """Return the relative growth of memory over many items, after a warm-up."""
    for number in range(items // 5):
        outcome(media[number % len(media)][0], damage(media[number % len(media)][1], rng))
    before = resident()
    for number in range(items):
        outcome(media[number % len(media)][0], damage(media[number % len(media)][1], rng))
    return resident() / before - 1


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--memory-items", type=int, default=5000, help="items over which memory must stay flat")
    arguments = parser.parse_args()
    report = run(arguments.items, arguments.seed)
    report["memory_growth"] = memory_growth(
        list(good_media().items()), np.random.default_rng(arguments.seed + 1), items=arguments.memory_items
    )
    outcomes, (seconds, slowest) = report["outcomes"], report["slowest"]
    shown = {**dict(sorted(outcomes.items())), "slowest": f"{seconds:.2f} s, {slowest}"}
    shown |= {f"pack of {kind}": row for kind, row in report["pack"].items()}
    wrong = sum(count for name, count in outcomes.items() if name.startswith("wrong picture:"))
    result = (
        f"{arguments.items} damaged files: none crashed or hung, {wrong} showed a wrong picture unnoticed; memory "
        f"grew by {report['memory_growth']:.1%} over {arguments.memory_items} more"
    )
    show(arguments, shown, result=result)


if __name__ == "__main__":
    main()
