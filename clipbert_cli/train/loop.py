"""READ FIRST: the one training loop. `pretrain` and `finetune` differ only in the loss that they give it.

    batches on the device ─► agree on examples and stop requests ─► learning rates ─► update ─► log, save, validate
                                                                                        │
                              (forward, loss, backward) per batch ─► clip ─► optimiser ─┘

One step is one optimiser update from one global batch. The global batch is divided over processes, and each process's
share into the batches of its forward passes (gradient accumulation). The update does not depend on this division.
`build.py` makes the model, the loss and the batches; `session.py` gives the loop its folder, logs and checkpoints.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from clipbert_cli.errors import InterruptionError, RunError, WeightsError
from clipbert_cli.loading.prefetch import on_device
from clipbert_cli.model.ema import WeightAverage
from clipbert_cli.model.weights.weight_files import read_torch
from clipbert_cli.recipe.schema import TrainConfig
from clipbert_cli.runs.checkpoint import AVERAGE_FILE, TRAINING_FILE
from clipbert_cli.runtime.distributed import World
from clipbert_cli.runtime.interrupts import Interrupts
from clipbert_cli.runtime.precision import Precision
from clipbert_cli.train.logs import Announce, Meter, peak_memory, unnoticed
from clipbert_cli.train.optim import RATE_NAMES, build_optimizer, learning_rates, set_rates
from clipbert_cli.train.plan import Plan
from clipbert_cli.types import Batch, Outputs

logger = logging.getLogger("clipbert")

# Steps in a row without a finite loss and gradient after which a run stops: its weights are beyond repair. Some are
# normal with fp16, which finds its loss scale by them: from 65536 it reaches 1 after 16 steps.
MAX_SKIPPED_STEPS = 20

# Returns scalars by name; `loss` is the one to minimise, a mean over the batch's examples (`Task.loss`).
Loss = Callable[[Outputs, Batch], Mapping[str, Tensor]]


class Callbacks(Protocol):
    """The functions that the loop calls between two steps, in this order."""

    def log(self, record: Mapping[str, Any]) -> None:
        """Receive the measurements since the last record; called every `log_every_steps` and before validations."""

    def advance(self, step: int) -> None:
        """Note that `step` is done; called after every step."""

    def save(self) -> None:
        """Save the trainer's state; called where the plan says so, and before stopping on request."""

    def validate(self) -> None:
        """Validate the model; called where the plan says so, after `save`."""


@dataclass(frozen=True, slots=True)
class Update:
    """The result of one step.

    `losses` are the means over the global batch's examples, by name; `norm` is the gradient's L2 norm before clipping.
    The weights changed only if all of them are finite.
    """

    losses: Mapping[str, Tensor]
    norm: Tensor
    finite: bool


