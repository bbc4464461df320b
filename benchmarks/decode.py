"""How fast are frames decoded from H.264 videos, compared with decoding clip by clip, and with the lower bound?

    python benchmarks/decode.py [--json] [--videos 8] [--repeats 3]

The script makes its videos. It measures CPU time in one process on one thread.
For each video all ways take turns, once per repeat, so that a busy machine slows all of them alike; the best repeat of
each way and video counts.

    train   8 random clips of 2 frames at 2 fps
    eval    16 evenly spaced clips of 2 frames at 2 fps, with the duration check

    baseline   per clip: open, seek, decode, RGB; frames resized in float32 and padded; eval also decodes the whole
               video once to find its end, as ClipBERT's code did
    loader     this project: packet table, one pass, uint8 canvas
    decode     the same without resizing: packets to RGB
    bound      only the packets that have to be decoded, no RGB

The exit code is 1 if a figure misses the limits of the constants WANTED.
"""

from __future__ import annotations

import gc
import io
import math
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import torch
from harness import Outcome, command_line, run
from PIL import Image
from torch.nn.functional import interpolate

from clipbert_cli.media.canvas import resize_size
from clipbert_cli.media.frames import decode_canvas, rgb_frames
from clipbert_cli.media.packets import PacketTable, decode_packets
from clipbert_cli.media.probe import probe_video
from clipbert_cli.media.sampling import ClipSampling, FrameIndices, select
from clipbert_cli.store.ingest import Transcode, transcode_video
from clipbert_cli.types import VideoInfo

SIDE = 448
WANTED = {"loader": {"train": 3.3, "eval": 5.5}, "loader, transcoded": {"train": 8.0, "eval": 12.0}}
"""Least speedup against the baseline."""
WANTED_OF_BOUND = 1.3
"""Largest time of `decode` as a multiple of `bound`."""
POLICIES = {
    "train": ClipSampling("random", 8, 2, 2.0),
    "eval": ClipSampling("clips", 16, 2, 2.0, safeguard=True),
}


def make_video(number: int) -> bytes:
    """Return 10 to 30 s of a moving texture, 320x240 or 640x360, GOP 60 or 250.

    There are three B-frames for every P-frame. One of the three is a reference, so half of all frames can be skipped.
    """
    rng = np.random.default_rng(number)
    width, height, rate = ((320, 240, 25), (640, 360, 30))[number % 2]
    seconds, gop, kilobits = int(rng.integers(10, 31)), (60, 250)[number // 2 % 2], int(rng.integers(370, 920))
    coarse = Image.fromarray(rng.integers(0, 255, (height // 20, width // 20, 3), dtype=np.uint8))
    texture = np.asarray(coarse.resize((2 * width, 2 * height), Image.Resampling.BICUBIC))
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=rate, width=width, height=height, bit_rate=kilobits * 1000)
        stream.options = {"g": str(gop), "bf": "3", "b_strategy": "0", "preset": "fast"}
        for index in range(seconds * rate):
            top, left = int(height / 2 * (1 + math.sin(index / 50))), int(width / 2 * (1 + math.cos(index / 70)))
            picture = np.ascontiguousarray(texture[top : top + height, left : left + width])
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode())
    return file.getvalue()


# ------------------------------------------------------------------------------------------------ ways to decode


class Item(NamedTuple):
    """One video, and what a store keeps about it."""

    data: bytes
    info: VideoInfo
    packets: PacketTable | None


def item_of(data: bytes) -> Item:
    probed = probe_video(data)
    return Item(data, probed.info, probed.packets)


def baseline(item: Item, clips: FrameIndices, *, whole: bool) -> torch.Tensor:
    """Decode clip by clip, each from a container of its own."""
    canvases = []
    if whole:
        with av.open(io.BytesIO(item.data)) as container:
            container.streams.video[0].codec_context.thread_type = "NONE"
            for _ in container.decode(video=0):
                pass
    for clip in clips:
        times, frames = [item.info.pts[index] for index in clip], {}
        with av.open(io.BytesIO(item.data)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_type = "NONE"
            container.seek(min(times), stream=stream, backward=True)
            for frame in container.decode(stream):
                if frame.pts >= min(times):
                    frames[frame.pts] = frame
                if frame.pts >= max(times):
                    break
        rgb = np.stack([frames[time].to_ndarray(format="rgb24") for time in times])
        pixels = torch.from_numpy(rgb).permute(0, 3, 1, 2).float()
        height, width = resize_size(*pixels.shape[2:], SIDE)
        canvas = torch.zeros((len(clip), 3, SIDE, SIDE))
        canvas[..., :height, :width] = interpolate(pixels, (height, width), mode="bilinear", align_corners=False)
        canvases.append(canvas)
    return torch.stack(canvases)


def loader(item: Item, clips: FrameIndices) -> None:
    decode_canvas(item.data, clips, SIDE, info=item.info, packets=item.packets)


def decode(item: Item, clips: FrameIndices) -> None:
    for _ in rgb_frames(item.data, {index for clip in clips for index in clip}, info=item.info, packets=item.packets):
        pass


def bound(item: Item, clips: FrameIndices) -> None:
    assert item.packets is not None
    for _ in decode_packets(item.data, item.packets, {index for clip in clips for index in clip}):
        pass


# ------------------------------------------------------------------------------------------------ measuring


def cpu_seconds(policy: str, videos: Sequence[tuple[Item, Item]], repeats: int) -> Mapping[str, float]:
    """Return the CPU seconds of each way for all videos, given with their transcoded forms."""
    seconds: Counter[str] = Counter()
    for number, (plain, transcoded) in enumerate(videos):
        ways: dict[str, tuple[Callable[[Item, FrameIndices], object], Item]] = {
            "baseline": (partial(baseline, whole=policy == "eval"), plain),
            **{way.__name__: (way, plain) for way in (loader, decode, bound)},
            "loader, transcoded": (loader, transcoded),
        }
        best = dict.fromkeys(ways, math.inf)
        for name, (way, item) in [*ways.items()] * repeats:
            # The clips of a video are the same for every way.
            clips = select(item.info, POLICIES[policy], np.random.default_rng(number))
            gc.collect()
            start = time.process_time()
            way(item, clips)
            best[name] = min(best[name], time.process_time() - start)
        seconds.update(best)
    return seconds


def measure(options: Namespace, folder: Path) -> Outcome:
    torch.set_num_threads(1)
    made = map(make_video, range(options.videos))
    videos = [(item_of(video), item_of(transcode_video(video, Transcode()))) for video in made]
    rows, results, reached = {}, [], []
    for policy in POLICIES:
        seconds = cpu_seconds(policy, videos, options.repeats)
        speedups = {way: seconds["baseline"] / spent for way, spent in seconds.items()}
        of_bound = seconds["decode"] / seconds["bound"]
        for way, spent in seconds.items():
            rows[f"{policy}, {way}"] = {"ms_per_video": 1000 * spent / len(videos), "speedup": speedups[way]}
        results.append(
            f"{policy} x{speedups['loader']:.2f}, transcoded x{speedups['loader, transcoded']:.2f}, "
            f"decode / bound {of_bound:.2f}"
        )
        reached.append(all(speedups[way] >= least[policy] for way, least in WANTED.items()))
        reached.append(of_bound <= WANTED_OF_BOUND)
    return Outcome(rows, "; ".join(results), all(reached))


if __name__ == "__main__":
    run(command_line(__doc__, videos=8, repeats=3), measure)
