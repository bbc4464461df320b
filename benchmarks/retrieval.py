"""How fast every text is scored with every video: this project's inference against the plain way, in one run.

    python benchmarks/retrieval.py [--case short long small linear] [--json [FILE]] [--plot FILE] [--device cuda]

ResNet-50 and BERT-base at random weights, 448 pixels, clips of 2 frames that are decoded already. On a CPU float32; on
a GPU bf16 against the plain way in fp16, with more texts, videos and clips.

    short    MSRVTT-like texts, 11 tokens in the mean, 20 at most; the plain way takes all texts of a video together
    long     paragraphs, 50 tokens in the mean, 100 at most
    small    as short; the plain way takes 8 texts at a time, and runs the CNN again for each 8
    linear   the engine alone, from 1/8 of the texts and clips to all of them

    plain    plain torch: clips in a loop, frames normalised in float32 on the CPU, convolutions and batch norms one by
             one, texts padded to the maximum, attention written out with its mask, all tokens of the last layer
    engine   clipbert_cli.engine.predict

Plain and engine take turns, the plain way video by video. FLOPs are counted by torch. The machine's rate is that of a
product of two large matrices, measured before, between and after; MFU is the share of it that the arithmetic reaches
that is really done.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1]))

from clipbert_cli.batch import Batch, Example, Texts
from clipbert_cli.engine import predict as engine
from clipbert_cli.engine.precision import Precision
from clipbert_cli.model import ClipBert, HeadSpec
from clipbert_cli.model.answering import Answerer
from clipbert_cli.recipe.schema import InferConfig, ModelConfig, ObjectiveConfig
from clipbert_cli.task.retrieval import Retrieval

SIDE, FRAMES = 448, 2
WANTED = {"short": 1.25, "long": 1.6, "small": 4.0}
LENGTHS = {"short": (11, 20), "long": (50, 100), "small": (11, 20), "linear": (11, 20)}  # mean, maximum


@dataclass(frozen=True)
class Case:
    """N texts x M videos x K clips; the plain way takes `minibatch` texts at a time."""

    name: str
    device: torch.device
    texts: int
    videos: int
    clips: int
    minibatch: int

    @property
    def precision(self) -> Precision:
        return Precision("bf16" if self.device.type == "cuda" else "fp32")


def make_texts(case: Case) -> Texts:
    """Lengths of a clipped normal distribution with this mean and maximum, both ends of it there."""
    mean, maximum = LENGTHS[case.name]
    rng = np.random.default_rng(1)
    lengths = np.clip(np.round(rng.normal(mean, mean / 3, case.texts)), 4, maximum).astype(int)
    lengths[:2] = maximum, 2 * mean - maximum if 2 * mean - maximum >= 4 else 4
    mask = torch.arange(maximum) < torch.from_numpy(lengths)[:, None]
    return Texts(torch.randint(1000, 30000, mask.shape) * mask, mask)


def make_frames(case: Case) -> Tensor:
    """(M, K, T, 3, H, W) uint8: coarse squares of colour."""
    count = case.videos * case.clips * FRAMES
    coarse = F.interpolate(torch.randint(0, 256, (count, 3, 14, 14)).float(), size=(SIDE, SIDE), mode="bilinear")
    return coarse.to(torch.uint8).view(case.videos, case.clips, FRAMES, 3, SIDE, SIDE)


def make_model() -> ClipBert:
    """Random weights, the classifier's large enough for scores that differ."""
    torch.manual_seed(0)
    model = ClipBert(ModelConfig(), HeadSpec("classifier", 2)).eval()
    for part in model.head.layers[::2]:
        torch.nn.init.normal_(part.weight, std=0.08)
    return model


# ------------------------------------------------------------------------------------------------ the plain way


