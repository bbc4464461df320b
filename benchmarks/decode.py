"""How fast are frames decoded from H.264 videos, compared with decoding clip by clip, and with the lower bound?

    python benchmarks/decode.py [--json] [--plot FILE] [--videos 8] [--repeats 3] [--keep FOLDER]

The script makes its videos (`--keep` keeps them for the next run). It measures CPU time in one process on one thread.
For each video all ways take turns, once per repeat, so that a busy machine slows all of them alike; the best repeat of
each way and video counts.

    train   8 random clips of 2 frames at 2 fps
    eval    16 evenly spaced clips of 2 frames at 2 fps, with the duration check

    baseline   per clip: open, seek, decode, RGB; frames resized in float32 and padded; eval also decodes the whole
               video once to find its end, as ClipBERT's code did
    loader     this project: packet table, one pass, uint8 canvas
    decode     the same without resizing: packets to RGB
    bound      only the packets that have to be decoded, no RGB

torchcodec and decord are measured, too, if they can be loaded. Last, the script compares the items per second of
training clips with two loading processes and with one, in elapsed time while every process has work; this needs two
idle cores. The same ratio for two processes that share nothing shows what the machine allows. The exit code is 1 if a
figure misses the limits of the constants WANTED.
"""

from __future__ import annotations

import gc
import importlib
import io
import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

sys.path.insert(0, str(Path(__file__).parents[1]))

from charts import bars
from loading_processes import measure_workers
from reporting import command_line, show

from clipbert_cli.loading.dataset import MediaSettings
from clipbert_cli.media.canvas import resize_size
from clipbert_cli.media.frames import decode_canvas, rgb_frames
from clipbert_cli.media.packets import PacketTable, decode_packets
from clipbert_cli.media.probe import probe_video
from clipbert_cli.media.sampling import ClipSampling, FrameIndices, select
from clipbert_cli.store.transcode import Transcode, transcode_video
from clipbert_cli.types import VideoInfo

SIDE = 448
WANTED = {"loader": {"train": 3.3, "eval": 5.5}, "loader, transcoded": {"train": 8.0, "eval": 12.0}}
"""At least so many times as fast as the baseline."""
WANTED_OF_BOUND, WANTED_OF_WORKERS = 1.3, 1.7
"""Decoding takes at most so many times as long as the bound; two processes load at least so many times as much."""
POLICIES = {
    "train": ClipSampling("random", 8, 2, 2.0),
    "eval": ClipSampling("clips", 16, 2, 2.0, safeguard=True),
}


def make_video(number: int) -> bytes:
    """10 to 30 s of shapes that move over a background that moves, 320x240 or 640x360, GOP 60 or 250, three B-frames
    for every P (of which one is a reference: half of all frames can be skipped)."""
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
    """One video, and what a store knows of it."""

    def __init__(self, data: bytes) -> None:
        probed = probe_video(data)
        assert probed.packets is not None
        self.data = data
        self.info: VideoInfo = probed.info
        self.packets: PacketTable = probed.packets


def baseline(item: Item, clips: FrameIndices, *, whole: bool) -> torch.Tensor:
    """Clip by clip, each from a container of its own."""
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


def torchcodec(item: Item, clips: FrameIndices, *, whole: bool) -> torch.Tensor:
    from torchcodec.decoders import VideoDecoder

    frames = VideoDecoder(item.data, num_ffmpeg_threads=1).get_frames_at([index for clip in clips for index in clip])
    return _float_canvas(list(frames.data.permute(0, 2, 3, 1).numpy()))


def decord(item: Item, clips: FrameIndices, *, whole: bool) -> torch.Tensor:
    from decord import VideoReader

    frames = VideoReader(io.BytesIO(item.data), num_threads=1).get_batch([index for clip in clips for index in clip])
    return _float_canvas(list(frames.asnumpy()))


WAYS: dict[str, Callable[..., object]] = {"baseline": baseline, "loader": loader, "decode": decode, "bound": bound}


# ------------------------------------------------------------------------------------------------ measuring


def measure(sets: dict[str, list[Item]], *, repeats: int) -> Mapping[str, Mapping[str, float]]:
    """policy -> {"way on set": CPU seconds}; the clips of a video are the same for every way."""
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


def peers() -> dict[str, Callable[..., object]]:
    """Those that can be loaded here."""
    found = {}
    for peer in (torchcodec, decord):
        try:
            importlib.import_module(peer.__name__)
        except (ImportError, OSError, RuntimeError) as exc:
            print(f"without {peer.__name__}: {type(exc).__name__}", file=sys.stderr)
        else:
            found[peer.__name__] = peer
    return found


def kept_videos(
    count: int, folder: Path | None, make: Callable[[int], bytes] = make_video, *, name: str = ""
) -> list[bytes]:
    """The made videos, from `folder` where they are there."""
    videos = []
    for number in range(count):
        file = None if folder is None else folder / f"{name}{number}.mp4"
        videos.append(file.read_bytes() if file is not None and file.exists() else make(number))
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(videos[-1])
    return videos


def main() -> int:
    parser = command_line(__doc__, chart="times as fast as decoding clip by clip")
    parser.add_argument("--videos", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="keep the made videos here, and take them from here"
    )
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    WAYS.update(peers())
    videos = kept_videos(arguments.videos, arguments.keep)
    print(f"made {len(videos)} videos, {[len(data) // 1000 for data in videos]} kB", file=sys.stderr)
    sets = {
        "plain": [Item(data) for data in videos],
        "transcoded": [
            Item(data)
            for data in kept_videos(
                len(videos),
                arguments.keep,
                lambda number: transcode_video(videos[number], Transcode()),
                name="transcoded",
            )
        ],
    }
    seconds = measure(sets, repeats=arguments.repeats)
    report = {policy: summary(policy, spent, videos) for policy, spent in seconds.items()}
    workers = measure_workers(videos, MediaSettings(POLICIES["train"], SIDE), repeats=arguments.repeats)
    rows = [(policy, name, row) for policy, ways in report.items() for name, row in ways.items()]
    if arguments.plot:
        bars(arguments.plot, "times as fast", [(f"{policy}, {name}", row["speedup"]) for policy, name, row in rows])
    lines = [
        f"{policy:6} {name:20} {row['ms_per_video']:8.1f} ms a video  x{row['speedup']:5.2f}  "
        f"{row['clips_per_second']:7.1f} clips/s {row['megabytes_per_second']:6.1f} MB/s"
        for policy, name, row in rows
    ]
    lines += [f"workers {workers}"]
    results = [
        f"{policy} x{ways['loader']['speedup']:.2f}, transcoded x{ways['loader, transcoded']['speedup']:.2f}, "
        f"decode / bound {ways['decode']['ms_per_video'] / ways['bound']['ms_per_video']:.2f}"
        for policy, ways in report.items()
    ]
    together, apart = workers["two_against_one"], workers["machine_two_against_one"]
    results += [f"two loading processes x{together:.2f}, two that share nothing x{apart:.2f}"]
    show(arguments, {**report, "workers": workers}, lines=lines, result="; ".join(results))
    return 0 if all(map(reached, report, report.values())) and together >= WANTED_OF_WORKERS else 1


def reached(policy: str, ways: Mapping[str, Mapping[str, float]]) -> bool:
    """Whether the policy's figures are what is wanted of them."""
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
