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
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from harness import command_line, show
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


class Item:
    """One video, and what a store keeps about it."""

    def __init__(self, data: bytes) -> None:
        probed = probe_video(data)
        assert probed.packets is not None
        self.data = data
        self.info: VideoInfo = probed.info
        self.packets: PacketTable = probed.packets


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


def measure(sets: dict[str, list[Item]], *, repeats: int) -> Mapping[str, Mapping[str, float]]:
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


def measure_processes(videos: list[bytes], *, repeats: int) -> dict[str, float]:
    """Return the loader's items per second with one and with two processes, and their ratio; the best repeats count."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "videos"
        folder.mkdir()
        for number, data in enumerate(videos):
            (folder / f"{number}.mp4").write_bytes(data)
        pack_media([folder], Path(temporary) / "store", workers=2)
        source = open_media(Path(temporary) / "store", kind="video")
        groups = [Group(media_id, (Example("", media_id, ("",)),)) for media_id in source]
        # Shuffled, so that both processes get as much work.
        groups = groups * math.ceil(LOADED / len(groups))
        groups = [groups[place] for place in np.random.default_rng(0).permutation(len(groups))]
        dataset = GroupDataset(groups, source, MediaSettings(POLICIES["train"], SIDE), seed=0)
        rates = {1: 0.0, 2: 0.0}
        for _ in range(repeats):
            for count in rates:
                rates[count] = max(rates[count], steady_rate(dataset, count))
    return {
        "one_process_items_per_second": rates[1],
        "two_processes_items_per_second": rates[2],
        "two_against_one": rates[2] / rates[1],
    }


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


def main() -> int:
    parser = command_line(__doc__)
    parser.add_argument("--videos", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    videos = list(map(make_video, range(options.videos)))
    transcoded = [transcode_video(video, Transcode()) for video in videos]
    sets = {"plain": list(map(Item, videos)), "transcoded": list(map(Item, transcoded))}
    seconds = measure(sets, repeats=options.repeats)
    report = {policy: summary(policy, spent, videos) for policy, spent in seconds.items()}
    processes = measure_processes(videos, repeats=options.repeats)
    results = [
        f"{policy} x{ways['loader']['speedup']:.2f}, transcoded x{ways['loader, transcoded']['speedup']:.2f}, "
        f"decode / bound {ways['decode']['ms_per_video'] / ways['bound']['ms_per_video']:.2f}"
        for policy, ways in report.items()
    ]
    results += [f"two loading processes x{processes['two_against_one']:.2f}"]
    rows = {f"{policy}, {way}": row for policy, ways in report.items() for way, row in ways.items()}
    show(options, {**rows, **processes}, result="; ".join(results))
    return 0 if all(map(reached, report, report.values())) and processes["two_against_one"] >= WANTED_OF_WORKERS else 1


def reached(policy: str, ways: Mapping[str, Mapping[str, float]]) -> bool:
    """Return whether a policy's figures are within the limits."""
    fast = all(ways[way]["speedup"] >= least[policy] for way, least in WANTED.items())
    return fast and ways["decode"]["ms_per_video"] <= WANTED_OF_BOUND * ways["bound"]["ms_per_video"]


def summary(policy: str, spent: Mapping[str, float], videos: list[bytes]) -> dict[str, dict[str, float]]:
    clips = POLICIES[policy].num_clips * len(videos)
    return {
        name: {
            "ms_per_video": 1000 * seconds / len(videos),
            "speedup": spent["baseline"] / seconds,
            "clips_per_second": clips / seconds,
            "megabytes_per_second": sum(map(len, videos)) / 1e6 / seconds,
        }
        for name, seconds in spent.items()
    }


if __name__ == "__main__":
    sys.exit(main())
