"""A description of a training before it starts: text for a person, plain values for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clipbert_cli.model.flops import ForwardCost
from clipbert_cli.model.weights.load import LoadReport
from clipbert_cli.printable import plural
from clipbert_cli.train.plan import Plan


@dataclass(frozen=True, slots=True)
class TrainingFacts:
    """A training as it will run.

    `reports` say what was loaded into the model, `encoder` describes the visual encoder, and `cost` is what one clip
    costs. `groups` describes the optimiser's parameters, and `frozen` names the parts that are not trained. `ema_decay`
    is None if no moving average is kept. `forward_passes` is the number in one step of the main process, whose share is
    the largest. `devices` has one name per process. `resumed` is appended to the run's line.
    `notes` say what to know of texts, answers and media.
    """

    run: str
    resumed: str
    reports: Sequence[LoadReport]
    encoder: str
    cost: ForwardCost
    parameters: int
    trained_parameters: int
    groups: Sequence[str]
    frozen: Sequence[str]
    ema_decay: float | None
    training_examples: int
    training_groups: int
    validation_examples: int
    validations: int
    decoder: str
    plan: Plan
    forward_passes: int
    devices: Sequence[str]
    precision: str
    notes: Sequence[str]

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
                    "outputs": {what: count for what, count, _ in report.head},
                }
                for report in self.reports
            ],
            "devices": list(self.devices),
            "notes": list(self.notes),
            "processes": len(self.devices),
            "steps": self.plan.total_steps,
            "epochs": self.plan.epochs,
            "global_batch": self.plan.layout.global_batch,
            "visual_tokens": self.cost.visual_tokens,
            "clip_flops": self.cost.clip,
            "pair_flops": self.cost.pair,
        }

    def describe(self) -> str:
        """Return one line per subject, for a person."""
        plan, layout = self.plan, self.plan.layout
        average = f", averaged with decay {self.ema_decay}" if self.ema_decay is not None else ""
        every = f", one every {plan.validate_every:,} steps" if self.validations > 1 else ""
        groups, passes = f"{self.training_groups:,} groups", plural(self.forward_passes, "forward pass", "es")
        devices = ", ".join(f"{self.devices.count(name)} x {name}" for name in dict.fromkeys(self.devices))
        return "\n".join(
            [
                *(report.summary() for report in self.reports),
                f"model      {self.parameters:,} parameters, {self.trained_parameters:,} trained{average}",
                *(f"optimiser  {group}" for group in self.groups),
                *([f"frozen     {', '.join(self.frozen)}"] if self.frozen else []),
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
                    f"batch      {layout.global_batch} groups per step: {plural(len(self.devices), 'process', 'es')}, "
                    f"{passes} of up to {layout.batch_size} groups"
                ),
                f"device     {devices}, {self.precision}",
                f"decoder    {self.decoder}",
                *(f"note       {note}" for note in self.notes),
                f"run        {self.run}{self.resumed}",
            ]
        )
