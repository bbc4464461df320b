"""A description of a training before it starts: text for a person, plain values for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clipbert_cli.model import ClipBert, LoadReport
from clipbert_cli.runtime.precision import Precision
from clipbert_cli.train.plan import Plan
from clipbert_cli.types import Example, Group


def plural(count: int, one: str, more: str) -> str:
    """Return the number and the word in the right form: `1 process`, `2 processes`."""
    return f"{count} {one if count == 1 else more}"


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Numbers of parameters, the decay of their moving average (None: there is no average), and the loaded weights."""

    parameters: int
    trained_parameters: int
    ema_decay: float | None
    reports: tuple[LoadReport, ...]

    @classmethod
    def of(cls, model: ClipBert, *, ema_decay: float | None, reports: Sequence[LoadReport]) -> ModelFacts:
        """Return the facts of a model whose frozen parts are frozen already."""
        counts = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
        trained = sum(count for count, is_trained in counts if is_trained)
        return cls(sum(count for count, _ in counts), trained, ema_decay, tuple(reports))


@dataclass(frozen=True, slots=True)
class DataFacts:
    """Numbers of examples and groups, and the decoder."""

    training_examples: int
    training_groups: int
    validation_examples: int
    decoder: str

    @classmethod
    def of(cls, groups: Sequence[Group], validation: Sequence[Example], *, decoder: str) -> DataFacts:
        return cls(sum(len(group.examples) for group in groups), len(groups), len(validation), decoder)


@dataclass(frozen=True, slots=True)
class TrainingFacts:
    """A training as it will run.

    `forward_passes` is the number in one step of the main process, whose share is the largest. `devices` has one name
    per process. `resumed` is appended to the run's line.
    """

    run: str
    model: ModelFacts
    data: DataFacts
    plan: Plan
    forward_passes: int
    devices: tuple[str, ...]
    precision: Precision
    resumed: str = ""

    def values(self) -> dict[str, Any]:
        """Return plain values by name, for programs."""
        return {
            "run": self.run,
            "parameters": self.model.parameters,
            "trained_parameters": self.model.trained_parameters,
            "training_examples": self.data.training_examples,
            "training_groups": self.data.training_groups,
            "validation_examples": self.data.validation_examples,
            "steps": self.plan.total_steps,
            "epochs": self.plan.epochs,
            "validations": self.plan.validations,
            "global_batch": self.plan.layout.global_batch,
            "processes": len(self.devices),
            "forward_passes": self.forward_passes,
            "devices": list(self.devices),
            "precision": self.precision.name,
            "decoder": self.data.decoder,
        }

    def describe(self) -> str:
        """Return one line per subject, for a person."""
        return "\n".join(
            [
                *(report.summary() for report in self.model.reports),
                f"model      {self._model()}",
                f"data       {self._data()}",
                f"training   {self._training()}",
                f"batch      {self._batch()}",
                f"device     {self._devices()}, {self.precision.name}",
                f"decoder    {self.data.decoder}",
                f"run        {self.run}{self.resumed}",
            ]
        )

    def _model(self) -> str:
        average = f", averaged with decay {self.model.ema_decay}" if self.model.ema_decay is not None else ""
        return f"{self.model.parameters:,} parameters, {self.model.trained_parameters:,} trained{average}"

    def _data(self) -> str:
        data = self.data
        return (
            f"{data.training_examples:,} training examples in {data.training_groups:,} groups, "
            f"{data.validation_examples:,} validation examples"
        )

    def _training(self) -> str:
        plan = self.plan
        epochs = plural(plan.epochs, "epoch", "epochs")
        validations = plural(plan.validations, "validation", "validations")
        every = f", one every {plan.validate_every:,} steps" if plan.validate_every < plan.total_steps else ""
        return f"{plan.total_steps:,} steps, {epochs}, {validations}{every}"

    def _batch(self) -> str:
        layout = self.plan.layout
        processes = plural(len(self.devices), "process", "processes")
        passes = plural(self.forward_passes, "forward pass", "forward passes")
        return f"{layout.global_batch} groups a step: {processes}, {passes} of up to {layout.batch_size} groups"

    def _devices(self) -> str:
        return ", ".join(f"{self.devices.count(name)} x {name}" for name in dict.fromkeys(self.devices))
