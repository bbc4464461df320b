"""How fast every text is scored with every video: this project's inference against the plain way, in one run.

    python benchmarks/retrieval.py [--case short long small frames] [--json] [--plot FILE] [--device cuda]

ResNet-50 and BERT-base at random weights, 448 pixels, clips that are decoded already, of 2 frames or --frames. On a
CPU float32; on a GPU bf16 against the plain way in fp16, with more texts, videos and clips.

    short    MSRVTT-like texts, 11 tokens in the mean, 20 at most; the plain way takes all texts of a video together
    long     paragraphs, 50 tokens in the mean, 100 at most
    small    as short; the plain way takes 8 texts at a time, and runs the CNN again for each 8
    frames   as small, with 16 frames a clip, and 2 videos x 1 clip where nothing else is said

    plain    plain_model.py: clips in a loop, frames normalised in float32 on the CPU, convolutions and batch norms one
             by one, texts padded to the maximum, attention written out with its mask, all tokens of the last layer
    engine   clipbert_cli.infer.predict

Plain and engine are processes that take turns of a second, so that a busy machine slows both alike (turns.py).
FLOPs are counted by torch; `flop_ratio` is how many times as many operations the plain way has, so what leaving out
work alone can bring. The machine's rate is that of products of two large matrices, measured between the turns; MFU is
the share of it that the arithmetic reaches that is really done. The exit code is 1 where the engine is not as many
times as fast as wanted on a CPU, which `small` cannot be: with 2 frames a clip the plain way has only twice as many
operations. How the cost grows with texts, videos and clips is another script, linear.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import torch
from charts import bars
from device import name_of
from plain_model import PlainModel, normalised
from reporting import command_line, show
from scoring import LONG, SHORT, Case, Engine, engine_work, make_frames, make_model, make_texts, overhead, plain_work
from torch import Tensor
from turns import MACHINE, Clock, Turns, serve, serve_products

from clipbert_cli.types import Texts


@dataclass(frozen=True)
class Kind:
    """What a case is made of; the plain way takes `minibatch` texts at a time, None: all."""

    wanted: float
    lengths: tuple[int, int] = SHORT
    minibatch: int | None = None
    size: tuple[int, int, int] | None = None
    frames: int = 2


KINDS = {
    "short": Kind(1.25),
    "long": Kind(1.6, lengths=LONG),
    "small": Kind(4.0, minibatch=8),
    "frames": Kind(4.0, minibatch=8, size=(64, 2, 1), frames=16),
}
SIZES = {"cpu": (64, 4, 2), "cuda": (256, 16, 16)}
"""Texts, videos, clips."""


def plain_scores(model: PlainModel, frames: Tensor, texts: Texts, minibatch: int) -> Tensor:
    """(M, K, T, 3, H, W) and N texts, padded -> scores (M, N)."""
    device = model.transformer["pooler"].weight.device
    half = device.type == "cuda"
    scores = []
    with torch.autocast(device.type, dtype=torch.float16 if half else None, enabled=half):
        for video in frames:
            of_video = []
            for ids, mask in zip(texts.ids.split(minibatch), texts.mask.split(minibatch), strict=True):
                ids, mask, of_clips = ids.to(device), mask.to(device), []
                for clip in video:
                    visual = model.encode(normalised(clip, model.config)[None].to(device))  # (1, V, D)
                    of_clips.append(model.answer(ids, mask, visual.expand(len(ids), -1, -1)))  # (n, 2)
                of_video.append(torch.stack(of_clips, dim=1).float().logsumexp(dim=1).softmax(dim=-1)[:, 1])
            scores.append(torch.cat(of_video))
    return torch.stack(scores).cpu()


SIDES = ("plain", "engine")


@torch.inference_mode()
def score(side: str, case: Case, kind: Kind) -> Callable[[str], dict[str, Any]]:
    """One side: all scores, and when it was at work on what."""
    torch.manual_seed(2)
    texts, frames, minibatch = make_texts(case), make_frames(case), kind.minibatch or case.texts
    model = make_model().to(case.device)
    engine, clock = Engine(model, case, texts), Clock(case.device)
    first_frames, first_texts = frames, texts  # get their memory from the system; a GPU's libraries plan for each size
    if case.device.type != "cuda":
        first_frames, first_texts = frames[:1, :1], Texts(texts.ids[:2], texts.mask[:2])
    if side == "plain":
        plain = PlainModel.of(model).to(case.device)
        plain_scores(plain, first_frames, first_texts, minibatch)
    else:
        Engine(model, case, first_texts)(first_frames)

    @torch.inference_mode()
    def run(_: str) -> dict[str, Any]:
        if side == "engine":
            return {"scores": engine(frames).tolist(), "spans": engine.clock.spans}
        with clock.timed("whole"):
            scores = plain_scores(plain, frames, texts, minibatch)
        return {"scores": scores.tolist(), "spans": clock.spans}

    return run


def compare(case: Case, kind: Kind, options: Sequence[str]) -> dict[str, Any]:
    """Plain and engine in turns, as they have operations."""
    model, texts, minibatch = make_model().to(case.device), make_texts(case), kind.minibatch or case.texts
    with torch.inference_mode():
        cnn, transformer = engine_work(model, case, texts)
        plain = plain_work(PlainModel.of(model).to(case.device), case, texts, minibatch)
    work = {"plain": plain, "engine": cnn + transformer}
    with Turns(__file__, SIDES, ["--case", case.name, *options], device=case.device) as turns:
        answers = turns.take(dict.fromkeys(SIDES, "score"), work)
        rate = turns.rate()
    scores = {side: torch.tensor(answers[side].fields["scores"]) for side in SIDES}
    return {
        "case": case.name,
        "texts": case.texts,
        "videos": case.videos,
        "clips": case.clips,
        "frames": case.frames,
        "tokens_mean": float(texts.mask.sum(dim=1).float().mean()),
        "tokens_max": texts.ids.shape[1],
        "minibatch": minibatch,
        "precision": case.precision.name,
        **speeds(case, {side: answers[side].parts() for side in SIDES}, (cnn, transformer, plain), rate),
        "wanted": kind.wanted,
        "largest_difference": float((scores["plain"] - scores["engine"]).abs().max()),
        "scores": [float(scores["engine"].min()), float(scores["engine"].max())],
    }


def speeds(
    case: Case, seconds: Mapping[str, Mapping[str, float]], work: tuple[float, float, float], rate: float
) -> dict[str, Any]:
    """Pairs a second, and shares of the machine's `rate`.

    Args:
        seconds: of a side and part.
        work: FLOPs of the CNN, of the transformer, and of the plain way.
    """
    cnn, transformer, plain = work
    pairs, engine = case.texts * case.videos, seconds["engine"]
    whole, plain_whole = engine["whole"], seconds["plain"]["whole"]
    return {
        "pairs_per_second": pairs / whole,
        "plain_pairs_per_second": pairs / plain_whole,
        "speedup": plain_whole / whole,
        "flop_ratio": plain / (cnn + transformer),
        "plain_tflop": plain / 1e12,
        "tflop": (cnn + transformer) / 1e12,
        "mfu": (cnn + transformer) / whole / rate,
        "plain_mfu": plain / plain_whole / rate,
        "transformer_mfu": transformer / engine["transformer"] / rate,
        "cnn_mfu": cnn / engine["cnn"] / rate,
        "overhead": overhead(engine),
        "weights_seconds": engine["weights"],
        "matrix_gflops": rate / 1e9,
    }


# ------------------------------------------------------------------------------------------------ the command


def case_of(name: str, options: argparse.Namespace) -> tuple[Case, Kind]:
    kind, device = KINDS[name], torch.device(options.device)
    texts, videos, clips = kind.size or SIZES[device.type]
    size = (options.texts or texts, options.videos or videos, options.clips or clips)
    return Case(name, device, *size, options.frames or kind.frames, kind.lengths), kind


def main() -> int:
    parser = command_line(__doc__, chart="how many times as fast, measured and by operations")
    parser.add_argument("--case", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    for name in ("texts", "videos", "clips"):
        parser.add_argument(f"--{name}", type=int, help="default: 64, 4, 2 on a CPU, 256, 16, 16 on a GPU")
    parser.add_argument("--frames", type=int, help="of a clip; default: 2, in the case `frames` 16")
    parser.add_argument("--side", choices=(*SIDES, MACHINE), help="internal: work on what another process orders")
    options = parser.parse_args()
    if options.side:
        case, kind = case_of(options.case[0], options)
        if options.side == MACHINE:
            serve_products(case.device, case.precision.dtype)
        else:
            serve(score(options.side, case, kind))
        return 0
    rows: list[dict[str, Any]] = []
    sizes = {name: getattr(options, name) for name in ("device", "texts", "videos", "clips", "frames")}
    for name in options.case:
        given = [word for key, value in sizes.items() if value is not None for word in (f"--{key}", str(value))]
        rows.append(compare(*case_of(name, options), given))
        print(line(rows[-1]), file=sys.stderr, flush=True)  # a case takes minutes
    device = torch.device(options.device)
    machine = {"device": name_of(device), "threads": torch.get_num_threads(), "torch": torch.__version__}
    report = {"benchmark": "retrieval", "machine": {**machine, "date": date.today().isoformat()}, "rows": rows}
    if options.plot:
        marks = (("measured", "speedup"), ("by operations", "flop_ratio"))
        pairs = [(f"{row['case']}, {what}", row[key]) for row in rows for what, key in marks]
        bars(options.plot, "times as fast as the plain way", pairs)
    show(options, report, result=f"times as fast as the plain way: {'; '.join(map(short_line, rows))}")
    return int(device.type == "cpu" and any(row["speedup"] < row["wanted"] for row in rows))


def short_line(row: dict[str, Any]) -> str:
    """The ratio, what operations allow, what is wanted."""
    return f"{row['case']} x{row['speedup']:.2f} (operations x{row['flop_ratio']:.2f}, wanted x{row['wanted']:.2f})"


def line(row: dict[str, Any]) -> str:
    """A row for a person."""
    return (
        f"{row['case']:6} {row['texts']:4} x {row['videos']} x {row['clips']}  {short_line(row)}  "
        f"{row['pairs_per_second']:.2f} pairs/s  MFU {row['mfu']:.2f} (plain {row['plain_mfu']:.2f}, transformer "
        f"{row['transformer_mfu']:.2f}, CNN {row['cnn_mfu']:.2f})  overhead {row['overhead']:.1%}  "
        f"matrices {row['matrix_gflops']:.0f} GFLOP/s  scores differ {row['largest_difference']:.1e}"
    )


if __name__ == "__main__":
    sys.exit(main())
