"""Packing: its speed against processes that only decode, kills at random moments, and memory over many tiny files.

    python benchmarks/pack.py [--videos 72] [--repeats 3] [--kills 20] [--tiny 100000] [--keep FOLDER] [--json]

speed    packs files with 2 processes, and decodes the same files in two processes that do nothing else. The two take
         turns; the repeat whose ratio is the median counts.
kills    kills a pack of 24 files with SIGKILL at a random moment and starts it again, until it ends. The content must
         be equal to that of an undisturbed pack, byte for byte.
tiny     packs that many pictures of a few hundred bytes and measures the memory of the process and its children.

0 leaves a part out. The exit code is 1 if pack has less than 80% of the decoders' speed, fails, or packs other content.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lmdb
from reporting import command_line, show

sys.path.insert(0, str(Path(__file__).parents[1]))

WANTED = 0.8
"""Share of the speed of decoding alone."""

KILLED = 24
"""Number of videos in the pack that is killed."""

COMMAND = [sys.executable, "-m", "clipbert_cli", "pack"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}


def decode_only(file: Path) -> None:
    """Read and decode a file with one thread, as pack does, and nothing else."""
    import av

    with av.open(str(file)) as container:
        container.streams.video[0].codec_context.thread_type = "NONE"
        for _ in container.decode(video=0):
            pass


def speed(folder: Path, repeats: int) -> dict[str, float]:
    """Return the seconds of packing and of decoding alone, with the start of the processes, and their ratio."""
    files, store = sorted(folder.iterdir()), folder.with_name("speed.store")
    runs = []
    for _ in range(repeats):
        start = time.perf_counter()
        with multiprocessing.get_context("spawn").Pool(2) as pool:  # each takes the next file when it is done with one
            pool.map(decode_only, files, chunksize=1)
        middle = time.perf_counter()
        check(started(folder, store))
        pack, decode = time.perf_counter() - middle, middle - start
        runs.append({"videos": len(files), "pack": pack, "decode_only": decode, "share": decode / pack})
        shutil.rmtree(store)
    return sorted(runs, key=lambda run: run["share"])[(len(runs) - 1) // 2]


def kills(folder: Path, count: int, seed: int) -> dict[str, int]:
    """Kill a pack `count` times, then compare its content with that of an undisturbed pack."""
    rng = random.Random(seed)
    undisturbed, store = folder.with_name("undisturbed.store"), folder.with_name("killed.store")
    start = time.perf_counter()
    check(started(folder, undisturbed))
    whole = time.perf_counter() - start
    killed = 0
    while killed < count:
        process = started(folder, store)
        try:
            check(process, timeout=rng.uniform(0.1, whole))
        except subprocess.TimeoutExpired:
            process.kill()
            if process.wait() > 0:  # not for its own processes, which may still be there when the next pack begins
                check(process)
            killed += 1
        if store.exists():  # it had ended; maybe just before it was killed
            assert content(store) == content(undisturbed), "another content"
            shutil.rmtree(store)
    check(started(folder, store))
    assert content(store) == content(undisturbed), "another content"
    return {"killed": killed, "items": len(content(store))}


def filled(folder: Path, videos: Sequence[bytes], count: int) -> Path:
    """A new folder of so many files, each of the videos again and again."""
    folder.mkdir()
    for number in range(count):
        (folder / f"video{number}.mp4").write_bytes(videos[number % len(videos)])
    return folder


def started(folder: Path, store: Path) -> subprocess.Popen[str]:
    """A pack by two processes."""
    command = [*COMMAND, folder, store, "--workers", "2"]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def check(process: subprocess.Popen[str], timeout: float | None = None) -> None:
    """Wait until a process has ended. Raise its messages if it failed."""
    _, said = process.communicate(timeout=timeout)
    if process.returncode:
        raise RuntimeError(f"pack failed with exit code {process.returncode}: {said}")


def content(store: Path) -> dict[bytes, bytes]:
    with lmdb.open(str(store), readonly=True, lock=False) as environment, environment.begin() as txn:
        return {bytes(key): bytes(value) for key, value in txn.cursor()}


def tiny(folder: Path, count: int) -> dict[str, float]:
    """Pack many tiny pictures. Return the peak memory in MB of the largest process and of all processes together."""
    from PIL import Image

    folder.mkdir()
    Image.new("RGB", (16, 16), "red").save(folder / "0.png")
    data = (folder / "0.png").read_bytes()
    for number in range(1, count):
        (folder / f"{number}.png").write_bytes(data)
    store = folder.with_name("tiny.store")
    start = time.perf_counter()
    process = started(folder, store)
    peak = 0
    while process.poll() is None:
        peak = max(peak, memory_of_family(process.pid))
        time.sleep(0.2)
    check(process)
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {"files": count, "seconds": time.perf_counter() - start, "all_mb": peak / 1e6, "largest_process_mb": largest}


def memory_of_family(parent: int) -> int:
    """Return the bytes in memory of a process and its children. Pages that they share count once in each."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            if int(folder.name) == parent or int(fields[1]) == parent:
                total += int(fields[21]) * resource.getpagesize()
        except (OSError, IndexError):
            continue
    return total


def main() -> int:
    parser = command_line(__doc__)
    parser.add_argument("--videos", type=int, default=72)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--tiny", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="keep the made videos here, and take them from here"
    )
    arguments = parser.parse_args()
    from decode import kept_videos

    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        videos = kept_videos(min(arguments.videos, 8), arguments.keep)
        if arguments.repeats:
            report["speed"] = speed(filled(Path(temporary) / "videos", videos, arguments.videos), arguments.repeats)
        if arguments.kills:
            folder = filled(Path(temporary) / "few", videos, min(arguments.videos, KILLED))
            report["kills"] = kills(folder, arguments.kills, arguments.seed)
        if arguments.tiny:
            report["tiny"] = tiny(Path(temporary) / "tiny", arguments.tiny)
    lines = [f"{part:6} {readable(row)}" for part, row in report.items()]
    show(arguments, report, lines=lines, result=result(report))
    return int(report.get("speed", {}).get("share", 1) < WANTED)


def readable(row: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in row.items())


def result(report: Mapping[str, Mapping[str, float]]) -> str:
    """Return the result in one line."""
    said = {
        "speed": lambda row: f"{row['share']:.0%} of the speed of decoding alone",
        "kills": lambda row: f"the same {row['items']} items after {row['killed']} kills",
        "tiny": lambda row: f"{row['files']} tiny files in {row['all_mb']:.0f} MB of memory",
    }
    return f"pack: {', '.join(said[part](row) for part, row in report.items()) or 'nothing was asked for'}"


if __name__ == "__main__":
    sys.exit(main())
