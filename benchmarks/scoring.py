"""Every text with every video: what is scored, the engine with a clock on its parts, and the operations that it takes.

ResNet-50 and BERT-base at random weights, clips that are decoded already.

Legend: M videos, N texts, K clips, T frames, L text tokens, V visual tokens, D width.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

from plain_model import PlainModel
from turns import Clock

from clipbert_cli.build import Evaluation, SharedTexts
from clipbert_cli.infer.predict import Predictor
from clipbert_cli.model import ClipBert, HeadSpec
from clipbert_cli.model.scorer import SequenceScorer
from clipbert_cli.profile.flops import flop_counter
from clipbert_cli.recipe.schema import InferConfig, ModelConfig, ObjectiveConfig
from clipbert_cli.runtime.distributed import World
from clipbert_cli.runtime.precision import Precision
from clipbert_cli.task.retrieval import Retrieval
from clipbert_cli.types import Batch, Example, Texts

SIDE = 448
SHORT, LONG = (11, 20), (50, 100)
"""Tokens of a caption like MSRVTT's and of a paragraph: mean, maximum."""


@dataclass(frozen=True)
class Case:
    """N texts x M videos x K clips of T frames; texts of `lengths` tokens, mean and maximum."""

    name: str
    device: torch.device
    texts: int
    videos: int
    clips: int
    frames: int = 2
    lengths: tuple[int, int] = SHORT

    @property
    def precision(self) -> Precision:
        return Precision("bf16" if self.device.type == "cuda" else "fp32")

    @property
    def sequences(self) -> int:
        """Texts times clips."""
        return self.texts * self.videos * self.clips


def make_texts(case: Case) -> Texts:
    """Lengths of a clipped normal distribution with this mean and maximum, both ends of it there."""
    mean, maximum = case.lengths
    rng = np.random.default_rng(1)
    lengths = np.clip(np.round(rng.normal(mean, mean / 3, case.texts)), 4, maximum).astype(int)
    lengths[:2] = maximum, max(4, 2 * mean - maximum)
    mask = torch.arange(maximum) < torch.from_numpy(lengths)[:, None]
    return Texts(torch.randint(1000, 30000, mask.shape) * mask, mask)


def make_frames(case: Case) -> Tensor:
    """(M, K, T, 3, H, W) uint8: coarse squares of colour; for a GPU pinned, as the loader's are."""
    count = case.videos * case.clips * case.frames
    coarse = F.interpolate(torch.randint(0, 256, (count, 3, 14, 14)).float(), size=(SIDE, SIDE), mode="bilinear")
    frames = coarse.to(torch.uint8).view(case.videos, case.clips, case.frames, 3, SIDE, SIDE)
    return frames.pin_memory() if case.device.type == "cuda" else frames


def make_model() -> ClipBert:
    """Random weights, the classifier's large enough for scores that differ."""
    torch.manual_seed(0)
    model = ClipBert(ModelConfig(), HeadSpec("classifier", 2)).eval()
    for part in model.head.layers[::2]:
        torch.nn.init.normal_(part.weight, std=0.08)
    return model


# ------------------------------------------------------------------------------------------------ the engine


@dataclass
class Engine:
    """The project's inference, and when it did what.

    Attributes:
        clock: of the `whole`, and of it of the `cnn`, the `transformer`, and packing its `weights`.
    """

    model: ClipBert
    case: Case
    texts: Texts

    def __post_init__(self) -> None:
        self.clock = Clock(self.case.device)

    def __call__(self, frames: Tensor) -> Tensor:
        """(M, K, T, 3, H, W) -> scores (M, N)."""
        none = torch.zeros((0, 1), dtype=torch.long)
        names = tuple(f"video{number}" for number in range(len(frames)))
        batch = Batch(frames, none, none.bool(), none[:, 0], (), media_ids=names)
        examples = tuple(Example(str(number), names[0], ("",)) for number in range(len(self.texts.ids)))
        with self.clock.timed("whole"), self.parts():
            infer = InferConfig()
            task, world = Retrieval(ObjectiveConfig(), infer, None), World(0, 1, self.case.device)
            predictor = Predictor(self.model, task, self.case.precision, infer, world)
            (predictions,) = predictor.run_own(Evaluation([batch], SharedTexts(examples, self.texts), len(frames)))
        return torch.stack([torch.from_numpy(each.fields["scores"]) for each in predictions])

    @contextmanager
    def parts(self) -> Iterator[None]:
        """Meanwhile the time of the CNN, of the transformer and of packing its weights is noted."""
        owners: list[tuple[Any, str, str]] = [
            (self.model, "encode_visual", "cnn"),
            (SequenceScorer, "__call__", "transformer"),
            (SequenceScorer, "project", "transformer"),
            (SequenceScorer, "__init__", "weights"),
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
            with self.clock.timed(part):
                return function(*arguments, **options)

        return call


def overhead(seconds: Mapping[str, float]) -> float:
    """The share of the whole that neither the CNN nor the transformer nor its weights took."""
    return 1 - sum(seconds[part] for part in ("cnn", "transformer", "weights")) / seconds["whole"]


# ------------------------------------------------------------------------------------------------ operations


def counted(work: Callable[[], Any]) -> float:
    """Floating-point operations of `work`."""
    with torch.no_grad(), flop_counter() as operations:
        work()
    return float(operations.get_total_flops())


def engine_work(model: ClipBert, case: Case, texts: Texts) -> tuple[float, float]:
    """FLOPs of the CNN, and of the transformer: without padding, the first layer's products once a token."""
    clips = case.videos * case.clips
    scorer = model.scorer()
    frames = torch.zeros(1, 1, case.frames, 3, SIDE, SIDE, dtype=torch.uint8, device=case.device)
    visual = torch.zeros(1, (SIDE // 64) ** 2, model.config.bert.hidden_size, device=case.device)
    first = counted(lambda: scorer.project(visual)) / visual.shape[1]  # of a token

    def sequence(length: int) -> float:
        text = scorer.project(torch.zeros(1, length, visual.shape[2], device=case.device))
        return counted(lambda: scorer(text, scorer.project(visual))) - first * visual.shape[1]

    lengths, counts = np.unique(texts.mask.sum(dim=1).numpy(), return_counts=True)
    sequences = sum(sequence(int(length)) * int(count) for length, count in zip(lengths, counts, strict=True))
    own = clips * first * visual.shape[1] + case.videos * first * int(texts.mask.sum())
    return clips * counted(lambda: model.encode_visual(frames)), clips * sequences + own


def plain_work(plain: PlainModel, case: Case, texts: Texts, minibatch: int) -> float:
    """FLOPs of the plain way: padded texts, the CNN again for every `minibatch` of them."""
    ids = torch.ones(1, texts.ids.shape[1], dtype=torch.long, device=case.device)
    visual = torch.zeros(1, (SIDE // 64) ** 2, plain.config.bert.hidden_size, device=case.device)
    pixels = torch.zeros(1, case.frames, 3, SIDE, SIDE, device=case.device)
    row, cnn = counted(lambda: plain.answer(ids, ids.bool(), visual)), counted(lambda: plain.encode(pixels))
    return case.videos * case.clips * (math.ceil(case.texts / minibatch) * cnn + case.texts * row)
