from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clipbert_cli.batch import Batch, Example, Outputs
from clipbert_cli.engine.distributed import World
from clipbert_cli.engine.optim import AdamW, parameter_groups
from clipbert_cli.engine.precision import Precision
from clipbert_cli.engine.train import Plan, train, train_step
from clipbert_cli.errors import RunError
from clipbert_cli.recipe.schema import TrainConfig

CPU = torch.device("cpu")


class Linear(nn.Module):
    """Logits (N, 1, 1) from the first pixel of each item."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(1, 1, bias=False)
        nn.init.ones_(self.dense.weight)

    def forward(self, batch: Batch) -> Outputs:
        return Outputs(self.dense(batch.frames[:, 0, 0, :1, 0, 0].float())[:, None])


class SquareTask:
    def loss(self, outputs: Outputs, batch: Batch) -> Mapping[str, Tensor]:
        return {"loss": outputs.logits.square().mean()}


def batch(*values: float) -> Batch:
    frames = torch.tensor(values).view(-1, 1, 1, 1, 1, 1).expand(-1, 1, 1, 3, 1, 1)
    count = len(values)
    return Batch(
        frames=frames,
        text_ids=torch.zeros(count, 1, dtype=torch.long),
        text_mask=torch.ones(count, 1, dtype=torch.bool),
        text_item=torch.arange(count),
        examples=tuple(Example(f"e{value}", "m", ("?",)) for value in values),
    )


def gradient_of(*batches: Batch) -> float:
    model = Linear()
    config = TrainConfig()
    optimizer = AdamW(parameter_groups(model, config), betas=(0.9, 0.98), eps=1e-6)
    _, norm = train_step(
        model,
        SquareTask(),  # type: ignore[arg-type]
        batches,
        optimizer=optimizer,
        scaler=Precision("fp32").scaler(CPU),
        precision=Precision("fp32"),
        max_grad_norm=None,
        device=CPU,
    )
    return norm.item()


def test_gradients_of_accumulated_batches_average() -> None:
    assert gradient_of(batch(1.0, 2.0), batch(3.0, 4.0)) == pytest.approx(gradient_of(batch(1.0, 2.0, 3.0, 4.0)))


class Recorder:
    def __init__(self) -> None:
        self.records: list[Mapping[str, Any]] = []
        self.steps: list[int] = []

    def advance(self, step: int) -> None:
        self.steps.append(step)

    def write(self, record: Mapping[str, Any]) -> None:
        self.records.append(record)

    def close(self) -> None:
        pass


def run(config: TrainConfig, plan: Plan, *batches: Batch) -> tuple[Recorder, list[int], float]:
    model, recorder, validated = Linear(), Recorder(), list[int]()
    train(
        model,
        SquareTask(),  # type: ignore[arg-type]
        batches,
        config=config,
        plan=plan,
        world=World(0, 1, CPU),
        sinks=[recorder],
        validate=validated.append,
    )
    return recorder, validated, model.dense.weight.item()


def test_the_plan_counts_updates_epochs_and_validations() -> None:
    plan = Plan.make(TrainConfig(batch_size=4, gradient_accumulation_steps=2, epochs=3), groups=17)
    assert (plan.batches_per_epoch, plan.steps_per_epoch, plan.total_steps, plan.epochs) == (5, 3, 9, 3)
    assert [plan.batches(step) for step in range(1, 10)] == [2, 2, 1] * 3
    assert [plan.epoch(step) for step in range(1, 10)] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [step for step in range(1, 10) if plan.validates(step)] == [3, 6, 9]


def test_max_steps_decides_whatever_epochs_says() -> None:
    longer = Plan.make(TrainConfig(batch_size=4, epochs=1, max_steps=11, validate_every_steps=4), groups=17)
    assert (longer.total_steps, longer.epochs) == (11, 3)
    assert [step for step in range(1, 12) if longer.validates(step)] == [4, 8, 11]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_precision_learns_and_records(precision: str) -> None:
    config = TrainConfig(
        batch_size=1, epochs=1, learning_rate=0.05, schedule="constant", precision=precision, log_every_steps=4
    )
    plan = Plan.make(config, groups=12)
    recorder, validated, weight = run(config, plan, *[batch(1.0)] * 12)
    assert abs(weight) < 0.7
    assert validated == [12]
    assert recorder.steps == list(range(1, 13))
    assert [record["step"] for record in recorder.records] == [4, 8, 12]
    last = recorder.records[-1]
    assert last["loss"] < recorder.records[0]["loss"]
    assert last["learning_rate"] == 0.05
    assert 0 <= last["data_wait"] <= 1
    assert last["examples_per_second"] > 0
    assert last["grad_norm"] > 0


def test_clipping_bounds_the_update_but_not_the_reported_norm() -> None:
    config = TrainConfig(batch_size=1, epochs=1, max_grad_norm=0.5, log_every_steps=1)
    recorder, _, _ = run(config, Plan.make(config, groups=1), batch(3.0))
    assert recorder.records[0]["grad_norm"] == pytest.approx(18.0)


def test_a_loss_that_is_no_number_stops_the_run_and_names_step_and_examples() -> None:
    config = TrainConfig(batch_size=1, epochs=1, log_every_steps=1)
    with pytest.raises(RunError, match="the loss is nan at step 2 or just before; examples of step 2: enan"):
        run(config, Plan.make(config, groups=3), batch(1.0), batch(math.nan), batch(1.0))


def test_auto_precision_is_fp32_on_a_cpu() -> None:
    assert Precision.choose("auto", CPU).name == "fp32"


@pytest.mark.cuda
def test_auto_precision_is_bf16_on_a_gpu_that_has_it() -> None:
    assert Precision.choose("auto", torch.device("cuda")).name == "bf16"
