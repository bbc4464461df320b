"""The plan of a training: its steps, validations and checkpoints, and its description for people and for programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clipbert_cli.loading.step_layout import StepLayout
from clipbert_cli.printable import plural
from clipbert_cli.recipe.schema import TrainConfig
from clipbert_cli.train.optim import describe_groups, parameter_groups

if TYPE_CHECKING:
    from clipbert_cli.train.training import Training


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
        """Return the plan for epochs of `groups` groups in steps of `global_batch` groups."""
        layout = StepLayout(groups, global_batch, config.batch_size)
        total = config.max_steps or layout.steps_per_epoch * config.epochs
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


def training_facts(training: Training) -> dict[str, Any]:
    """Return the training that will run in plain values by name, for programs."""
    plan, parameters = training.plan, list(training.model.parameters())
    return {
        "run": str(training.folder.path),
        "parameters": sum(parameter.numel() for parameter in parameters),
        "trained_parameters": sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        "training_examples": sum(len(group.examples) for group in training.groups),
        "training_groups": len(training.groups),
        "validation_examples": len(training.val_examples),
        "validations": plan.validations if training.validation else 0,
        "forward_passes": training.forward_passes,
        "precision": training.setup.precision.describe(),
        "decoder": training.train_loader.decoder.describe(),
        "weights": [
            {
                "file": str(report.source),
                "loaded": len(report.loaded),
                "new": list(report.new),
                "ignored": {reason: len(keys) for reason, keys in report.ignored.items()},
                "outputs": {what: count for what, count, _ in report.head},
            }
            for report in training.reports
        ],
        "devices": list(training.devices),
        "notes": list(training.notes),
        "processes": len(training.devices),
        "steps": plan.total_steps,
        "epochs": plan.epochs,
        "global_batch": plan.layout.global_batch,
        "visual_tokens": training.cost.visual_tokens,
        "clip_flops": training.cost.clip,
        "pair_flops": training.cost.pair,
    }


def describe_training(training: Training) -> list[str]:
    """Return one line per subject, for a person."""
    facts, plan, layout, config = training_facts(training), training.plan, training.plan.layout, training.config
    average = f", averaged with decay {config.ema_decay}" if config.ema_decay is not None else ""
    every = f", one every {plan.validate_every:,} steps" if facts["validations"] > 1 else ""
    groups, passes = f"{facts['training_groups']:,} groups", plural(facts["forward_passes"], "forward pass", "es")
    names = training.devices
    devices = ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
    encoder = training.model.visual_encoder.describe(training.setup.recipe.data.frame_size)
    resumed = training.resumption.describe(plan.total_steps) if training.resumption else ""
    return [
        *(line for report in training.reports for line in report.summary().splitlines()),
        f"model      {facts['parameters']:,} parameters, {facts['trained_parameters']:,} trained{average}",
        *(f"optimiser  {group}" for group in describe_groups(parameter_groups(training.model, config), config)),
        *([f"frozen     {', '.join(config.freeze)}"] if config.freeze else []),
        f"encoder    {encoder}",
        f"cost       {training.cost.describe()}",
        (
            f"data       {facts['training_examples']:,} training examples in {groups}, "
            f"{facts['validation_examples']:,} validation examples"
        ),
        (
            f"training   {plan.total_steps:,} steps, {plural(plan.epochs, 'epoch')}, "
            f"{plural(facts['validations'], 'validation')}{every}"
        ),
        (
            f"batch      {len(layout.step(1))} groups per step: {plural(len(names), 'process', 'es')}, "
            f"{passes} of up to {min(layout.batch_size, len(layout.step(1)))} groups"
        ),
        f"device     {devices}, {facts['precision']}",
        f"decoder    {facts['decoder']}",
        *(f"note       {note}" for note in training.notes),
        f"run        {facts['run']}{resumed}",
    ]