class Trainer:
    """The state that a step changes, and the step.

    Args:
        model: on the world's device; trained in place.
        phase: gives the context of each phase, for a profiler.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        *,
        config: TrainConfig,
        plan: Plan,
        world: World,
        phase: Announce = unnoticed,
    ) -> None:
        self.model, self.loss, self.config, self.plan, self.world = model, loss, config, plan, world
        self.precision = Precision.choose(config.precision, world.device, tf32=config.tf32)
        self.precision.choose_kernels()
        self.optimizer = build_optimizer(model, config)
        self.scaler = self.precision.scaler(world.device)
        self.average = None if config.ema_decay is None else WeightAverage(model, config.ema_decay)
        self.meter = Meter(world.device)
        self.phase = phase
        self.step = 0  # the last step that is done or skipped
        self.examples = 0  # examples of all processes in the updates that this object did
        self.skipped = 0  # steps without an update, because a number was not finite
        self.skipped_in_row = 0
        self._wrapped = world.wrap(model)
        groups = self.optimizer.param_groups
        self._parameters = [parameter for group in groups for parameter in group["params"]]
        self._parts = {group["part"] for group in groups}

    # -------------------------------------------------------------------------------------------- the loop

    def train(
        self, batches: Iterable[Batch], callbacks: Callbacks, *, interrupts: Interrupts, last_step: int | None = None
    ) -> None:
        """Train from the step after `self.step` to `last_step`, by default to the end of the plan.

        Args:
            batches: this process's batches, from the step after `self.step` on.

        Raises:
            InterruptionError: a signal asked to stop; everything up to `self.step` is saved.
            RunError: too many steps in a row had numbers that were not finite.
        """
        copies = on_device(batches, self.world.device, copying=lambda: self.phase("copy"))
        stream = (moved for _, moved in copies)
        last_step = self.plan.total_steps if last_step is None else last_step
        self.model.train()
        self.meter.restart_clock()
        while self.step < last_step:
            step = self.step + 1
            fetched = self._fetch(stream, step)
            examples = self._agree(fetched, step, interrupts, callbacks)
            epoch = self.plan.layout.epoch(step)
            rates = learning_rates(self.config, step, total=self.plan.total_steps)
            set_rates(self.optimizer, rates)
            update = self.update(fetched, examples=examples)
            self._count(update, fetched, examples)
            if step % self.config.log_every_steps == 0 or self.plan.validates(step):
                callbacks.log({"event": "train", "step": step, "epoch": epoch, **self._measurements(rates)})
            callbacks.advance(step)
            if self.plan.saves(step):
                callbacks.save()
            if self.plan.validates(step):
                callbacks.validate()
                self.meter.restart_clock()

    def _fetch(self, stream: Iterator[Batch], step: int) -> list[Batch]:
        """Return this process's batches of a step, at least one. The time is measured as waiting for data."""
        begin = time.perf_counter()
        with self.phase("data"):
            fetched = [next(stream) for _ in range(max(1, len(self.plan.layout.batches(step, self.world.shard))))]
        self.meter.data_seconds += time.perf_counter() - begin
        return fetched

    def _agree(self, batches: Sequence[Batch], step: int, interrupts: Interrupts, callbacks: Callbacks) -> int:
        """Return the number of examples of all processes in this step, or stop if one process was asked to stop.

        A signal reaches processes at different moments. They agree before each step, in the message that sums the
        examples, so that all save the same step and none waits for another that has left.
        """
        own = torch.tensor([float(sum(self._counts(batches, step))), *interrupts.flags()], dtype=torch.float64)
        examples, *flags = self._sum(own).tolist()
        if (number := Interrupts.first(flags)) is not None:
            if self.step:
                callbacks.save()
            raise InterruptionError(number)
        return int(examples)

    # -------------------------------------------------------------------------------------------- one step

    def update(self, batches: Sequence[Batch], *, examples: int) -> Update:
        """Do one update with the mean gradient over the examples of the global batch.

        Args:
            batches: this process's batches, at least one, on the world's device.
            examples: number of examples in the batches of all processes.
        """
        # Before the first forward pass of the step: all batches of the step draw from this one seed.
        self._seed()
        sums = self._accumulate(batches, examples)
        with self.phase("optimizer"):
            return self._apply(sums)

    def _accumulate(self, batches: Sequence[Batch], examples: int) -> dict[str, Tensor]:
        """Compute the step's gradient, and return this process's part of the mean losses by name.

        The loss of batch b is a mean over its n_b examples. The mean over all N examples of the step is therefore
        sum_b (n_b / N) * loss_b, over the batches of all processes. DistributedDataParallel averages the gradients of
        the W processes where a sum is needed: each loss is multiplied by W.
        """
        sums: dict[str, Tensor] = {}
        counts = self._counts(batches, self.step + 1)
        for number, (batch, count) in enumerate(zip(batches, counts, strict=True), start=1):
            weight = count / examples
            with self.world.accumulating(self._wrapped, last=number == len(batches)):
                with self.phase("forward"), self.precision.autocast(self.world.device):
                    losses = self.loss(self._wrapped(batch), batch)
                with self.phase("backward"):
                    self.scaler.scale(losses["loss"] * (weight * self.world.size)).backward()
            for name, value in losses.items():
                part = value.detach().float() * weight
                sums[name] = sums[name] + part if name in sums else part
        return sums

    def _apply(self, sums: Mapping[str, Tensor]) -> Update:
        """Change the weights by the gradient, unless it or a loss is not finite; then clear the gradient."""
        # fp16 gradients carry the loss scale: the norm and the clipping bound are of the unscaled gradient.
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.get_total_norm([each.grad for each in self._parameters if each.grad is not None]).detach()
        # One message for all losses; sorted, because every process must send them in the same order.
        names = sorted(sums)
        means = self._sum(torch.stack([sums[name] for name in names]))
        # DDP has made the gradients, and so the norm, equal in all processes: all of them decide alike.
        finite = bool(torch.isfinite(means.sum() + norm))
        if finite:
            self._clip(norm)
            self.scaler.step(self.optimizer)
            if self.average:
                self.average.update()
        # Also after a skipped step: this is how fp16 lowers a scale that is too high.
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return Update(dict(zip(names, means, strict=True)), norm, finite)

    def _clip(self, norm: Tensor) -> None:
        """Multiply the gradients by min(1, max_grad_norm / (norm + 1e-6)), the rule of `clip_grad_norm_`."""
        bound = self.config.max_grad_norm
        # A factor of 1 would be a pass over all gradients that changes nothing.
        if bound is not None and bool(bound / (norm + 1e-6) < 1):
            nn.utils.clip_grads_with_norm_(self._parameters, bound, norm)

    def _counts(self, batches: Sequence[Batch], step: int) -> list[int]:
        """Return the number of examples of each batch that count.

        A process without a share of a small step still computes one batch, because every process must take part in
        the sum of gradients. None of its examples counts.
        """
        has_share = bool(self.plan.layout.batches(step, self.world.shard))
        return [len(batch.examples) if has_share else 0 for batch in batches]

    def _seed(self) -> None:
        """Seed dropout and the random choice of visual tokens by plan, step and rank: resuming needs no other state."""
        # Rank is part of the seed, or all processes would drop the same units.
        entropy = np.random.SeedSequence((self.plan.seed, self.step + 1, self.world.rank))
        torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0]))

    def _sum(self, tensor: Tensor) -> Tensor:
        """Return the sum over all processes."""
        with self.phase("communication"):
            return self.world.reduce(tensor)

    # -------------------------------------------------------------------------------------------- bookkeeping

    def _count(self, update: Update, batches: Sequence[Batch], examples: int) -> None:
        """Count the next step as done or as skipped.

        Raises:
            RunError: `MAX_SKIPPED_STEPS` steps were skipped in a row.
        """
        self.step += 1
        self.examples += examples
        if update.finite:
            self.skipped_in_row = 0
            self.meter.add(update.losses, update.norm, examples=examples)
            return
        self.skipped += 1
        self.skipped_in_row += 1
        numbers = f"loss {update.losses['loss'].item()}, gradient norm {update.norm.item()}"
        # With fp16 such steps are normal: the loss scale is found by lowering it until no gradient overflows.
        if self.precision.name != "fp16":
            logger.warning("step %d is skipped, because a number is not finite: %s", self.step, numbers)
        if self.skipped_in_row >= MAX_SKIPPED_STEPS:
            own = [f"{each.media_id} {each.texts[0]!r}" for batch in batches for each in batch.examples]
            names = dict.fromkeys(each for process in self.world.gather(own) for each in process)
            raise RunError(
                f"the loss or gradient of {self.skipped_in_row} steps in a row was not finite, the last at step "
                f"{self.step}: {numbers}; examples of step {self.step}: {', '.join(names)}",
                hint="lower train.learning_rate, set train.max_grad_norm, or look at these examples",
            )

    def _measurements(self, rates: Mapping[str, float]) -> dict[str, Any]:
        """Return the numbers of a log record about the steps since the last one."""
        measured: dict[str, Any] = {
            **self.meter.close(),
            **{RATE_NAMES[part]: rate for part, rate in rates.items() if part in self._parts},
            "skipped_steps": self.skipped,
            "peak_memory_mib": peak_memory(self.world.device),
        }
        if self.scaler.is_enabled():
            measured["loss_scale"] = self.scaler.get_scale()
        return measured

    # -------------------------------------------------------------------------------------------- checkpoints

    def write(self, folder: Path) -> None:
        """Write the averaged weights and the rest of the state into `folder`, all that resuming needs but the model."""
        if self.average:
            self.average.save(folder / AVERAGE_FILE)
        # Into a stream of Python: of a file by its name, torch would not say why it cannot be written.
        with (folder / TRAINING_FILE).open("wb") as stream:
            torch.save(self.state_dict(), stream)

    def state_dict(self) -> dict[str, Any]:
        """Return plain values and tensors. Data order, learning rates and random numbers follow from step and plan."""
        return {
            "step": self.step,
            "skipped": self.skipped,
            "skipped_in_row": self.skipped_in_row,
            "precision": self.precision.name,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "meter": self.meter.state_dict(),
        }

    def read(self, folder: Path) -> None:
        """Continue from the state that `write` wrote; the model's own weights must be loaded already.

        Raises:
            RunError: the file does not fit this training.
        """
        file = folder / TRAINING_FILE
        hint = f"rename {folder}, and the run goes on from the checkpoint before it"
        try:
            state = read_torch(file, mapped=False)
            self._check_precision(state["precision"])
            self.optimizer.load_state_dict(state["optimizer"])
            if state["scaler"]:  # Other formats than fp16 have no scale.
                self.scaler.load_state_dict(state["scaler"])
            self.meter.load_state_dict(state["meter"])
            self.step, self.skipped, self.skipped_in_row = state["step"], state["skipped"], state["skipped_in_row"]
        except RunError:
            raise
        except WeightsError as exc:
            raise RunError(str(exc), hint=hint) from exc
        # Entries of another program or model fail with any of a dozen types of errors.
        except Exception as exc:
            raise RunError(f"{file} does not fit this training: {type(exc).__name__}: {exc}", hint=hint) from exc
        if self.average:
            self.average.load(folder / AVERAGE_FILE, state["average"])

    def _check_precision(self, before: str) -> None:
        """Refuse to continue in another number format than before, unless the recipe names it."""
        now = self.precision.name
        if self.config.precision == "auto" and now != before:
            raise RunError(
                f"train.precision is auto: the run was trained with {before}, but this machine computes with {now}",
                hint=f"continue on such a device, or choose: --set train.precision={before} or {now}",
            )
