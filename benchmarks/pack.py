"""How fast is packing, compared with processes that only decode the same videos?

    python benchmarks/pack.py [--videos 72] [--repeats 3] [--json]

`clipbert pack` decodes every video to its end with 2 processes, and stores what it learns. The same files are decoded
by two processes that do nothing else. Both times include the start of the processes. The two take turns; the repeat
whose ratio is the median counts. The exit code is 1 if pack has less than 80% of the decoders' speed.
"""

from __future__ import annotations

import multiprocessing
import shutil
import time
from argparse import Namespace
from pathlib import Path

import av
from decode import make_video
from harness import CLIPBERT, Outcome, command_line, cpu_seconds, run

WANTED = 0.8


def decode_only(file: Path) -> None:
    """Read and decode a file with one thread, as pack does, and nothing else."""
    with av.open(str(file)) as container:
        container.streams.video[0].codec_context.thread_type = "NONE"
        for _ in container.decode(video=0):
            pass


def compare(folder: Path) -> dict[str, float]:
    """Return the seconds of packing and of decoding alone, and the share of the speed that packing reaches."""
    files, store = sorted(folder.iterdir()), folder.with_name("store")
    start = time.perf_counter()
    # With chunks of one file, a process takes the next one when it is done, as in pack.
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(decode_only, files, chunksize=1)
    middle = time.perf_counter()
    cpu_seconds(CLIPBERT, "pack", folder, store, "--workers", 2)
    pack, decode = time.perf_counter() - middle, middle - start
    shutil.rmtree(store)
    return {"videos": len(files), "pack_seconds": pack, "decode_seconds": decode, "share": decode / pack}


def measure(options: Namespace, folder: Path) -> Outcome:
    videos = list(map(make_video, range(min(options.videos, 8))))
    (folder / "videos").mkdir()
    for number in range(options.videos):
        (folder / "videos" / f"{number}.mp4").write_bytes(videos[number % len(videos)])
    runs = sorted((compare(folder / "videos") for _ in range(max(1, options.repeats))), key=lambda run: run["share"])
    median = runs[(len(runs) - 1) // 2]
    result = f"packing has {median['share']:.0%} of the speed of decoding alone (wanted {WANTED:.0%})"
    return Outcome(median, result, median["share"] >= WANTED)


if __name__ == "__main__":
    run(command_line(__doc__, videos=72, repeats=3), measure)
