"""The sides that train_step.py and recomputation.py compare: what each is given, and its step.

Legend: B videos, K clips, T frames, L text tokens, C answers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from plain_adamw import PlainAdamW
from plain_model import PlainModel, normalised
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

from clipbert_cli.model import ClipBert
from clipbert_cli.recipe.schema import BertConfigSection, InferConfig, ModelConfig, ObjectiveConfig, TrainConfig
from clipbert_cli.runtime.distributed import World
from clipbert_cli.task.open_ended_qa import OpenEndedQa
from clipbert_cli.train.loop import Trainer
from clipbert_cli.train.model_options import apply_options
from clipbert_cli.train.optim import set_rates
from clipbert_cli.train.plan import Plan
from clipbert_cli.types import Batch, Example

ANSWERS, MAXIMUM, SIDE = 1500, 100, 448


@dataclass(frozen=True)
class Case:
    """B videos x K clips x T frames on a device; the last of `sides` is what the others are compared with."""

    device: str
    precision: str
    videos: int
    clips: int
    frames: int
    sides: tuple[str, ...] = ("plain", "plain, 20 tokens", "engine")

    @property
    def place(self) -> torch.device:
        return torch.device(self.device)


CASES = {
    "cpu": Case("cpu", "fp32", 2, 2, 2),
    "cuda": Case("cuda", "bf16", 16, 8, 2),
    "recomputed": Case("cpu", "fp32", 1, 16, 2, sides=("engine", "engine, recomputed")),
}


# ------------------------------------------------------------------------------------------------ what all sides use


def model_config() -> ModelConfig:
    """The published sizes. No dropout: the sides could not draw the same."""
    return ModelConfig(bert=BertConfigSection(hidden_dropout=0.0, attention_dropout=0.0))


def train_config(case: Case, *, recompute: bool = False) -> TrainConfig:
    return TrainConfig(
        batch_size=case.videos,
        max_steps=100,
        schedule="constant",
        warmup_ratio=0,
        freeze=["visual.stem", "visual.0"],
        precision=case.precision,
        activation_checkpointing=recompute,
    )


def task() -> OpenEndedQa:
    answers = {f"answer {number}": number for number in range(ANSWERS)}
    return OpenEndedQa(ObjectiveConfig(num_labels=ANSWERS), InferConfig(), answers)


def start_model() -> ClipBert:
    torch.manual_seed(0)
    return ClipBert(model_config(), task().head())


def batches(case: Case) -> Iterator[Batch]:
    """New pictures and questions each step: coarse squares of colour, and words."""
    generator = torch.Generator().manual_seed(1)
    while True:
        coarse = torch.randint(0, 256, (case.videos * case.clips * case.frames, 3, 14, 14), generator=generator)
        frames = F.interpolate(coarse.float(), size=(SIDE, SIDE), mode="bilinear").to(torch.uint8)
        lengths = torch.randint(7, 14, (case.videos,), generator=generator)
        ids = torch.randint(1000, 30000, (case.videos, int(lengths.max())), generator=generator)
        mask = torch.arange(ids.shape[1]) < lengths[:, None]
        yield Batch(
            frames=frames.view(case.videos, case.clips, case.frames, 3, SIDE, SIDE),
            text_ids=ids * mask,
            text_mask=mask,
            text_item=torch.arange(case.videos),
            examples=tuple(Example(str(number), str(number), ("?",)) for number in range(case.videos)),
            targets={"labels": torch.randint(0, ANSWERS, (case.videos,), generator=generator)},
            media_ids=tuple(map(str, range(case.videos))),
        )


# ------------------------------------------------------------------------------------------------ the sides


def plain_step(case: Case, maximum: int) -> Callable[[Batch], float]:
    """The plain way's step."""
    config = train_config(case)
    model = PlainModel.of(start_model()).to(case.place)
    optimizer = PlainAdamW(model, config)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    dtype = {"fp32": None, "bf16": torch.float16}[case.precision]  # on a GPU the plain way is fp16
    # Not scaled up so far that a gradient is infinite: then this side would train on what is no number.
    scaler = torch.amp.GradScaler(case.device, init_scale=2.0**10, enabled=dtype is not None)

    def step(batch: Batch) -> float:
        frames = normalised(batch.frames, model_config()).to(case.place)  # (B, K, T, 3, H, W)
        room = (0, maximum - batch.text_ids.shape[1])
        ids, mask = (F.pad(each, room).to(case.place) for each in (batch.text_ids, batch.text_mask))
        with torch.autocast(case.device, dtype=dtype, enabled=dtype is not None):
            of_clips = [model.answer(ids, mask, model.encode(frames[:, clip])) for clip in range(case.clips)]
            logits = torch.stack(of_clips, dim=1)  # (B, K, C)
            loss = F.cross_entropy(logits.float().logsumexp(dim=1), batch.targets["labels"].to(case.place))
        scaler.scale(loss).backward()
        if scaler.is_enabled():  # by hand: the optimiser is not torch's
            scale = scaler.get_scale()
            for parameter in parameters:
                parameter.grad.div_(scale)
        nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
        optimizer.step()
        for parameter in parameters:
            parameter.grad = None
        return loss.item()

    return step


def engine_step(case: Case, *, recompute: bool = False) -> Callable[[Batch], float]:
    """The engine's step, as `clipbert finetune` sets it up."""
    config = train_config(case, recompute=recompute)
    model = start_model().train()
    apply_options(model, config)
    world = World(rank=0, size=1, device=case.place)
    trainer = Trainer(
        model.to(world.device),
        task().loss,
        config=config,
        plan=Plan.make(config, groups=1000, global_batch=case.videos, seed=0),
        world=world,
    )
    set_rates(trainer.optimizer, {"transformer": config.learning_rate, "visual": config.learning_rate})

    def step(batch: Batch) -> float:
        update = trainer.update([batch.to(world.device)], examples=case.videos)
        trainer.step += 1
        return update.losses["loss"].item()

    return step


SIDES: dict[str, Callable[[Case], Callable[[Batch], float]]] = {
    "plain": lambda case: plain_step(case, MAXIMUM),
    "plain, 20 tokens": lambda case: plain_step(case, 20),
    "engine": engine_step,
    "engine, recomputed": lambda case: engine_step(case, recompute=True),
}
