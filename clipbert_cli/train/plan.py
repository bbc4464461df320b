"""How long training runs and what follows which step: computed once, before it starts."""

from __future__ import annotations

from dataclasses import dataclass

from clipbert_cli.errors import RecipeError
from clipbert_cli.loading.step_layout import StepLayout
from clipbert_cli.recipe.schema import TrainConfig


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of a training. One step is one update from `layout.global_batch` groups; an epoch's last has the rest.

    Validation follows every `validate_every` steps and the last one. A checkpoint is saved before every validation
    and every `save_every` steps.
    """

    layout: StepLayout
    total_steps: int
    validate_every: int
    save_every: int | None

    @classmethod
    def make(cls, config: TrainConfig, *, groups: int, global_batch: int) -> Plan:
        """The plan for epochs of `groups` groups, `global_batch` of them a step.

        Raises:
            RecipeError: a schedule that needs a warmup has none.
        """
        layout = StepLayout(groups, global_batch, config.batch_size)
        total = config.max_steps or layout.steps_per_epoch * config.epochs
        if "invsqrt" in (config.schedule, config.visual_schedule) and int(config.warmup_ratio * total) == 0:
            raise RecipeError(
                f"train.warmup_ratio is {config.warmup_ratio}: of {total} steps that is none, and schedule invsqrt "
                "starts at its warmup",
                hint=f"set train.warmup_ratio to at least {1 / total:.3g}",
            )
        return cls(
            layout=layout,
            total_steps=total,
            validate_every=config.validate_every_steps or layout.steps_per_epoch,
            save_every=config.save_every_steps,
        )

    @property
    def epochs(self) -> int:
        """Epochs that are begun."""
        return self.layout.epoch(self.total_steps) + 1

    @property
    def validations(self) -> int:
        """How often the run is validated."""
        return -(-self.total_steps // self.validate_every)

    def validates(self, step: int) -> bool:
        """Whether validation follows step `step`."""
        return step % self.validate_every == 0 or step == self.total_steps

    def saves(self, step: int) -> bool:
        """Whether a checkpoint of step `step` is saved."""
        return self.validates(step) or (self.save_every is not None and step % self.save_every == 0)
