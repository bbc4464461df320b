"""The one training loop. `pretrain` and `finetune` differ only in the task they hand it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clipbert_cli.errors import InterruptionError, RunError
from clipbert_cli.model.ema import WeightAverage
from clipbert_cli.recipe.schema import TrainConfig
from clipbert_cli.runs.checkpoint import AVERAGE_FILE, TRAINING_FILE
from clipbert_cli.runtime.distributed import World
from clipbert_cli.runtime.interrupts import STOP_SIGNALS, Interrupts
from clipbert_cli.runtime.precision import Precision, choose_kernels
from clipbert_cli.task.base import Task
from clipbert_cli.train.meter import Window, peak_memory
from clipbert_cli.train.optim import build_optimizers, rates, set_rates
from clipbert_cli.train.phases import NullPhases, Phases
from clipbert_cli.train.plan import Plan
from clipbert_cli.train.prefetch import on_device
from clipbert_cli.train.sinks import Sink
from clipbert_cli.types import Batch

logger = logging.getLogger("clipbert")

RATE_NAMES = {"transformer": "learning_rate", "visual": "visual_learning_rate"}


@dataclass(frozen=True, slots=True)
class Update:
    """What one step computed: the global batch's mean losses by name, the gradient's L2 norm before clipping."""

    losses: Mapping[str, Tensor]
    norm: Tensor
    finite: bool


class Trainer:
    """Everything that a step changes, and the step.

    Args:
        model: on the world's device; trained in place.
        seed: with step and rank it decides dropout and the random choice of visual tokens, so that going on after an
            interruption needs no state of a random generator.
    """

    def __init__(
        self, model: nn.Module, task: Task, *, config: TrainConfig, plan: Plan, world: World, seed: int
    ) -> None:
        self.model, self.task, self.config, self.plan, self.world, self.seed = model, task, config, plan, world, seed
        choose_kernels()
        self.precision = Precision.choose(config.precision, world.device)
        self.optimizers = build_optimizers(model, config)
        self.scaler = self.precision.scaler(world.device)
        self.average = None if config.ema_decay is None else WeightAverage(model, config.ema_decay)
        self.window = Window(world.device)
        self.phases: Phases = NullPhases()  # told of the parts of every step
        self.step = 0  # updates done, skipped ones included
        self.examples = 0  # in the updates that this object did, over all processes
        self.skipped = 0  # updates skipped for numbers that were not finite
        self.skipped_in_row = 0
        self._wrapped = world.wrap(model)
        self._parameters = [
            parameter
            for optimizer in self.optimizers
            for group in optimizer.param_groups
            for parameter in group["params"]
        ]

    def train(
        self,
        batches: Iterable[Batch],
        *,
        sinks: Sequence[Sink],
        interrupts: Interrupts,
        save: Callable[[], None],
        validate: Callable[[], None],
        last_step: int | None = None,
    ) -> None:
        """Go on from `step` to the end of the plan, or to an earlier step.

        Args:
            batches: this process's, from the step after `step` on.
            save: called where the plan says so, and before stopping on request; the state is this object's.
            validate: called where the plan says so, after `save`.
            last_step: where to stop; default: the plan's end.

        Raises:
            InterruptionError: a signal asked to stop; everything up to `step` is saved.
            RunError: too many steps in a row had numbers that were not finite.
        """
        stream = on_device(batches, self.world.device, self.phases)
        last_step = self.plan.total_steps if last_step is None else last_step
        self.model.train()
        self.window.start()
        while self.step < last_step:
            step = self.step + 1
            fetched = self._fetch(stream, step)
            examples = self._agree(fetched, step, interrupts, save)
            by_part = rates(self.config, step, total=self.plan.total_steps, epoch=self.plan.layout.epoch(step))
            set_rates(self.optimizers, by_part)
            update = self.update(fetched, examples=examples)
            self._book(update, fetched, step, examples)
            if step % self.config.log_every_steps == 0 or self.plan.validates(step):
                record = {
                    "event": "train",
                    "step": step,
                    "epoch": self.plan.layout.epoch(step),
                    **self._report(by_part),
                }
                for sink in sinks:
                    sink.write(record)
            for sink in sinks:
                sink.advance(step)
            if self.plan.saves(step):
                save()
            if self.plan.validates(step):
                validate()
                self.window.start()

    def update(self, batches: Sequence[Batch], *, examples: int) -> Update:
        """One update from the mean gradient over the global batch's examples.

        Each batch's loss is a mean over its examples, so it counts with its share of them; that makes the update the
        same however the global batch is cut, in time or over processes.

        Args:
            batches: this process's, at least one, on the world's device.
            examples: of all processes' batches that count.
        """
        self._seed()
        sums = self._learn(batches, examples)
        with self.phases.phase("optimizer"):
            return self._apply(sums)

    def _learn(self, batches: Sequence[Batch], examples: int) -> dict[str, Tensor]:
        """Leave the step's mean gradient, times the loss scale; this process's shares of the mean losses, by name."""
        sums: dict[str, Tensor] = {}
        counts = self._counts(batches, self.step + 1)
        for number, (batch, count) in enumerate(zip(batches, counts, strict=True), start=1):
            weight = count / examples
            with self.world.accumulating(self._wrapped, last=number == len(batches)):
                with self.phases.phase("forward"), self.precision.autocast(self.world.device):
                    losses = self.task.loss(self._wrapped(batch), batch)
                with self.phases.phase("backward"):
                    # The processes' gradients are averaged: times their number gives the sum.
                    self.scaler.scale(losses["loss"] * (weight * self.world.size)).backward()
            for name, value in losses.items():
                share = value.detach().float() * weight
                sums[name] = sums[name] + share if name in sums else share
        return sums

    def _apply(self, sums: Mapping[str, Tensor]) -> Update:
        """Change the weights by the gradient that is there, unless it or the loss is not finite; forget it."""
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        norm = nn.utils.get_total_norm([each.grad for each in self._parameters if each.grad is not None]).detach()
        names = sorted(sums)
        means = self._summed(torch.stack([sums[name] for name in names]))
        finite = bool(torch.isfinite(means.sum() + norm))
        if finite:
            self._clip(norm)
            for optimizer in self.optimizers:
                self.scaler.step(optimizer)
            if self.average:
                self.average.update()
        self.scaler.update()
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        return Update(dict(zip(names, means, strict=True)), norm, finite)

    def _clip(self, norm: Tensor) -> None:
        """Scale gradients of this norm by bound / (norm + 1e-6), where that is below 1: a pass over all of them."""
        bound = self.config.max_grad_norm
        if bound is not None and bool(bound / (norm + 1e-6) < 1):
            nn.utils.clip_grads_with_norm_(self._parameters, bound, norm)

    def _fetch(self, stream: Iterator[Batch], step: int) -> list[Batch]:
        """This process's batches of a step; the wait for them is booked as waiting for data."""
        begin = time.perf_counter()
        with self.phases.phase("data"):
            fetched = [next(stream) for _ in range(max(1, len(self.plan.layout.batches(step, self.world.shard))))]
        self.window.data_seconds += time.perf_counter() - begin
        return fetched

    def _agree(self, batches: Sequence[Batch], step: int, interrupts: Interrupts, save: Callable[[], None]) -> int:
        """Examples of the step over all processes, unless one of them was asked to stop: then all save and stop."""
        flags = [float(interrupts.noted is number) for number in STOP_SIGNALS]
        own = torch.tensor([float(sum(self._counts(batches, step))), *flags], dtype=torch.float64)
        examples, *noted = self._summed(own).tolist()
        for number, votes in zip(STOP_SIGNALS, noted, strict=True):
            if votes:
                if self.step:
                    save()
                raise InterruptionError(number)
        return int(examples)

    def _summed(self, tensor: Tensor) -> Tensor:
        """The sum over all processes."""
        with self.phases.phase("communication"):
            return self.world.reduce(tensor)

    def _counts(self, batches: Sequence[Batch], step: int) -> list[int]:
        """Examples by batch; 0 for what a process without a share of the step was given to take part with."""
        counts_at_all = bool(self.plan.layout.batches(step, self.world.shard))
        return [len(batch.examples) if counts_at_all else 0 for batch in batches]

    def _seed(self) -> None:
        entropy = np.random.SeedSequence((self.seed, self.step + 1, self.world.rank))
        torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0]))

    def _book(self, update: Update, batches: Sequence[Batch], step: int, examples: int) -> None:
        """Count a step as done, or as skipped.

        Raises:
            RunError: too many were skipped in a row.
        """
        self.step = step
        self.examples += examples
        if update.finite:
            self.skipped_in_row = 0
            self.window.add(update.losses, update.norm, examples=examples)
            return
        self.skipped += 1
        self.skipped_in_row += 1
        if self.precision.name != "fp16":  # whose scale is found by such steps
            loss, norm = update.losses["loss"].item(), update.norm.item()
            logger.warning("step %d is skipped: its loss is %s, its gradient's norm %s", step, loss, norm)
        if self.skipped_in_row >= self.config.max_bad_steps:
            ids = [
                example.example_id
                for own in self.world.gather([example for batch in batches for example in batch.examples])
                for example in own
            ]
            raise RunError(
                f"{self.skipped_in_row} steps in a row had a loss or gradient that was no finite number, the last "
                f"at step {step}: loss {update.losses['loss'].item()}, gradient norm {update.norm.item()}; "
                f"examples of step {step}: {', '.join(dict.fromkeys(ids))}"
            )

    def _report(self, by_part: Mapping[str, float]) -> dict[str, Any]:
        """What a log record says of the steps since the last one."""
        parts = {group["part"] for optimizer in self.optimizers for group in optimizer.param_groups}
        report: dict[str, Any] = {
            **self.window.close(),
            **{RATE_NAMES[part]: rate for part, rate in by_part.items() if part in parts},
            "skipped_steps": self.skipped,
            "peak_memory_mib": peak_memory(self.world.device),
        }
        if self.scaler.is_enabled():
            report["loss_scale"] = self.scaler.get_scale()
        return report

    def write(self, folder: Path) -> None:
        """Write what going on needs into `folder`: averaged weights and everything else but the model."""
        if self.average:
            self.average.save(folder / AVERAGE_FILE)
        torch.save(self.state_dict(), folder / TRAINING_FILE)

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors. Position in the data, rates and randomness follow from step, plan and seed."""
        return {
            "step": self.step,
            "skipped": self.skipped,
            "skipped_in_row": self.skipped_in_row,
            "seed": self.seed,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "scaler": self.scaler.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "window": self.window.state_dict(),
        }

    def read(self, folder: Path) -> None:
        """Go on from what `write` wrote; the model has been loaded already.

        Raises:
            RunError: the file does not fit this training.
        """
        file = folder / TRAINING_FILE
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            self.scaler.load_state_dict(state["scaler"])
            self.window.load_state_dict(state["window"])
            self.step, self.skipped, self.skipped_in_row = state["step"], state["skipped"], state["skipped_in_row"]
        except Exception as exc:
            raise RunError(
                f"{file} does not fit this training: {exc}", hint="go on with the recipe and release that wrote it"
            ) from exc
        if self.average:
            self.average.load(folder / AVERAGE_FILE, state["average"])
