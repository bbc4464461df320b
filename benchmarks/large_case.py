"""What a large retrieval job costs on many GPUs: an extrapolation from measured rates, and which term dominates.

    python benchmarks/large_case.py [--json] [--plot FILE]                          rates measured here, in a minute
    python benchmarks/large_case.py --rates retrieval.json --decode-ms 310          rates of another run or machine
    python benchmarks/large_case.py --matrix-tflops 790 --transformer-mfu 0.5 --cnn-mfu 0.4 --decode-ms 310

Nothing large is run here. FLOPs are counted by torch on one clip and one text; each term is FLOPs divided by a rate:

    decode        seconds of a CPU core a video, spread over the cores of all machines; overlaps with the GPUs' work
    CNN           every frame of every clip once
    transformer   every text with every clip
    write         4 bytes a text and video

A device's rates are the rate of a large matrix product and the shares of it (MFU) that CNN and transformer reach. They
are measured here on a few texts and clips, and decoding on a few made videos; or they come from what
`benchmarks/retrieval.py --json` printed (`--rates`), or from an option each. Where the device is a CPU, the times are
those of so many such CPUs. Scaling over devices is taken as perfect, which the work allows: nobody waits for anybody.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from charts import shares
from device import name_of
from reporting import command_line, show
from scoring import SIDE, Case, Engine, counted, engine_work, make_frames, make_model, make_texts
from turns import lengths

from clipbert_cli.media.frames import decode_canvas
from clipbert_cli.media.probe import probe_video
from clipbert_cli.media.sampling import ClipSampling, select
from clipbert_cli.profile.flops import matrix_product_rate

GPUS = (1, 8, 64)
FRAMES = 2
SAMPLING = ClipSampling("clips", 16, FRAMES, 2.0, safeguard=True)
VIDEOS = 2  # that decoding is measured on
DISK = 200e6  # bytes a second of a plain disk or network file system; --disk


@dataclass(frozen=True)
class Job:
    """N texts with M videos of K clips; `length` tokens a text."""

    name: str
    texts: int
    videos: int
    clips: int
    length: int


JOBS = (
    Job("MSRVTT 1k x 1k", 1000, 1000, 16, 11),
    Job("1 query, 1M videos", 1, 1_000_000, 16, 11),
    Job("1000 queries, 1M videos", 1000, 1_000_000, 16, 11),
    Job("1000 queries, shortlist of 100, 1M videos", 1000, 1_000_000, 16, 11),
)
SHORTLIST = 100


@dataclass(frozen=True)
class Rates:
    """FLOPs a second of a GPU (or whatever was measured), shares of it, seconds of a core a video, bytes a second."""

    matrix: float
    transformer: float
    cnn: float
    decode: float
    cores: int
    disk: float


@dataclass(frozen=True)
class Counts:
    """FLOPs of one clip's CNN, of one text with one clip, and both for a shortlist's cheap look."""

    cnn: float
    transformer: float
    cheap_cnn: float
    cheap_transformer: float

    @classmethod
    def of(cls, length: int) -> Counts:
        """By torch, on one clip and one text."""
        model = make_model()
        scorer = model.scorer()

        def both(frames: int) -> tuple[float, float]:
            text = torch.zeros(1, length, model.config.bert.hidden_size)
            visual = torch.zeros(1, (SIDE // 64) ** 2, model.config.bert.hidden_size)
            clip = torch.zeros(1, 1, frames, 3, SIDE, SIDE, dtype=torch.uint8)
            cnn = counted(lambda: model.encode_visual(clip))
            return cnn, counted(lambda: scorer(scorer.project(text), scorer.project(visual)))

        with torch.inference_mode():
            return cls(*both(FRAMES), *both(1))


TERMS = ("decode", "CNN", "transformer", "write")


def terms(job: Job, counts: Counts, rates: Rates, gpus: int) -> dict[str, float]:
    """Seconds of each term on `gpus` GPUs."""
    clips, pairs = job.videos * job.clips, job.texts * job.videos * job.clips
    cnn, transformer, decode = clips * counts.cnn, pairs * counts.transformer, float(job.videos)
    if "shortlist" in job.name:  # a cheap look at everything; of the rest, the videos that are on any text's list
        listed = min(job.videos, job.texts * SHORTLIST)
        cnn = job.videos * counts.cheap_cnn + listed * job.clips * counts.cnn
        transformer = job.videos * job.texts * counts.cheap_transformer
        transformer += job.texts * SHORTLIST * job.clips * counts.transformer
        decode += listed
    return {
        "decode": decode * rates.decode / rates.cores / gpus,
        "CNN": cnn / (rates.matrix * rates.cnn) / gpus,
        "transformer": transformer / (rates.matrix * rates.transformer) / gpus,
        "write": 4 * job.texts * job.videos / rates.disk,
    }


def row(job: Job, counts: Counts, rates: Rates, gpus: int) -> dict[str, Any]:
    """What a job costs in seconds, whole and by TERMS; decoding and writing overlap with the rest."""
    seconds = terms(job, counts, rates, gpus)
    compute = seconds["CNN"] + seconds["transformer"]
    longest = {"decode": seconds["decode"], "write": seconds["write"], "compute": compute}
    bound = max(longest, key=lambda name: longest[name])
    dominates = max(("CNN", "transformer"), key=lambda name: seconds[name]) if bound == "compute" else bound
    return {"job": job.name, "gpus": gpus, "seconds": longest[bound], "dominates": dominates, **seconds}


def measured_rates(device: torch.device) -> dict[str, float]:
    """Of this project's inference on a few texts and clips: the second of two runs."""
    case = Case("rates", device, *((256, 4, 4) if device.type == "cuda" else (16, 1, 2)))
    with torch.inference_mode():
        model, texts, frames = make_model().to(device), make_texts(case), make_frames(case)
        Engine(model, case, texts)(frames)
        before, engine = matrix_product_rate(device, case.precision.dtype), Engine(model, case, texts)
        engine(frames)
        matrix = (before + matrix_product_rate(device, case.precision.dtype)) / 2
        cnn, transformer = engine_work(model, case, texts)
    seconds = lengths(engine.clock.spans)
    return {
        "matrix": matrix,
        "transformer": transformer / seconds["transformer"] / matrix,
        "cnn": cnn / seconds["cnn"] / matrix,
    }


