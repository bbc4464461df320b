"""The one training loop. `pretrain` and `finetune` differ only in the task they hand it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from clipbert_cli.batch import Batch
from clipbert_cli.engine.distributed import World
from clipbert_cli.engine.logging import Sink
from clipbert_cli.engine.optim import AdamW, parameter_groups, rate_factor, set_rates
from clipbert_cli.engine.precision import Precision
from clipbert_cli.errors import RunError
from clipbert_cli.recipe.schema import TrainConfig
from clipbert_cli.task.base import Task


@dataclass(frozen=True, slots=True)
class Plan:
    """How long training runs: computed once, before it starts.

    `batches_per_epoch` forward passes make `steps_per_epoch` updates; the last update of an epoch may take fewer than
    `accumulation` of them. Validation follows every `validate_every` updates and the last one.
    """

    batches_per_epoch: int
    accumulation: int
    total_steps: int
    validate_every: int

    @classmethod
    def make(cls, config: TrainConfig, *, groups: int) -> Plan:
        """The plan for a training split of `groups` groups."""
        batches = math.ceil(groups / config.batch_size)
        steps = math.ceil(batches / config.gradient_accumulation_steps)
        return cls(
            batches_per_epoch=batches,
            accumulation=config.gradient_accumulation_steps,
            total_steps=config.max_steps or steps * config.epochs,
            validate_every=config.validate_every_steps or steps,
        )

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.batches_per_epoch / self.accumulation)

    @property
    def epochs(self) -> int:
        """Epochs that are begun."""
        return math.ceil(self.total_steps / self.steps_per_epoch)

    def epoch(self, step: int) -> int:
        """The epoch, from 0, that update `step` (from 1) belongs to."""
        return (step - 1) // self.steps_per_epoch

    def batches(self, step: int) -> int:
        """How many forward passes update `step` takes."""
        before = (step - 1) % self.steps_per_epoch * self.accumulation
        return min(self.accumulation, self.batches_per_epoch - before)

    def validates(self, step: int) -> bool:
        """Whether validation follows update `step`."""
        return step % self.validate_every == 0 or step == self.total_steps


def train(
    model: nn.Module,
    task: Task,
    batches: Iterable[Batch],
    *,
    config: TrainConfig,
    plan: Plan,
    world: World,
    sinks: Sequence[Sink],
    validate: Callable[[int], None],
) -> None:
    """Train `model` in place for `plan.total_steps` updates.

    Args:
        batches: at least as many as the plan takes.
        validate: called with the step where the plan says so; scores and saves.

    Raises:
        RunError: the loss is no longer a finite number.
    """
    precision = Precision.choose(config.precision, world.device)
    optimizer = AdamW(parameter_groups(model, config), betas=(config.betas[0], config.betas[1]), eps=config.eps)
    scaler = precision.scaler(world.device)
    window = Window()
    stream = iter(batches)
    model.train()
    for step in range(1, plan.total_steps + 1):
        factor = rate_factor(step, total=plan.total_steps, warmup_ratio=config.warmup_ratio, schedule=config.schedule)
        rates = set_rates(optimizer, factor)
        fetched = fetch(stream, plan.batches(step), window)
        losses, norm = train_step(
            model,
            task,
            fetched,
            optimizer=optimizer,
            scaler=scaler,
            precision=precision,
            max_grad_norm=config.max_grad_norm,
            device=world.device,
        )
        window.add(losses, norm, examples=sum(len(batch.examples) for batch in fetched))
        validates = plan.validates(step)
        if step % config.log_every_steps == 0 or validates:
            record = {"event": "train", "step": step, "epoch": plan.epoch(step), **window.close(), **_named(rates)}
            if not math.isfinite(record["loss"]):
                ids = ", ".join(example.example_id for batch in fetched for example in batch.examples)
                raise RunError(
                    f"the loss is {record['loss']} at step {step} or just before; examples of step {step}: {ids}",
                    hint="lower train.learning_rate, or train with train.precision=fp32",
                )
            for sink in sinks:
                sink.write(record)
        for sink in sinks:
            sink.advance(step)
        if validates:
            validate(step)
            window.restart()


def train_step(
    model: nn.Module,
    task: Task,
    batches: Sequence[Batch],
    *,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    precision: Precision,
    max_grad_norm: float | None,
    device: torch.device,
) -> tuple[Mapping[str, Tensor], Tensor]:
    """One update from the average gradient of `batches`.

    Returns:
        the mean losses by name and the global L2 norm of the gradient before clipping, as tensors on the device.
    """
    sums: dict[str, Tensor] = {}
    for batch in batches:
        moved = batch.to(device)
        with precision.autocast(device):
            losses = task.loss(model(moved), moved)
        scaler.scale(losses["loss"] / len(batches)).backward()
        for name, value in losses.items():
            sums[name] = sums.get(name, torch.zeros((), device=device)) + value.detach() / len(batches)
    scaler.unscale_(optimizer)
    # An infinite bound only measures. The factor is max/(norm + 1e-6), and clips only below 1.
    norm = nn.utils.clip_grad_norm_(
        [parameter for group in optimizer.param_groups for parameter in group["params"]], max_grad_norm or math.inf
    )
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    return sums, norm


def fetch(stream: Iterator[Batch], count: int, window: Window) -> list[Batch]:
    """The next `count` batches; the wait for them is booked as waiting for data."""
    begin = time.perf_counter()
    fetched = [next(stream) for _ in range(count)]
    window.data_seconds += time.perf_counter() - begin
    return fetched


class Window:
    """Averages between two log records. Values stay on the device until `close`, so that steps do not wait for it."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget everything and start the clock."""
        self._sums: dict[str, Tensor] = {}
        self._steps = 0
        self._examples = 0
        self._begin = time.perf_counter()
        self.data_seconds = 0.0

    def add(self, losses: Mapping[str, Tensor], norm: Tensor, *, examples: int) -> None:
        """Book one update."""
        for name, value in {**losses, "grad_norm": norm.detach()}.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value
        self._steps += 1
        self._examples += examples

    def close(self) -> dict[str, Any]:
        """Means over the window's updates, examples a second, and the share of the time spent waiting for data."""
        means = {name: (total / self._steps).item() for name, total in self._sums.items()}
        seconds = time.perf_counter() - self._begin
        speed = {"examples_per_second": self._examples / seconds, "data_wait": self.data_seconds / seconds}
        self.restart()
        return {**means, **speed}


def _named(rates: Mapping[str, float]) -> dict[str, float]:
    names = {"transformer": "learning_rate", "cnn": "cnn_learning_rate"}
    return {names[part]: rate for part, rate in rates.items()}
