"""Packing: its speed against processes that only decode, kills at random moments, and memory over many tiny files.

    python benchmarks/pack.py [--videos 72] [--repeats 3] [--kills 20] [--tiny 100000] [--json]

speed    packs files with 2 processes, and decodes the same files in two processes that do nothing else. The two take
         turns; the repeat whose ratio is the median counts.
kills    kills a pack of 24 files with SIGKILL at a random moment and starts it again, until it ends. The content must
         be equal to that of an undisturbed pack, byte for byte.
tiny     packs that many pictures of a few hundred bytes and measures the memory of the largest of its processes.

0 leaves a part out. The exit code is 1 if pack has less than 80% of the decoders' speed, fails, or packs other content.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lmdb
from decode import make_video
from harness import ROOT, command_line, show

WANTED = 0.8
"""Share of the speed of decoding alone."""

KILLED = 24
"""Number of videos in the pack that is killed."""

COMMAND = [sys.executable, "-m", "clipbert_cli", "pack"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


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
        # With chunks of one file, a process takes the next one when it is done, as in pack.
        with multiprocessing.get_context("spawn").Pool(2) as pool:
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
            # Its own processes may still run when the next pack begins, which pack must withstand.
            if process.wait() > 0:
                check(process)
            killed += 1
        # It may have ended just before it was killed.
        if store.exists():
            assert content(store) == content(undisturbed), "another content"
            shutil.rmtree(store)
    check(started(folder, store))
    assert content(store) == content(undisturbed), "another content"
    return {"killed": killed, "items": len(content(store))}


def filled(folder: Path, videos: Sequence[bytes], count: int) -> Path:
    """Make a folder with `count` files that repeat the videos, and return it."""
    folder.mkdir()
    for number in range(count):
        (folder / f"video{number}.mp4").write_bytes(videos[number % len(videos)])
    return folder


def started(folder: Path, store: Path) -> subprocess.Popen[str]:
    """Start a pack with two processes."""
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
    """Pack many tiny pictures. Return the seconds, and the peak memory in MiB of the largest process."""
    from PIL import Image

    folder.mkdir()
    Image.new("RGB", (16, 16), "red").save(folder / "0.png")
    data = (folder / "0.png").read_bytes()
    for number in range(1, count):
        (folder / f"{number}.png").write_bytes(data)
    store = folder.with_name("tiny.store")
    start = time.perf_counter()
    process = started(folder, store)
    # The usage of this pack alone: other packs of this benchmark use more memory. It covers the workers, too.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    check(process)
    return {"files": count, "seconds": time.perf_counter() - start, "largest_process_mb": usage.ru_maxrss / 1024}


def main() -> int:
    parser = command_line(__doc__)
    parser.add_argument("--videos", type=int, default=72)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--tiny", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        videos = list(map(make_video, range(min(arguments.videos, 8))))
        if arguments.repeats:
            report["speed"] = speed(filled(Path(temporary) / "videos", videos, arguments.videos), arguments.repeats)
        if arguments.kills:
            folder = filled(Path(temporary) / "few", videos, min(arguments.videos, KILLED))
            report["kills"] = kills(folder, arguments.kills, arguments.seed)
        if arguments.tiny:
            report["tiny"] = tiny(Path(temporary) / "tiny", arguments.tiny)
    results = {
        "speed": lambda row: f"{row['share']:.0%} of the speed of decoding alone",
        "kills": lambda row: f"the same {row['items']} items after {row['killed']} kills",
        "tiny": lambda row: f"{row['files']} tiny files in {row['largest_process_mb']:.0f} MB of memory",
    }
    result = ", ".join(results[part](row) for part, row in report.items()) or "nothing was measured"
    show(arguments, report, result=f"pack: {result}")
    return int(report.get("speed", {}).get("share", 1) < WANTED)


if __name__ == "__main__":
    sys.exit(main())