def plain(model: ClipBert, frames: Tensor, texts: Texts, minibatch: int, device: torch.device) -> Tensor:
    """(M, K, T, 3, H, W) and N texts, padded -> scores (M, N)."""
    half = device.type == "cuda"
    scores = []
    with torch.autocast(device.type, dtype=torch.float16 if half else None, enabled=half):
        for video in frames:
            of_video = []
            for ids, mask in zip(texts.ids.split(minibatch), texts.mask.split(minibatch), strict=True):
                of_clips = []
                for clip in video:
                    pixels = (clip.float() - model.cnn.pixel_mean.cpu().view(-1, 1, 1)).flip(1)  # BGR
                    visual = plain_visual(model, plain_cnn(model, pixels.to(device)))  # (1, V, D)
                    of_clips.append(plain_answers(model, ids.to(device), mask.to(device), visual))  # (n, 2)
                of_video.append(torch.stack(of_clips, dim=1).float().logsumexp(dim=1).softmax(dim=-1)[:, 1])
            scores.append(torch.cat(of_video))
    return torch.stack(scores).cpu()


def plain_cnn(model: ClipBert, x: Tensor) -> Tensor:
    """(T, 3, H, W) normalised -> (T, h, w, D)."""
    stem = model.cnn.stem.embedder
    x = F.max_pool2d(F.relu(conv_norm(stem, x)), 3, 2, 1)
    for stage in model.cnn.stages:
        for block in stage.layers:
            first, second, third = block.layer
            y = F.relu(conv_norm(second, F.relu(conv_norm(first, x))))
            shortcut = conv_norm(block.shortcut, x) if hasattr(block.shortcut, "convolution") else x
            x = F.relu(conv_norm(third, y) + shortcut)
    x = F.conv2d(x, model.cnn.grid.weight, padding=1)
    return F.relu(F.max_pool2d(x, 2)).permute(0, 2, 3, 1)


def conv_norm(part: Any, x: Tensor) -> Tensor:
    conv, norm = part.convolution, part.normalization
    x = F.conv2d(x, conv.weight, stride=conv.stride, padding=conv.padding)
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


def plain_visual(model: ClipBert, grid: Tensor) -> Tensor:
    """(T, h, w, D) of one clip -> (1, V, D)."""
    places = model.visual_embeddings
    tokens = grid.mean(dim=0, keepdim=True)
    tokens = tokens + places.row_embeddings.weight[: grid.shape[1], None]
    tokens = tokens + places.column_embeddings.weight[: grid.shape[2]]
    tokens = tokens.flatten(1, 2) + places.token_type_embeddings.weight[0]
    return places.LayerNorm(tokens)


def plain_answers(model: ClipBert, ids: Tensor, mask: Tensor, visual: Tensor) -> Tensor:
    """n padded texts with one clip (1, V, D) -> logits (n, 2)."""
    words = model.text_embeddings
    text = words.word_embeddings(ids) + words.position_embeddings.weight[: ids.shape[1]]
    text = words.LayerNorm(text + words.token_type_embeddings.weight[0])
    x = torch.cat([text, visual.expand(len(ids), -1, -1)], dim=1)  # (n, L+V, D)
    seen = torch.cat([mask, mask.new_ones(len(ids), visual.shape[1])], dim=1)
    bias = torch.where(seen, 0.0, -10000.0)[:, None, None]  # as BERT's code does it
    for layer in model.encoder.layer:
        own, heads = layer.attention.self, layer.attention.self.num_attention_heads
        query, key, value = (
            part(x).unflatten(-1, (heads, -1)).transpose(1, 2) for part in (own.query, own.key, own.value)
        )
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1]) + bias
        mixed = (scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2)
        x = layer.attention.output.LayerNorm(layer.attention.output.dense(mixed) + x)
        x = layer.output.LayerNorm(layer.output.dense(F.gelu(layer.intermediate.dense(x))) + x)
    return model.head.layers(model.pooler.dense(x[:, 0]).tanh())


# ------------------------------------------------------------------------------------------------ the engine


