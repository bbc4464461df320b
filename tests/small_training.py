"""A training of one weight: its model, loss, batches, trainer and callbacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from clipbert_cli.recipe.schema import TrainConfig
from clipbert_cli.runtime.distributed import World
from clipbert_cli.runtime.interrupts import Interrupts
from clipbert_cli.train.logs import Announce, unnoticed
from clipbert_cli.train.loop import Trainer
from clipbert_cli.train.plan import Plan
from clipbert_cli.types import Batch, Example, Outputs

CPU = torch.device("cpu")


class Linear(nn.Module):
    """Logits (N, 1, 1) from the first pixel of each item."""

    def __init__(self, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.dense = nn.Linear(1, 1, bias=False)
        self.dropout = nn.Dropout(dropout)
        nn.init.ones_(self.dense.weight)

    def forward(self, batch: Batch) -> Outputs:
        return Outputs(self.dense(self.dropout(batch.frames[:, 0, 0, :1, 0, 0].float()))[:, None])


def loss(outputs: Outputs, batch: Batch) -> Mapping[str, Tensor]:
    return {"loss": outputs.logits.square().mean()}


def batch(*values: float) -> Batch:
    frames = torch.tensor(values).view(-1, 1, 1, 1, 1, 1).expand(-1, 1, 1, 3, 1, 1)
    count = len(values)
    return Batch(
        frames=frames,
        text_ids=torch.zeros(count, 1, dtype=torch.long),
        text_mask=torch.ones(count, 1, dtype=torch.bool),
        text_item=torch.arange(count),
        examples=tuple(Example(None, f"m{value}", ("?",)) for value in values),
    )


class Recorder:
    """Callbacks of a training: the records, and the steps that were done, saved and validated."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.records: list[Mapping[str, Any]] = []
        self.steps: list[int] = []
        self.saved: list[int] = []
        self.validated: list[int] = []

    def log(self, record: Mapping[str, Any]) -> None:
        self.records.append(record)

    def advance(self, step: int) -> None:
        self.steps.append(step)

    def save(self) -> None:
        self.saved.append(self.trainer.step)

    def validate(self) -> None:
        self.validated.append(self.trainer.step)


def trainer(
    config: TrainConfig,
    *,
    groups: int,
    global_batch: int = 1,
    dropout: float = 0.0,
    seed: int = 1,
    phase: Announce = unnoticed,
) -> Trainer:
    plan = Plan.make(config, groups=groups, global_batch=global_batch, seed=seed)
    return Trainer(Linear(dropout=dropout), loss, config=config, plan=plan, world=World(0, 1, CPU), phase=phase)


def run(training: Trainer, *batches: Batch, last_step: int | None = None) -> Recorder:
    """Train on the batches and return what the callbacks received."""
    recorder = Recorder(training)
    training.train(batches, recorder, interrupts=Interrupts(), last_step=last_step)
    return recorder


def weight(training: Trainer) -> float:
    return float(training.model.dense.weight.item())  # type: ignore[union-attr]


def config(**settings: Any) -> TrainConfig:
    return TrainConfig(**{"batch_size": 1, "epochs": 1, "log_every_steps": 1, "schedule": "constant", **settings})
