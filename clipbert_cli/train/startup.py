"""A description of a training before it starts: text for a person, plain values for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clipbert_cli.model.flops import forward_cost
from clipbert_cli.printable import plural
from clipbert_cli.train.optim import describe_groups

if TYPE_CHECKING:
    from clipbert_cli.train.training import Training


class TrainingFacts:
    """A training as it will run."""

    def __init__(self, training: Training) -> None:
        setup, plan = training.setup, training.plan
        data, parameters = setup.recipe.data, list(training.model.parameters())
        self.training, self.plan = training, plan
        self.run = str(training.folder.path)
        self.parameters = sum(parameter.numel() for parameter in parameters)
        self.trained_parameters = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
        self.training_examples = sum(len(group.examples) for group in training.groups)
        self.training_groups = len(training.groups)
        self.validation_examples = len(training.val_examples)
        self.validations = plan.validations if training.validation else 0
        # In one step of the main process, whose share is the largest.
        self.forward_passes = len(plan.layout.batches(1, training.world.shard))
        self.precision = setup.precision.describe()
        self.decoder = training.train_loader.decoder.describe()
        self.encoder = training.model.visual_encoder.describe(data.frame_size)
        self.cost = forward_cost(
            training.model, num_frames=data.num_frames, frame_size=data.frame_size, text_length=data.max_text_length
        )

    def values(self) -> dict[str, Any]:
        """Return plain values by name, for programs."""
        names = ("run", "parameters", "trained_parameters", "training_examples", "training_groups")
        more = ("validation_examples", "validations", "forward_passes", "precision", "decoder")
        return {
            **{name: getattr(self, name) for name in (*names, *more)},
            "weights": [
                {
                    "file": str(report.source),
                    "loaded": len(report.loaded),
                    "new": list(report.new),
                    "ignored": {reason: len(keys) for reason, keys in report.ignored.items()},
                    "outputs": {what: count for what, count, _ in report.head},
                }
                for report in self.training.reports
            ],
            "devices": list(self.training.devices),
            "notes": list(self.training.notes),
            "processes": len(self.training.devices),
            "steps": self.plan.total_steps,
            "epochs": self.plan.epochs,
            "global_batch": self.plan.layout.global_batch,
            "visual_tokens": self.cost.visual_tokens,
            "clip_flops": self.cost.clip,
            "pair_flops": self.cost.pair,
        }

    def describe(self) -> str:
        """Return one line per subject, for a person."""
        training, plan, layout, config = self.training, self.plan, self.plan.layout, self.training.config
        average = f", averaged with decay {config.ema_decay}" if config.ema_decay is not None else ""
        every = f", one every {plan.validate_every:,} steps" if self.validations > 1 else ""
        groups, passes = f"{self.training_groups:,} groups", plural(self.forward_passes, "forward pass", "es")
        names = training.devices
        devices = ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
        resumed = training.resumption.describe(plan.total_steps) if training.resumption else ""
        return "\n".join(
            [
                *(report.summary() for report in training.reports),
                f"model      {self.parameters:,} parameters, {self.trained_parameters:,} trained{average}",
                *(f"optimiser  {group}" for group in describe_groups(training.parameter_groups, config)),
                *([f"frozen     {', '.join(config.freeze)}"] if config.freeze else []),
                f"encoder    {self.encoder}",
                f"cost       {self.cost.describe()}",
                (
                    f"data       {self.training_examples:,} training examples in {groups}, "
                    f"{self.validation_examples:,} validation examples"
                ),
                (
                    f"training   {plan.total_steps:,} steps, {plural(plan.epochs, 'epoch')}, "
                    f"{plural(self.validations, 'validation')}{every}"
                ),
                (
                    f"batch      {layout.global_batch} groups per step: {plural(len(names), 'process', 'es')}, "
                    f"{passes} of up to {layout.batch_size} groups"
                ),
                f"device     {devices}, {self.precision}",
                f"decoder    {self.decoder}",
                *(f"note       {note}" for note in training.notes),
                f"run        {self.run}{resumed}",
            ]
        )
