"""What a large retrieval job costs on many GPUs: an extrapolation from measured rates, and which term dominates.

    python benchmarks/large_case.py --rates retrieval.json [--json [FILE]] [--plot FILE]
    python benchmarks/large_case.py --matrix-tflops 790 --transformer-mfu 0.5 --cnn-mfu 0.4

Nothing large is run here. FLOPs are counted by torch on one clip and one text; each term is FLOPs divided by a rate:

    decode        seconds of a CPU core a video, spread over the cores of all machines; overlaps with the GPUs' work
    CNN           every frame of every clip once
    transformer   every text with every clip
    write         4 bytes a text and video

`--rates` takes the machine's matrix rate and the shares of it (MFU) from what `benchmarks/retrieval.py --json` wrote;
where that is a CPU's, the times are those of so many such CPUs. Options replace single rates. A number that is neither
measured nor given is not assumed: the script asks for it. Scaling over GPUs is taken as perfect, which the work allows:
nobody waits for anybody.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).parent))

from retrieval import FRAMES, SIDE, counted, make_model

GPUS = (1, 8, 64)
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
        answerer = model.answerer()

        def both(side: int, frames: int) -> tuple[float, float]:
            text = torch.zeros(1, length, model.config.bert.hidden_size)
            visual = torch.zeros(1, (side // 64) ** 2, model.config.bert.hidden_size)
            clip = torch.zeros(1, 1, frames, 3, side, side, dtype=torch.uint8)
            cnn = counted(lambda: model.encode_visual(clip))
            return cnn, counted(lambda: answerer(answerer.first(text), answerer.first(visual)))

        with torch.inference_mode():
            return cls(*both(SIDE, FRAMES), *both(SIDE // 2, 1))


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
    """What a job costs; decoding and writing overlap with the rest."""
    seconds = terms(job, counts, rates, gpus)
    compute = seconds["CNN"] + seconds["transformer"]
    longest = {"decode": seconds["decode"], "write": seconds["write"], "compute": compute}
    bound = max(longest, key=lambda name: longest[name])
    dominates = max(("CNN", "transformer"), key=lambda name: seconds[name]) if bound == "compute" else bound
    return {"job": job.name, "gpus": gpus, "seconds": longest[bound], "dominates": dominates, "terms": seconds}


def measured(path: str | None) -> dict[str, float]:
    """Rates of a document of retrieval.py: means over its cases."""
    if path is None:
        return {}
    document = json.loads(Path(path).read_text(encoding="utf-8"))
    rows = [each for each in document["rows"] if each["case"] != "linear"]
    if not rows:
        raise SystemExit(f"{path}: no compared case in it; run benchmarks/retrieval.py --case short --json {path}")
    rates = [rate for each in rows for rate in each["matrix_gflops"]]
    return {
        "matrix": 1e9 * sum(rates) / len(rates),
        "transformer": sum(each["transformer_mfu"] for each in rows) / len(rows),
        "cnn": sum(each["cnn_mfu"] for each in rows) / len(rows),
    }


def source(path: str | None) -> str:
    """Where the rates are from."""
    if path is None:
        return "as given"
    return f"measured on {json.loads(Path(path).read_text(encoding='utf-8'))['machine']['device']}"


def read_rates(options: argparse.Namespace) -> Rates:
    found = measured(options.rates)
    given = {"transformer": options.transformer_mfu, "cnn": options.cnn_mfu}
    given["matrix"] = options.matrix_tflops and 1e12 * options.matrix_tflops
    found |= {name: value for name, value in given.items() if value}
    if missing := {"matrix", "transformer", "cnn"} - found.keys():
        raise SystemExit(
            f"not known: the rates of {', '.join(sorted(missing))}\n"
            "next: give --rates FILE of benchmarks/retrieval.py --json, or each by its option"
        )
    return Rates(**found, decode=options.decode_ms / 1000, cores=options.cores, disk=options.disk)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", metavar="FILE", help="what retrieval.py --json wrote")
    parser.add_argument("--matrix-tflops", type=float, help="rate of a large matrix product")
    parser.add_argument("--transformer-mfu", type=float, help="share of it that the transformer reaches")
    parser.add_argument("--cnn-mfu", type=float, help="share of it that the CNN reaches")
    parser.add_argument(
        "--decode-ms", type=float, required=True, help="of a core, 16 clips of a video: decode.py, eval"
    )
    parser.add_argument("--cores", type=int, default=16, help="that decode for a GPU; default: 16")
    parser.add_argument("--disk", type=float, default=DISK, help="bytes a second; default: 200e6")
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="one JSON document, on stdout without FILE"
    )
    parser.add_argument("--plot", metavar="FILE", help="the terms of every job on one GPU, PNG")
    options = parser.parse_args()
    rates = read_rates(options)
    counts = {length: Counts.of(length) for length in {job.length for job in JOBS}}
    rows = [row(job, counts[job.length], rates, gpus) for job in JOBS for gpus in GPUS]
    document = {
        "benchmark": "large_case",
        "extrapolated_from": {"rates": asdict(rates), "file": options.rates},
        "rows": rows,
    }
    if options.json:
        text = json.dumps(document, indent=1)
        print(text) if options.json == "-" else Path(options.json).write_text(text + "\n", encoding="utf-8")
    if options.json != "-":
        print(
            f"a device: {rates.matrix / 1e12:.3g} TFLOP/s, {source(options.rates)}; {rates.cores} cores decode for it"
        )
        print("\n".join(map(line, rows)))
    if options.plot:
        plot([each for each in rows if each["gpus"] == 1], options.plot)


def line(result: dict[str, Any]) -> str:
    parts = "  ".join(f"{name} {readable(seconds)}" for name, seconds in result["terms"].items())
    total = readable(result["seconds"])
    return f"{result['job']:42} {result['gpus']:3} devices  {total:>11}  {result['dominates']:11} dominates   ({parts})"


def readable(seconds: float) -> str:
    """A duration in the unit that suits it."""
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.2g} s"


def plot(rows: list[dict[str, Any]], file: str) -> None:
    """Shares of the terms, a bar a job, drawn with Pillow."""
    colours = {"decode": "#7a7a7a", "CNN": "#c46d2c", "transformer": "#3b6ea5", "write": "#5a9a5a"}
    image = Image.new("RGB", (860, 50 + 30 * len(rows)), "white")
    draw = ImageDraw.Draw(image)
    for number, (name, colour) in enumerate(colours.items()):
        draw.text((280 + 120 * number, 8), name, fill=colour)
    for number, result in enumerate(rows):
        top, left, whole = 34 + 30 * number, 280.0, sum(result["terms"].values())
        draw.text((10, top + 5), result["job"], fill="black")
        for name, seconds in result["terms"].items():
            right = left + 480 * seconds / whole
            draw.rectangle((left, top, right, top + 22), fill=colours[name])
            left = right
        draw.text((left + 8, top + 5), readable(result["seconds"]), fill="black")
    image.save(file)


if __name__ == "__main__":
    main()
