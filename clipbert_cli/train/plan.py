"""The plan of a training, computed before it starts: its steps, its validations and its checkpoints."""

from __future__ import annotations

from dataclasses import dataclass

from clipbert_cli.errors import RecipeError
from clipbert_cli.loading.step_layout import StepLayout
from clipbert_cli.recipe.schema import TrainConfig


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of a training, counted from 1. One step is one optimiser update from `layout.global_batch` groups.

    Validation follows every `validate_every` steps and the last step. A checkpoint is saved before every validation
    and after every `save_every` steps.

    `seed` decides, together with step and rank, every random number that the model draws in that step.
    """

    layout: StepLayout
    total_steps: int
    validate_every: int
    save_every: int | None
    seed: int

    @classmethod
    def make(cls, config: TrainConfig, *, groups: int, global_batch: int, seed: int) -> Plan:
        """Return the plan for epochs of `groups` groups in steps of `global_batch` groups.

        Raises:
            RecipeError: the schedule needs a warm-up, and the warm-up would have no step.
        """
        layout = StepLayout(groups, global_batch, config.batch_size)
        total = config.max_steps or layout.steps_per_epoch * config.epochs
        if reason := config.missing_warmup(total):
            raise RecipeError(reason, hint=f"set train.warmup_ratio to at least {1 / total:.3g}")
        return cls(
            layout=layout,
            total_steps=total,
            validate_every=config.validate_every_steps or layout.steps_per_epoch,
            save_every=config.save_every_steps,
            seed=seed,
        )

    @property
    def epochs(self) -> int:
        """Number of epochs that are begun."""
        return self.layout.epoch(self.total_steps) + 1

    @property
    def validations(self) -> int:
        """Number of validations in the whole training."""
        return -(-self.total_steps // self.validate_every)

    def validates(self, step: int) -> bool:
        """Return whether a validation follows step `step`."""
        return step % self.validate_every == 0 or step == self.total_steps

    def saves(self, step: int) -> bool:
        """Return whether a checkpoint of step `step` is saved."""
        return self.validates(step) or (self.save_every is not None and step % self.save_every == 0)