@dataclass
class Engine:
    """The project's inference, and where its time goes."""

    model: ClipBert
    case: Case
    texts: Texts
    seconds: dict[str, float] = field(default_factory=dict)

    def __call__(self, frames: Tensor) -> Tensor:
        """(M, K, T, 3, H, W) -> scores (M, N)."""
        none = torch.zeros((0, 1), dtype=torch.long)
        names = tuple(f"video{number}" for number in range(len(frames)))
        batch = Batch(frames, none, none.bool(), none[:, 0], (), media_ids=names)
        examples = tuple(Example(str(number), names[0], ("",)) for number in range(len(self.texts.ids)))
        with self.timed("whole"), self.parts():
            found = engine.predict_batches(
                self.model,
                [batch],
                Retrieval(ObjectiveConfig(), InferConfig(), None),
                device=self.case.device,
                precision=self.case.precision,
                shared=engine.SharedTexts(examples, self.texts),
            )
            (predictions,) = found
        return torch.stack([torch.from_numpy(each.fields["scores"]) for each in predictions])

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        synchronize(self.case.device)
        begin = time.perf_counter()
        yield
        synchronize(self.case.device)
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - begin

    @contextmanager
    def parts(self) -> Iterator[None]:
        """Meanwhile the time of the CNN, of the transformer and of packing its weights is noted."""
        owners: list[tuple[Any, str, str]] = [
            (self.model, "encode_visual", "cnn"),
            (Answerer, "__call__", "transformer"),
            (Answerer, "first", "transformer"),
            (Answerer, "__init__", "weights"),
        ]
        right = [(owner, name, getattr(owner, name)) for owner, name, _ in owners]
        for (owner, name, part), (_, _, function) in zip(owners, right, strict=True):
            setattr(owner, name, self._noted(function, part))
        try:
            yield
        finally:
            for owner, name, function in right:
                setattr(owner, name, function)

    def _noted(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            with self.timed(part):
                return function(*arguments, **options)

        return call


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# ------------------------------------------------------------------------------------------------ counting


def counted(work: Callable[[], Any]) -> float:
    """Floating-point operations of `work`."""
    packed = {
        torch.ops.mkldnn._linear_pointwise: product_flops,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_flops,
    }
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=packed) as counter:
        work()
    return float(counter.get_total_flops())


