from __future__ import annotations

import copy
import logging
import math
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clipbert_cli.batch import Batch, Example, Outputs
from clipbert_cli.engine.distributed import World
from clipbert_cli.engine.interrupts import Interrupts
from clipbert_cli.engine.phases import Phase
from clipbert_cli.engine.plan import Plan
from clipbert_cli.engine.precision import Precision
from clipbert_cli.engine.train import Trainer
from clipbert_cli.errors import InterruptionError, RunError
from clipbert_cli.recipe.schema import TrainConfig

CPU = torch.device("cpu")


class Linear(nn.Module):
    """Logits (N, 1, 1) from the first pixel of each item."""

    def __init__(self, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.dense = nn.Linear(1, 1, bias=False)
        self.dropout = nn.Dropout(dropout)
        nn.init.ones_(self.dense.weight)

    def forward(self, batch: Batch) -> Outputs:
        return Outputs(self.dense(self.dropout(batch.frames[:, 0, 0, :1, 0, 0].float()))[:, None])


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


def trainer(config: TrainConfig, *, groups: int, global_batch: int = 1, dropout: float = 0.0) -> Trainer:
    plan = Plan.make(config, groups=groups, global_batch=global_batch)
    task: Any = SquareTask()
    return Trainer(Linear(dropout=dropout), task, config=config, plan=plan, world=World(0, 1, CPU), seed=1)


def run(
    training: Trainer, *batches: Batch, interrupts: Interrupts | None = None, last_step: int | None = None
) -> tuple[Recorder, list[int], list[int]]:
    """What was recorded, and the steps at which it was saved and validated."""
    recorder, saved, validated = Recorder(), list[int](), list[int]()
    training.train(
        batches,
        sinks=[recorder],
        interrupts=interrupts or Interrupts(),
        save=lambda: saved.append(training.step),
        validate=lambda: validated.append(training.step),
        last_step=last_step,
    )
    return recorder, saved, validated


def weight(training: Trainer) -> float:
    return float(training.model.dense.weight.item())  # type: ignore[union-attr]


def config(**settings: Any) -> TrainConfig:
    return TrainConfig(**{"batch_size": 1, "epochs": 1, "log_every_steps": 1, "schedule": "constant", **settings})


def gradient_of(*batches: Batch) -> float:
    training = trainer(config(max_grad_norm=None), groups=1)
    return float(training.update(batches, examples=sum(len(each.examples) for each in batches)).norm.item())


def test_accumulated_batches_average_over_their_examples() -> None:
    whole = gradient_of(batch(1.0, 2.0, 3.0, 4.0, 5.0))
    assert gradient_of(batch(1.0, 2.0), batch(3.0, 4.0, 5.0)) == pytest.approx(whole)
    assert gradient_of(batch(1.0), batch(2.0, 3.0, 4.0, 5.0)) == pytest.approx(whole)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("ema_decay", [None, 0.5])
def test_every_precision_learns_and_records(precision: str, ema_decay: float | None) -> None:
    settings = config(learning_rate=0.05, precision=precision, log_every_steps=4, ema_decay=ema_decay)
    training = trainer(settings, groups=12)
    recorder, saved, validated = run(training, *[batch(1.0)] * 12)
    assert abs(weight(training)) < 0.7
    assert saved == validated == [12]
    assert recorder.steps == list(range(1, 13))
    assert [record["step"] for record in recorder.records] == [4, 8, 12]
    last = recorder.records[-1]
    assert last["loss"] < recorder.records[0]["loss"]
    assert last["learning_rate"] == 0.05
    assert 0 <= last["data_wait"] <= 1
    assert last["examples_per_second"] > 0
    assert last["grad_norm"] > 0
    assert last["peak_memory_mib"] > 0
    assert last["skipped_steps"] == (2 if precision == "fp16" else 0)  # until the scale of 65536 fits a gradient of 2
    assert ("loss_scale" in last) == (precision == "fp16")


def test_clipping_bounds_the_update_but_not_the_reported_norm() -> None:
    training = trainer(config(max_grad_norm=0.5), groups=1)
    recorder, _, _ = run(training, batch(3.0))
    assert recorder.records[0]["grad_norm"] == pytest.approx(18.0)
    (optimizer,) = training.optimizers
    ((state,),) = [list(optimizer.state.values())]
    assert state["exp_avg"].item() == pytest.approx(0.1 * 0.5, rel=1e-4)  # betas[0] is 0.9


# ------------------------------------------------------------------------------------------------ phases


class Listener:
    """What it is told: a phase's name when it begins, `/name` when it is over."""

    def __init__(self) -> None:
        self.told: list[str] = []

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        self.told.append(name)
        yield
        self.told.append(f"/{name}")


def test_a_step_tells_its_phases_in_order() -> None:
    training = trainer(config(batch_size=2), groups=8, global_batch=4)
    training.phases = listener = Listener()
    run(training, *[batch(1.0, 2.0)] * 4)
    passes = ["forward", "/forward", "backward", "/backward"]
    copies = ["copy", "/copy"]
    one = [
        *("data", *copies, *copies, "/data", "communication", "/communication", *passes, *passes),
        *("optimizer", "communication", "/communication", "/optimizer"),
    ]
    assert listener.told == one * 2
    assert training.examples == 8


def test_listening_changes_nothing_of_what_is_learned() -> None:
    plain, heard = (trainer(config(learning_rate=0.05), groups=4, dropout=0.5) for _ in range(2))
    heard.phases = Listener()
    for each in (plain, heard):
        run(each, *[batch(1.0, 2.0, 3.0)] * 4)
    assert weight(plain) == weight(heard)


def test_training_can_stop_at_a_step_before_the_plan_s_end() -> None:
    training, whole = (trainer(config(schedule="linear", warmup_ratio=0.1), groups=10) for _ in range(2))
    recorder, _, _ = run(training, *[batch(1.0)] * 10, last_step=4)
    assert recorder.steps == [1, 2, 3, 4]
    reference, _, _ = run(whole, *[batch(1.0)] * 10)
    rates = [[record["learning_rate"] for record in each.records[:4]] for each in (recorder, reference)]
    assert rates[0] == rates[1]


# ------------------------------------------------------------------------------------------------ bad numbers


def test_a_step_with_a_bad_number_is_skipped_counted_and_told(caplog: pytest.LogCaptureFixture) -> None:
    good, bad = trainer(config(), groups=3), trainer(config(), groups=3)
    run(good, batch(1.0), batch(2.0), batch(3.0))
    with caplog.at_level(logging.WARNING, logger="clipbert"):
        recorder, _, _ = run(bad, batch(1.0), batch(math.nan), batch(3.0))
    assert [record["skipped_steps"] for record in recorder.records] == [0, 1, 1]
    assert recorder.records[1]["loss"] is None
    assert "step 2 is skipped: its loss is nan" in caplog.text
    assert math.isfinite(weight(bad))
    assert bad.step == 3
    # The skipped step counts for nothing: the same as two updates from the two good batches.
    two = trainer(config(), groups=2)
    run(two, batch(1.0), batch(3.0))
    assert weight(bad) == weight(two) != weight(good)


def test_bad_numbers_in_a_row_stop_the_run_and_name_step_and_examples() -> None:
    training = trainer(config(max_bad_steps=2), groups=5)
    with pytest.raises(RunError, match=r"2 steps in a row .* at step 4: loss inf.*; examples of step 4: einf, e7"):
        run(training, batch(math.nan), batch(1.0), batch(math.nan), batch(math.inf, 7.0), batch(1.0))


def test_fp16_finds_its_scale_by_skipping_steps_that_overflow() -> None:
    training = trainer(config(precision="fp16", max_grad_norm=None), groups=12)
    # The gradient is 2 * 20 * 20 = 800 times the scale of 65536: it overflows until the scale is at most 64.
    recorder, _, _ = run(training, *[batch(20.0)] * 12)
    scales = [record["loss_scale"] for record in recorder.records]
    skipped = [record["skipped_steps"] for record in recorder.records]
    assert scales[:3] == [32768.0, 16384.0, 8192.0]
    assert skipped[:3] == [1, 2, 3]
    assert skipped[-1] == skipped[-2] < 12
    assert recorder.records[0]["loss"] is None
    assert recorder.records[-1]["loss"] > 0
    assert weight(training) < 1


# ------------------------------------------------------------------------------------------------ moving average


def test_the_moving_average_follows_the_weights_and_steps_aside() -> None:
    training = trainer(config(learning_rate=0.1, ema_decay=0.9), groups=3)
    seen, expected = [1.0], 1.0
    for number in range(1, 4):
        training.update([batch(1.0)], examples=1)
        decay = min(0.9, (1 + number) / (10 + number))
        seen.append(weight(training))
        expected = decay * expected + (1 - decay) * seen[-1]
    assert training.average
    with training.average.applied():
        assert weight(training) == pytest.approx(expected, rel=1e-6)
    assert weight(training) == seen[-1]


# ------------------------------------------------------------------------------------------------ going on


class StopAfter(Recorder):
    """Asks to stop after a step, as a signal would."""

    def __init__(self, step: int, interrupts: Interrupts) -> None:
        super().__init__()
        self.step, self.interrupts = step, interrupts

    def advance(self, step: int) -> None:
        if step == self.step:
            self.interrupts.noted = signal.SIGTERM


def continued(
    settings: TrainConfig, batches: Sequence[Batch], folder: Path, *, stop_after: int
) -> tuple[Trainer, Recorder]:
    """Trained to `stop_after`, written, read by a fresh trainer, and trained to the end."""
    first, second = (trainer(settings, groups=len(batches), dropout=0.5) for _ in range(2))
    interrupts = Interrupts()
    with pytest.raises(InterruptionError):
        first.train(
            batches,
            sinks=[StopAfter(stop_after, interrupts)],
            interrupts=interrupts,
            save=lambda: first.write(folder),
            validate=lambda: None,
        )
    assert first.step == stop_after
    second.model.load_state_dict(copy.deepcopy(first.model.state_dict()))
    second.read(folder)
    recorder, _, _ = run(second, *batches[stop_after:])
    return second, recorder


@pytest.mark.parametrize(
    "settings",
    [
        {"ema_decay": 0.9},
        {"precision": "fp16"},
        {"optimizer": "adamax"},
        {"optimizer": "adam", "schedule": "linear", "warmup_ratio": 0.5},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_a_trainer_goes_on_bitwise(settings: dict[str, Any], tmp_path: Path) -> None:
    made = config(learning_rate=0.05, **settings)
    batches = [batch(float(number), 2.0, 0.5, 1.5) for number in range(1, 9)]
    whole = trainer(made, groups=len(batches), dropout=0.5)
    run(whole, *batches)
    second, _ = continued(made, batches, tmp_path, stop_after=3)
    assert weight(second) == weight(whole)
    assert second.scaler.state_dict() == whole.scaler.state_dict()
    assert second.skipped == whole.skipped
    if whole.average and second.average:
        with whole.average.applied(), second.average.applied():
            assert weight(second) == weight(whole)


def test_means_of_a_log_record_span_an_interruption(tmp_path: Path) -> None:
    settings = config(log_every_steps=4)
    batches = [batch(float(number)) for number in range(1, 5)]
    recorder, _, _ = run(trainer(settings, groups=4, dropout=0.5), *batches)
    _, again = continued(settings, batches, tmp_path, stop_after=2)
    assert [record["step"] for record in again.records] == [4]
    for name in ("loss", "grad_norm", "learning_rate"):
        assert again.records[-1][name] == recorder.records[-1][name]


def test_dropout_depends_on_seed_and_step_alone() -> None:
    def norms(*, seed: int, disturb: bool) -> list[float]:
        training = trainer(config(learning_rate=1e-9), groups=9, dropout=0.5)
        training.seed = seed
        found = []
        for number in range(6):
            if disturb:
                torch.manual_seed(number)
            training.step = number
            found.append(training.update([batch(1.0, 2.0, 4.0, 8.0)], examples=4).norm.item())
        return found

    plain = norms(seed=1, disturb=False)
    assert plain == norms(seed=1, disturb=True)
    assert len(set(plain)) > 1
    assert plain != norms(seed=2, disturb=False)


def test_a_state_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    trainer(config(), groups=1).write(tmp_path)
    other = trainer(config(cnn_optimizer="sgd"), groups=1)
    (tmp_path / "training.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(RunError, match=r"training\.pt does not fit this training"):
        other.read(tmp_path)


# ------------------------------------------------------------------------------------------------ stopping


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 143)])
def test_a_signal_stops_between_steps_and_saves_first(number: signal.Signals, code: int) -> None:
    training = trainer(config(), groups=5)
    interrupts = Interrupts([number])

    def batches() -> Any:
        for step in range(1, 6):
            if step == 3:
                signal.raise_signal(number)
            yield batch(float(step))

    saved: list[int] = []
    with interrupts, pytest.raises(InterruptionError) as stopped:
        training.train(
            batches(), sinks=[], interrupts=interrupts, save=lambda: saved.append(training.step), validate=lambda: None
        )
    assert stopped.value.exit_code == code
    assert saved == [2]
    assert training.step == 2


def test_a_second_ctrl_c_leaves_at_once_and_a_second_sigterm_does_not() -> None:
    with Interrupts([signal.SIGINT, signal.SIGTERM]) as interrupts:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert interrupts.noted is signal.SIGTERM
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_auto_precision_is_fp32_on_a_cpu() -> None:
    assert Precision.choose("auto", CPU).name == "fp32"


@pytest.mark.cuda
def test_auto_precision_is_bf16_on_a_gpu_that_has_it() -> None:
    assert Precision.choose("auto", torch.device("cuda")).name == "bf16"
