"""How fast is every text scored with every video, compared with the plain way?

    python benchmarks/retrieval.py [--case short long frames] [--device cuda] [--json]

ResNet-50 and BERT-base with random weights, 448 pixels, clips that are already decoded, in float32; on a GPU bf16
against the plain way in fp16, with more texts, videos and clips. Both sides run in processes of their own and take
turns, each of half of the videos (harness.py).

    short    captions of 11 tokens on average, 20 at most; the plain way takes all texts of a video together
    long     paragraphs of 50 tokens on average, 100 at most
    frames   captions, 2 videos of 1 clip of 16 frames; the plain way takes 8 texts at a time and runs the CNN again for
             each 8, as ClipBERT's code did

    plain    plain.py: clips in a loop, frames normalised in float32 on the CPU, texts padded to the longest
    engine   clipbert_cli.infer.predict.Predictor

`operations` is the speedup that the plain way's additional operations explain; torch counts them. The exit code is 1 if
the speedup on a CPU is below `wanted`.

Legend: M videos, N texts, K clips, T frames, V visual tokens, D width, n texts of a minibatch.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import Outcome, Sides, Work, command_line, counted, pictures, run, timed
from plain import PlainModel, normalised
from torch import Tensor

from clipbert_cli.build import Evaluation, SharedTexts
from clipbert_cli.infer.predict import Predictor
from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.model.heads import HeadSpec
from clipbert_cli.recipe.schema import InferConfig, ModelConfig, ObjectiveConfig
from clipbert_cli.runtime.distributed import World
from clipbert_cli.runtime.precision import Precision
from clipbert_cli.task.retrieval import Retrieval
from clipbert_cli.types import Batch, Example, Texts

PRECISIONS = {"cpu": Precision("fp32"), "cuda": Precision("bf16")}
TURNS = 2
"""Batches that the videos are divided into."""


@dataclass(frozen=True)
class Case:
    """N texts x M videos x K clips x T frames, on each device.

    Attributes:
        tokens: tokens of a text, on average and at most.
        minibatch: texts that the plain way scores together.
    """

    wanted: float
    cpu: tuple[int, int, int, int] = (64, 4, 2, 2)
    cuda: tuple[int, int, int, int] = (256, 16, 16, 2)
    tokens: tuple[int, int] = (11, 20)
    minibatch: int = 1024


CASES = {
    "short": Case(1.25),
    "long": Case(1.6, tokens=(50, 100)),
    "frames": Case(4.0, (64, 2, 1, 16), (64, 2, 1, 16), minibatch=8),
}


def make_texts(case: Case, count: int) -> Texts:
    """Return texts whose lengths are normally distributed and clipped; the longest and the shortest ones occur."""
    mean, maximum = case.tokens
    lengths = np.clip(np.round(np.random.default_rng(1).normal(mean, mean / 3, count)), 4, maximum).astype(int)
    lengths[:2] = maximum, max(4, 2 * mean - maximum)
    mask = torch.arange(maximum) < torch.from_numpy(lengths)[:, None]
    return Texts(torch.randint(1000, 30000, mask.shape) * mask, mask)


def make_model() -> ClipBert:
    """Return a model with random weights, those of the head so large that scores differ."""
    torch.manual_seed(0)
    model = ClipBert(ModelConfig(), HeadSpec("classifier", 2)).eval()
    for part in model.head.layers[::2]:
        torch.nn.init.normal_(part.weight, std=0.08)
    return model


# ------------------------------------------------------------------------------------------------ the sides


Scorer = Callable[[Sequence[Tensor]], Iterator[Tensor]]
"""Yields the scores (M, N) of each batch of frames (M, K, T, 3, H, W)."""


def plain_scorer(texts: Texts, device: torch.device, minibatch: int) -> Scorer:
    half = torch.float16 if device.type == "cuda" else None
    model = PlainModel(make_model()).to(device)
    minibatches = list(zip(texts.ids.split(minibatch), texts.mask.split(minibatch), strict=True))

    def score(batch: Tensor) -> Tensor:
        scores = []
        for video, (ids, mask) in product(batch, minibatches):
            logits = []
            for clip in video:
                visual = model.encode(normalised(clip)[None].to(device))  # (1, V, D)
                logits.append(model.answer(ids.to(device), mask.to(device), visual.expand(len(ids), -1, -1)))  # (n, 2)
            scores.append(torch.stack(logits, dim=1).float().logsumexp(dim=1).softmax(dim=-1)[:, 1])  # (n,)
        return torch.cat(scores).view(len(batch), -1).cpu()

    def scorer(frames: Sequence[Tensor]) -> Iterator[Tensor]:
        for batch in frames:
            with torch.autocast(device.type, dtype=half, enabled=half is not None):
                scores = score(batch)
            yield scores

    return scorer


def engine_scorer(texts: Texts, device: torch.device, minibatch: int) -> Scorer:
    infer = InferConfig()
    task = Retrieval(ObjectiveConfig(), infer, None)
    predictor = Predictor(make_model().to(device), task, PRECISIONS[device.type], infer, World(0, 1, device))
    shared = SharedTexts(tuple(Example(str(number), "0", ("",)) for number in range(len(texts.ids))), texts)
    none = torch.zeros((0, 1), dtype=torch.long)

    def scorer(frames: Sequence[Tensor]) -> Iterator[Tensor]:
        batches = [
            Batch(batch, none, none.bool(), none[:, 0], (), media_ids=tuple(map(str, range(len(batch)))))
            for batch in frames
        ]
        for predictions in predictor.run_own(Evaluation(batches, shared, sum(map(len, frames)))):
            yield torch.stack([torch.from_numpy(each.fields["scores"]) for each in predictions])

    return scorer


SIDES = {"plain": plain_scorer, "engine": engine_scorer}


def start(side: str, case: Case, device: torch.device) -> Work:
    """Prepare a side. The order `count` returns the operations of all videos, `next` the scores of the next batch."""
    torch.manual_seed(2)
    count, *sizes = getattr(case, device.type)
    texts, frames = make_texts(case, count), pictures(*sizes)  # frames (M, K, T, 3, H, W)
    if device.type == "cuda":
        # As the loader's are.
        frames = frames.pin_memory()
    scorer = SIDES[side](texts, device, case.minibatch)
    scores = scorer(frames.chunk(TURNS))

    @torch.inference_mode()
    def work(order: str) -> tuple[Any, float]:
        if order == "count":
            # The operations of all videos are the same, so one is enough. It also warms the side up.
            _, operations = counted(lambda: list(scorer([frames[:1]])))
            return operations * len(frames), 0.0
        batch, seconds = timed(device, lambda: next(scores))
        return batch.tolist(), seconds

    return work


def compare(case: Case, device: torch.device) -> dict[str, Any]:
    """Return the row of one case."""
    with Sides({side: partial(start, side, case, device) for side in SIDES}) as sides:
        operations = {side: value for side, (value, _) in sides.take("count").items()}
        pairs = [sides.take("next") for _ in range(TURNS)]
    seconds = {side: sum(pair[side][1] for pair in pairs) for side in SIDES}
    scores = {side: torch.cat([torch.tensor(pair[side][0]) for pair in pairs]) for side in SIDES}
    return {
        "sizes": " x ".join(map(str, getattr(case, device.type))),
        "speedup": seconds["plain"] / seconds["engine"],
        "operations": operations["plain"] / operations["engine"],
        "wanted": case.wanted,
        "pairs_per_second": scores["engine"].numel() / seconds["engine"],
        "largest_difference": float((scores["plain"] - scores["engine"]).abs().max()),
    }


def measure(options: Namespace, folder: Path) -> Outcome:
    rows = {name: compare(CASES[name], torch.device(options.device)) for name in options.case}
    results = [
        f"{name} x{row['speedup']:.2f} (operations x{row['operations']:.2f}, wanted x{row['wanted']:.2f})"
        for name, row in rows.items()
    ]
    reached = options.device != "cpu" or all(row["speedup"] >= row["wanted"] for row in rows.values())
    return Outcome(rows, f"times as fast as the plain way: {'; '.join(results)}", reached)


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--device", choices=PRECISIONS, default="cuda" if torch.cuda.is_available() else "cpu")
    run(parser, measure)