def product_flops(x: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return 2 * math.prod(out_shape) * x[-1]


def attention_flops(query: Any, key: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return 4 * math.prod(query) * key[-2]


@dataclass(frozen=True)
class Work:
    """FLOPs of both ways, and of the engine's parts."""

    plain: float
    cnn: float
    transformer: float

    @classmethod
    def of(cls, model: ClipBert, case: Case, texts: Texts) -> Work:
        clips = case.videos * case.clips
        answerer, device = model.answerer(), case.device
        frames = torch.zeros(1, 1, FRAMES, 3, SIDE, SIDE, dtype=torch.uint8, device=device)
        visual = torch.zeros(1, (SIDE // 64) ** 2, model.config.bert.hidden_size, device=device)

        def sequence(length: int) -> float:
            text = answerer.first(torch.zeros(1, length, visual.shape[2], device=device))
            return counted(lambda: answerer(text, answerer.first(visual))) - counted(lambda: answerer.first(visual))

        lengths, counts = np.unique(texts.mask.sum(dim=1).numpy(), return_counts=True)
        transformer = sum(sequence(int(length)) * int(count) for length, count in zip(lengths, counts, strict=True))
        first = counted(lambda: answerer.first(visual)) / visual.shape[1]  # of a token
        transformer = clips * (transformer + first * visual.shape[1]) + case.videos * first * int(texts.mask.sum())
        cnn = counted(lambda: model.encode_visual(frames))
        padded = torch.ones(1, texts.ids.shape[1], dtype=torch.long, device=device)
        row = counted(lambda: plain_answers(model, padded, padded.bool(), visual))
        passes = math.ceil(case.texts / case.minibatch)
        return cls(clips * (passes * cnn + case.texts * row), clips * cnn, transformer)


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOPs a second of the product of two large matrices, best of some."""
    size = 8192 if device.type == "cuda" else 2048
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = math.inf
    for _ in range(12):
        synchronize(device)
        begin = time.perf_counter()
        left @ right
        synchronize(device)
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best


# ------------------------------------------------------------------------------------------------ measuring


@torch.inference_mode()
def compare(model: ClipBert, case: Case) -> dict[str, Any]:
    """Plain and engine in turns: half of the videos plain, all with the engine, the other half plain."""
    torch.manual_seed(2)
    texts, frames = make_texts(case), make_frames(case)
    engine = Engine(model, case, texts)
    warm = replace(case, texts=2, videos=1, clips=1)
    few = Texts(texts.ids[:2], texts.mask[:2])
    Engine(model, warm, few)(frames[:1, :1])
    plain(model, frames[:1, :1], few, 2, case.device)
    rates, scores, seconds = [rate(case)], [], 0.0
    half = max(1, case.videos // 2)
    found = None
    for part in (frames[:half], frames[half:]):
        synchronize(case.device)
        begin = time.perf_counter()
        scores += [plain(model, video[None], texts, case.minibatch, case.device) for video in part]
        synchronize(case.device)
        seconds += time.perf_counter() - begin
        rates.append(rate(case))
        if found is None:
            found = engine(frames)
            rates.append(rate(case))
    assert found is not None
    return report(case, texts, Work.of(model, case, texts), engine.seconds, seconds, rates) | {
        "largest_difference": float((torch.cat(scores) - found).abs().max()),
        "scores": [float(found.min()), float(found.max())],
    }


def rate(case: Case) -> float:
    return matrix_rate(case.device, case.precision.dtype)


def report(
    case: Case, texts: Texts, work: Work, engine: dict[str, float], plain_seconds: float, rates: list[float]
) -> dict[str, Any]:
    """One row of the result; shares of the machine's rate are of the mean of the measured rates."""
    pairs, machine, whole = case.texts * case.videos, statistics.mean(rates), engine["whole"]
    return {
        "case": case.name,
        "texts": case.texts,
        "videos": case.videos,
        "clips": case.clips,
        "tokens_mean": float(texts.mask.sum(dim=1).float().mean()),
        "tokens_max": texts.ids.shape[1],
        "minibatch": case.minibatch,
        "precision": case.precision.name,
        "pairs_per_second": pairs / whole,
        "plain_pairs_per_second": pairs / plain_seconds,
        "speedup": plain_seconds / whole,
        "wanted": WANTED.get(case.name),
        "plain_tflop": work.plain / 1e12,
        "tflop": (work.cnn + work.transformer) / 1e12,
        "flop_ratio": work.plain / (work.cnn + work.transformer),
        "mfu": (work.cnn + work.transformer) / whole / machine,
        "plain_mfu": work.plain / plain_seconds / machine,
        "transformer_mfu": work.transformer / engine["transformer"] / machine,
        "cnn_mfu": work.cnn / engine["cnn"] / machine,
        "overhead": 1 - sum(engine[part] for part in ("cnn", "transformer", "weights")) / whole,
        "weights_seconds": engine["weights"],
        "matrix_gflops": [each / 1e9 for each in rates],
    }


@torch.inference_mode()
def linear(model: ClipBert, case: Case) -> list[dict[str, Any]]:
    """The engine alone on 1/8, 1/4, 1/2 and all of the work: transformer time a text, video and clip."""
    torch.manual_seed(2)
    quarter = replace(case, texts=max(4, case.texts // 4))
    texts, frames = make_texts(quarter), make_frames(case)
    rows = []
    for times_texts, clips in ((1, case.clips // 2), (1, case.clips), (2, case.clips), (4, case.clips)):
        own = replace(case, texts=quarter.texts * times_texts, clips=max(1, clips))
        engine = Engine(model, own, Texts(texts.ids.repeat(times_texts, 1), texts.mask.repeat(times_texts, 1)))
        before = rate(case)
        engine(frames[:, : own.clips])
        machine = (before + rate(case)) / 2
        sequences = own.texts * own.videos * own.clips
        work = Work.of(model, own, engine.texts)
        rows.append(
            {
                "case": "linear",
                "texts": own.texts,
                "videos": own.videos,
                "clips": own.clips,
                "seconds": engine.seconds["whole"],
                "transformer_ms_per_sequence": 1000 * engine.seconds["transformer"] / sequences,
                "transformer_mfu": work.transformer / engine.seconds["transformer"] / machine,
                "overhead": 1
                - sum(engine.seconds[part] for part in ("cnn", "transformer", "weights")) / engine.seconds["whole"],
            }
        )
    return rows


def cases(names: list[str], device: torch.device, options: argparse.Namespace) -> Iterator[Case]:
    texts, videos, clips = (256, 16, 16) if device.type == "cuda" else (64, 4, 2)
    for name in names:
        size = (options.texts or texts, options.videos or videos, options.clips or clips)
        yield Case(name, device, *size, minibatch=8 if name == "small" else size[0])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="one JSON document, on stdout without FILE"
    )
    parser.add_argument("--plot", metavar="FILE", help="a bar chart of the speedups, PNG")
    parser.add_argument("--case", nargs="+", choices=LENGTHS, default=list(LENGTHS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    for name in ("texts", "videos", "clips"):
        parser.add_argument(f"--{name}", type=int, help="default: 64, 4, 2 on a CPU, 256, 16, 16 on a GPU")
    options = parser.parse_args()
    device = torch.device(options.device)
    model = make_model().to(device)
    rows: list[dict[str, Any]] = []
    text = ""
    for case in cases(options.case, device, options):
        rows += linear(model, case) if case.name == "linear" else [compare(model, case)]
        print(f"{case.name} is done", file=sys.stderr)
        text = json.dumps({"benchmark": "retrieval", "machine": machine(device), "rows": rows}, indent=1)
        if options.json and options.json != "-":  # after every case: they take minutes
            Path(options.json).write_text(text + "\n", encoding="utf-8")
    if options.json == "-":
        print(text)
    if options.plot:
        plot(rows, options.plot)
    if options.json != "-":
        print("\n".join(map(line, rows)))
    return int(any(row["speedup"] < row["wanted"] for row in rows if row.get("wanted") and device.type == "cpu"))


def machine(device: torch.device) -> dict[str, Any]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "date": date.today().isoformat(),
    }


def processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return names[0].partition(":")[2].strip() if names else platform.processor()


def line(row: dict[str, Any]) -> str:
    """A row for a person."""
    size = f"{row['case']:6} {row['texts']:4} x {row['videos']} x {row['clips']}"
    if row["case"] == "linear":
        return (
            f"{size}  {row['seconds']:7.1f} s  transformer {row['transformer_ms_per_sequence']:6.2f} ms a text and "
            f"clip, MFU {row['transformer_mfu']:.2f}  overhead {row['overhead']:.1%}"
        )
    return (
        f"{size}  x{row['speedup']:.2f} ({row['flop_ratio']:.2f} by FLOPs, wanted {row['wanted']})  "
        f"{row['pairs_per_second']:.2f} pairs/s  MFU {row['mfu']:.2f} (plain {row['plain_mfu']:.2f}, transformer "
        f"{row['transformer_mfu']:.2f}, CNN {row['cnn_mfu']:.2f})  overhead {row['overhead']:.1%}  "
        f"matrices {statistics.mean(row['matrix_gflops']):.0f} GFLOP/s  scores differ {row['largest_difference']:.1e}"
    )


def plot(rows: list[dict[str, Any]], file: str) -> None:
    """Bars drawn with Pillow: how many times as fast, and by FLOPs."""
    bars = [
        (f"{row['case']}, {what}", row[key], colour)
        for row in rows
        if row["case"] != "linear"
        for what, key, colour in (("measured", "speedup", "#3b6ea5"), ("by FLOPs", "flop_ratio", "#9fb8d0"))
    ]
    longest = max([value for _, value, _ in bars], default=1.0)
    image = Image.new("RGB", (760, 30 + 24 * len(bars)), "white")
    draw = ImageDraw.Draw(image)
    draw.text((10, 8), "times as fast as the plain way", fill="black")
    for number, (name, value, colour) in enumerate(bars):
        top = 30 + 24 * number
        draw.text((10, top + 4), name, fill="black")
        draw.rectangle((180, top, 180 + 500 * value / longest, top + 18), fill=colour)
        draw.text((186 + 500 * value / longest, top + 4), f"{value:.2f}", fill="black")
    image.save(file)


if __name__ == "__main__":
    sys.exit(main())
