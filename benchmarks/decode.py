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

Last, the script compares the items per second of training clips with two loading processes and with one, in elapsed
time while every process has work; this needs two idle cores. The exit code is 1 if a figure misses the limits of the
constants WANTED.
"""

from __future__ import annotations

import gc
import io
import math
import time
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from harness import Outcome, command_line, run
from PIL import Image
from torch.nn.functional import interpolate

from clipbert_cli.loading.dataset import GroupDataset, MediaSettings
from clipbert_cli.loading.loader import BatchLoader
from clipbert_cli.loading.order import OrderedBatches
from clipbert_cli.media.canvas import resize_size
from clipbert_cli.media.frames import decode_canvas, rgb_frames
from clipbert_cli.media.packets import PacketTable, decode_packets
from clipbert_cli.media.probe import probe_video
from clipbert_cli.media.sampling import ClipSampling, FrameIndices, select
from clipbert_cli.store.lmdb_store import open_media
from clipbert_cli.store.pack import pack_media
from clipbert_cli.store.transcode import Transcode, transcode_video
from clipbert_cli.types import Example, Group, Texts, VideoInfo

SIDE = 448
WANTED = {"loader": {"train": 3.3, "eval": 5.5}, "loader, transcoded": {"train": 8.0, "eval": 12.0}}
"""Least speedup against the baseline."""
WANTED_OF_BOUND, WANTED_OF_WORKERS = 1.3, 1.7
"""Largest time of `decode` as a multiple of `bound`; least speedup of two loading processes against one."""
LOADED = 48
"""Items to load at least, so that each process has several batches while all of them work."""
POLICIES = {
    "train": ClipSampling("random", 8, 2, 2.0),
    "eval": ClipSampling("clips", 16, 2, 2.0, safeguard=True),
}


def make_video(number: int) -> bytes:
    """Return 10 to 30 s of shapes that move over a moving background, 320x240 or 640x360, GOP 60 or 250.

    There are three B-frames for every P-frame. One of the three is a reference, so half of all frames can be skipped.
    """
    rng = np.random.default_rng(number)
    width, height, rate = ((320, 240, 25), (640, 360, 30))[number % 2]
    seconds, gop, kilobits = int(rng.integers(10, 31)), (60, 250)[number // 2 % 2], int(rng.integers(370, 920))
    coarse = Image.fromarray(rng.integers(0, 255, (height // 20, width // 20, 3), dtype=np.uint8))
    texture = np.asarray(coarse.resize((2 * width, 2 * height), Image.Resampling.BICUBIC))
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.bit_rate = kilobits * 1000
        stream.options = {"g": str(gop), "bf": "3", "b_strategy": "0", "preset": "fast"}
        for index in range(seconds * rate):
            top, left = int(height / 2 * (1 + math.sin(index / 50))), int(width / 2 * (1 + math.cos(index / 70)))
            picture = texture[top : top + height, left : left + width].copy()
            for ball in range(4):
                y = int((height - 40) * (0.5 + 0.5 * math.sin(index / (9 + ball))))
                x = int((width - 40) * (0.5 + 0.5 * math.cos(index / (13 + ball))))
                picture[y : y + 40, x : x + 40] = (60 * ball, 255 - 60 * ball, 128)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, rate)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return file.getvalue()


# ------------------------------------------------------------------------------------------------ ways to decode


@dataclass(frozen=True)
class Item:
    """One video, and what a store keeps about it."""

    data: bytes
    info: VideoInfo
    packets: PacketTable

    @classmethod
    def of(cls, data: bytes) -> Item:
        probed = probe_video(data)
        assert probed.packets is not None
        return cls(data, probed.info, probed.packets)


def baseline(item: Item, clips: FrameIndices, *, whole: bool) -> torch.Tensor:
    """Decode clip by clip, each from a container of its own."""
    if whole:
        with av.open(io.BytesIO(item.data)) as container:
            _single_thread(container)
            for _ in container.decode(video=0):
                pass
    return torch.stack([_float_canvas(list(_clip(item, clip))) for clip in clips])


def _clip(item: Item, clip: tuple[int, ...]) -> Iterator[np.ndarray]:
    times = item.info.pts
    with av.open(io.BytesIO(item.data)) as container:
        _single_thread(container)
        stream = container.streams.video[0]
        container.seek(times[min(clip)], stream=stream, backward=True)
        frames = {}
        for frame in container.decode(stream):
            if times[min(clip)] <= frame.pts <= times[max(clip)]:
                frames[frame.pts] = frame
            if frame.pts >= times[max(clip)]:
                break
        for index in clip:
            yield frames[times[index]].to_ndarray(format="rgb24")


def _single_thread(container: av.container.InputContainer) -> None:
    container.streams.video[0].codec_context.thread_type = "NONE"


def _float_canvas(frames: list[np.ndarray]) -> torch.Tensor:
    pixels = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float()
    resized = resize_size(pixels.shape[2], pixels.shape[3], SIDE)
    canvas = torch.zeros((len(frames), 3, SIDE, SIDE))
    canvas[..., : resized[0], : resized[1]] = interpolate(pixels, size=resized, mode="bilinear", align_corners=False)
    return canvas


def loader(item: Item, clips: FrameIndices, *, whole: bool) -> torch.Tensor:
    return decode_canvas(item.data, clips, SIDE, info=item.info, packets=item.packets)


def decode(item: Item, clips: FrameIndices, *, whole: bool) -> None:
    for _ in rgb_frames(item.data, {index for clip in clips for index in clip}, info=item.info, packets=item.packets):
        pass


def bound(item: Item, clips: FrameIndices, *, whole: bool) -> None:
    for _ in decode_packets(item.data, item.packets, {index for clip in clips for index in clip}):
        pass


WAYS: dict[str, Callable[..., object]] = {"baseline": baseline, "loader": loader, "decode": decode, "bound": bound}


# ------------------------------------------------------------------------------------------------ measuring


def turns_of_ways(sets: Mapping[str, list[Item]], repeats: int) -> Mapping[str, Mapping[str, float]]:
    """Return the CPU seconds of each policy and way; the clips of a video are the same for every way."""
    seconds: dict[str, defaultdict[str, float]] = {}
    for policy, sampling in POLICIES.items():
        seconds[policy] = defaultdict(float)
        for number in range(len(sets["plain"])):
            turns = [(name, way, sets["plain"][number]) for name, way in WAYS.items()]
            turns += [(f"loader, {kind}", loader, items[number]) for kind, items in sets.items() if kind != "plain"]
            best = dict.fromkeys((name for name, *_ in turns), math.inf)
            for _ in range(repeats):
                for name, way, item in turns:
                    clips = select(item.info, sampling, np.random.default_rng(number))
                    gc.collect()
                    start = time.process_time()
                    way(item, clips, whole=policy == "eval")
                    best[name] = min(best[name], time.process_time() - start)
            for name, spent in best.items():
                seconds[policy][name] += spent
    return seconds


# ------------------------------------------------------------------------------------------------ loading processes


def loading_processes(videos: list[bytes], folder: Path, repeats: int) -> dict[str, float]:
    """Return the loader's items per second with one and with two processes, and their ratio; the best repeats count."""
    (folder / "videos").mkdir()
    for number, data in enumerate(videos):
        (folder / "videos" / f"{number}.mp4").write_bytes(data)
    pack_media([folder / "videos"], folder / "store", workers=2)
    source = open_media(folder / "store", kind="video")
    groups = [Group(media_id, (Example("", media_id, ("",)),)) for media_id in source]
    # Shuffled, so that both processes get as much work.
    groups = groups * math.ceil(LOADED / len(groups))
    groups = [groups[place] for place in np.random.default_rng(0).permutation(len(groups))]
    dataset = GroupDataset(groups, source, MediaSettings(POLICIES["train"], SIDE), seed=0)
    turns = [{workers: steady_rate(dataset, workers) for workers in (1, 2)} for _ in range(repeats)]
    one, two = (max(turn[workers] for turn in turns) for workers in (1, 2))
    return {"one_process_items_per_second": one, "two_processes_items_per_second": two, "two_against_one": two / one}


