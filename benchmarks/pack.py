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
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lmdb
from decode import make_video
from harness import ENVIRONMENT, Outcome, command_line, run
from made_media import image
from PIL import Image

WANTED = 0.8
"""Share of the speed of decoding alone."""

KILLED = 24
"""Number of videos in the pack that is killed."""


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


def kills(folder: Path, count: int) -> dict[str, int]:
    """Kill a pack `count` times, then compare its content with that of an undisturbed pack."""
    rng = random.Random(0)
    store = folder.with_name("killed.store")
    start = time.perf_counter()
    check(started(folder, store))
    whole, undisturbed = time.perf_counter() - start, taken(store)
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
            assert taken(store) == undisturbed, "another content"
    check(started(folder, store))
    assert taken(store) == undisturbed, "another content"
    return {"killed": count, "items": len(undisturbed)}


def filled(folder: Path, media: Sequence[bytes], count: int, ending: str) -> Path:
    """Make a folder with `count` files that repeat the media, and return it."""
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}.{ending}").write_bytes(media[number % len(media)])
    return folder


def started(folder: Path, store: Path) -> subprocess.Popen[str]:
    """Start a pack with two processes."""
    command = [sys.executable, "-m", "clipbert_cli", "pack", folder, store, "--workers", "2"]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def check(process: subprocess.Popen[str], timeout: float | None = None) -> None:
    """Wait until a process has ended. Raise its messages if it failed."""
    _, said = process.communicate(timeout=timeout)
    if process.returncode:
        raise RuntimeError(f"pack failed with exit code {process.returncode}: {said}")


def taken(store: Path) -> dict[bytes, bytes]:
    """Return the content of a store, and remove the store."""
    with lmdb.open(str(store), readonly=True, lock=False) as environment, environment.begin() as txn:
        content = {bytes(key): bytes(value) for key, value in txn.cursor()}
    shutil.rmtree(store)
    return content


def tiny(folder: Path, count: int) -> dict[str, float]:
    """Pack many tiny pictures. Return the seconds, and the peak memory in MiB of the largest process."""
    filled(folder, [image(Image.new("RGB", (16, 16), "red"))], count, "png")
    start = time.perf_counter()
    process = started(folder, folder.with_name("tiny.store"))
    # The usage of this pack alone: other packs of this benchmark use more memory. It covers the workers, too.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    check(process)
    return {"files": count, "seconds": time.perf_counter() - start, "largest_process_mb": usage.ru_maxrss / 1024}


def measure(options: Namespace, folder: Path) -> Outcome:
    videos = list(map(make_video, range(min(options.videos, 8))))
    report: dict[str, Any] = {}
    results = []
    if options.repeats:
        row = report["speed"] = speed(filled(folder / "videos", videos, options.videos, "mp4"), options.repeats)
        results.append(f"{row['share']:.0%} of the speed of decoding alone")
    if options.kills:
        row = report["kills"] = kills(filled(folder / "few", videos, min(options.videos, KILLED), "mp4"), options.kills)
        results.append(f"the same {row['items']} items after {row['killed']} kills")
    if options.tiny:
        row = report["tiny"] = tiny(folder / "tiny", options.tiny)
        results.append(f"{row['files']} tiny files in {row['largest_process_mb']:.0f} MB of memory")
    return Outcome(report, ", ".join(results), report.get("speed", {}).get("share", 1) >= WANTED)


if __name__ == "__main__":
    run(command_line(__doc__, videos=72, repeats=3, kills=20, tiny=100_000), measure)