def measured_decoding() -> float:
    """CPU seconds of a core for the clips of a video, the mean over made videos of 10 to 30 s, best of two each."""
    from decode import kept_videos

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    total = 0.0
    for data in kept_videos(VIDEOS, None):
        probed = probe_video(data)
        clips = select(probed.info, SAMPLING, np.random.default_rng(0))
        best = math.inf
        for _ in range(2):
            begin = time.process_time()
            decode_canvas(data, clips, SIDE, info=probed.info, packets=probed.packets)
            best = min(best, time.process_time() - begin)
        total += best
    torch.set_num_threads(threads)
    return total / VIDEOS


def read_rates(file: str) -> tuple[dict[str, float], str]:
    """Rates of a document of retrieval.py, means over its cases, and the device that they are of."""
    document = json.loads(Path(file).read_text(encoding="utf-8"))
    rows = document["rows"]
    rates = [each["matrix_gflops"] for each in rows]
    found = {
        "matrix": 1e9 * sum(rates) / len(rates),
        "transformer": sum(each["transformer_mfu"] for each in rows) / len(rows),
        "cnn": sum(each["cnn_mfu"] for each in rows) / len(rows),
    }
    return found, document["machine"]["device"]


def rates_of(options: argparse.Namespace) -> tuple[Rates, str]:
    """The rates, given or measured, and where they are from."""
    given = {"transformer": options.transformer_mfu, "cnn": options.cnn_mfu}
    given["matrix"] = options.matrix_tflops and 1e12 * options.matrix_tflops
    given = {name: value for name, value in given.items() if value}
    found, source = dict(given), "as given"
    if options.rates:
        found, device = read_rates(options.rates)
        source = f"measured on {device}"
    elif len(given) < 3:
        here = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        found, source = measured_rates(here), f"measured on {name_of(here)}"
    decode = measured_decoding() if options.decode_ms is None else options.decode_ms / 1000
    return Rates(**{**found, **given}, decode=decode, cores=options.cores, disk=options.disk), source


def main() -> None:
    parser = command_line(__doc__, chart="shares of the terms of every job on one device, and their sum")
    parser.add_argument("--rates", metavar="FILE", help="what retrieval.py --json printed; default: measured here")
    parser.add_argument("--matrix-tflops", type=float, help="rate of a large matrix product")
    parser.add_argument("--transformer-mfu", type=float, help="share of it that the transformer reaches")
    parser.add_argument("--cnn-mfu", type=float, help="share of it that the CNN reaches")
    parser.add_argument("--decode-ms", type=float, help="of a core, 16 clips of a video; default: measured here")
    parser.add_argument("--cores", type=int, default=16, help="that decode for a device; default: 16")
    parser.add_argument("--disk", type=float, default=DISK, help="bytes a second; default: 200e6")
    options = parser.parse_args()
    rates, source = rates_of(options)
    counts = {length: Counts.of(length) for length in {job.length for job in JOBS}}
    rows = [row(job, counts[job.length], rates, gpus) for job in JOBS for gpus in GPUS]
    if options.plot:
        shares(options.plot, {each["job"]: terms_of(each) for each in rows if each["gpus"] == 1}, readable)
    device = f"a device: {rates.matrix / 1e12:.3g} TFLOP/s, {source}; {rates.cores} cores decode for it"
    first = rows[0]
    report = {"benchmark": "large_case", "extrapolated_from": {**asdict(rates), "source": source}, "rows": rows}
    show(
        options,
        report,
        lines=[device, *map(line, rows)],
        result=f"{first['job']} on one device: {readable(first['seconds'])}, {first['dominates']} dominates",
    )


def terms_of(result: dict[str, Any]) -> dict[str, float]:
    return {name: result[name] for name in TERMS}


def line(result: dict[str, Any]) -> str:
    parts = "  ".join(f"{name} {readable(seconds)}" for name, seconds in terms_of(result).items())
    total = readable(result["seconds"])
    return f"{result['job']:42} {result['gpus']:3} devices  {total:>11}  {result['dominates']:11} dominates   ({parts})"


def readable(seconds: float) -> str:
    """A duration in the unit that suits it."""
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.2g} s"


if __name__ == "__main__":
    main()