def steady_rate(dataset: GroupDataset, workers: int) -> float:
    """Return the items per second while every process works.

    That is from the first batch of the process that starts last until each process has one batch left.
    """
    order = OrderedBatches(len(dataset), batch_size=4)
    arrived = []  # when, and how many items
    for batch in BatchLoader(dataset, no_texts, order, workers=workers):
        arrived.append((time.perf_counter(), len(batch.media_ids)))
    steady = arrived[max(workers, 1) - 1 : len(arrived) - workers]
    return sum(count for _, count in steady[1:]) / (steady[-1][0] - steady[0][0])


def no_texts(examples: Sequence[Example]) -> Texts:
    return Texts(torch.zeros((len(examples), 1), dtype=torch.long), torch.ones((len(examples), 1), dtype=torch.bool))


# ------------------------------------------------------------------------------------------------ the command


def measure(options: Namespace, folder: Path) -> Outcome:
    torch.set_num_threads(1)
    videos = list(map(make_video, range(options.videos)))
    transcoded = [transcode_video(video, Transcode()) for video in videos]
    sets = {"plain": list(map(Item.of, videos)), "transcoded": list(map(Item.of, transcoded))}
    rows, results, reached = {}, [], []
    for policy, seconds in turns_of_ways(sets, options.repeats).items():
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
    processes = loading_processes(videos, folder, options.repeats)
    results.append(f"two loading processes x{processes['two_against_one']:.2f}")
    reached.append(processes["two_against_one"] >= WANTED_OF_WORKERS)
    return Outcome({**rows, **processes}, "; ".join(results), all(reached))


if __name__ == "__main__":
    run(command_line(__doc__, videos=8, repeats=3), measure)
