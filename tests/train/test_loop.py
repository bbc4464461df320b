"""Steps do not depend on their division into batches; numbers that are not finite are skipped and reported."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from small_training import CPU, batch, config, run, trainer, weight

from clipbert_cli.errors import RunError
from clipbert_cli.runtime.precision import Precision
from clipbert_cli.train import loop
from clipbert_cli.train.logs import Phase, unnoticed
from clipbert_cli.types import Batch


def gradient_of(*batches: Batch) -> float:
    training = trainer(config(max_grad_norm=None), groups=1)
    return float(training.update(batches, examples=sum(len(each.examples) for each in batches)).norm.item())


def test_gradients_of_accumulated_batches_are_averaged_over_examples() -> None:
    whole = gradient_of(batch(1.0, 2.0, 3.0, 4.0, 5.0))
    assert gradient_of(batch(1.0, 2.0), batch(3.0, 4.0, 5.0)) == pytest.approx(whole)
    assert gradient_of(batch(1.0), batch(2.0, 3.0, 4.0, 5.0)) == pytest.approx(whole)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("ema_decay", [None, 0.5])
def test_every_precision_learns_and_records(precision: str, ema_decay: float | None) -> None:
    settings = config(learning_rate=0.05, precision=precision, log_every_steps=4, ema_decay=ema_decay)
    training = trainer(settings, groups=12)
    recorder = run(training, *[batch(1.0)] * 12)
    assert abs(weight(training)) < 0.7
    assert recorder.saved == recorder.validated == [12]
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
    recorder = run(training, batch(3.0))
    assert recorder.records[0]["grad_norm"] == pytest.approx(18.0)
    optimizer = training.optimizer
    ((state,),) = [list(optimizer.state.values())]
    assert state["exp_avg"].item() == pytest.approx(0.1 * 0.5, rel=1e-4)  # betas[0] is 0.9


def test_auto_precision_is_fp32_on_a_cpu() -> None:
    assert Precision.choose("auto", CPU).name == "fp32"


@pytest.mark.cuda
def test_auto_precision_is_bf16_on_a_gpu_that_has_it() -> None:
    assert Precision.choose("auto", torch.device("cuda")).name == "bf16"


@pytest.mark.parametrize("tf32", [False, True])
def test_tf32_is_set_for_products_and_convolutions_alike(tf32: bool) -> None:
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = not tf32
    precision = trainer(config(tf32=tf32), groups=1).precision
    assert torch.backends.cudnn.allow_tf32 == torch.backends.cuda.matmul.allow_tf32 == tf32
    assert precision.describe() == ("fp32 with TF32" if tf32 else "fp32")


@pytest.mark.parametrize("before", ["bf16", "fp16"])
def test_a_run_is_not_resumed_in_another_precision_unless_it_is_named(before: str, tmp_path: Path) -> None:
    first = trainer(config(precision=before), groups=2)
    first.update([batch(1.0)], examples=1)
    first.write(tmp_path)
    with pytest.raises(RunError, match=f"trained with {before}, but this machine computes with fp32") as refused:
        trainer(config(), groups=2).read(tmp_path)
    assert f"train.precision={before}" in (refused.value.hint or "")
    for named in ("fp32", "bf16", "fp16"):
        trainer(config(precision=named), groups=2).read(tmp_path)


# ------------------------------------------------------------------------------------------------ phases


class Listener:
    """Records a phase's name when it begins, and `/name` when it ends."""

    def __init__(self) -> None:
        self.received: list[str] = []

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        self.received.append(name)
        yield
        self.received.append(f"/{name}")


def test_a_step_announces_its_phases_in_order() -> None:
    listener = Listener()
    training = trainer(config(batch_size=2), groups=8, global_batch=4, phase=listener.phase)
    run(training, *[batch(1.0, 2.0)] * 4)
    passes = ["forward", "/forward", "backward", "/backward"]
    copies = ["copy", "/copy"]
    one = [
        *("data", *copies, *copies, "/data", "communication", "/communication", *passes, *passes),
        *("optimizer", "communication", "/communication", "/optimizer"),
    ]
    assert listener.received == one * 2
    assert training.examples == 8


def test_a_profiler_does_not_change_the_weights() -> None:
    plain, heard = (
        trainer(config(learning_rate=0.05), groups=4, dropout=0.5, phase=phase)
        for phase in (unnoticed, Listener().phase)
    )
    for each in (plain, heard):
        run(each, *[batch(1.0, 2.0, 3.0)] * 4)
    assert weight(plain) == weight(heard)


def test_training_can_end_before_the_plan_with_the_plans_rates() -> None:
    training, whole = (trainer(config(schedule="linear", warmup_ratio=0.1), groups=10) for _ in range(2))
    recorder = run(training, *[batch(1.0)] * 10, last_step=4)
    assert recorder.steps == [1, 2, 3, 4]
    reference = run(whole, *[batch(1.0)] * 10)
    rates = [[record["learning_rate"] for record in each.records[:4]] for each in (recorder, reference)]
    assert rates[0] == rates[1]


# ------------------------------------------------------------------------------------------------ bad numbers


def test_a_step_that_is_not_finite_is_skipped_counted_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    good, bad = trainer(config(), groups=3), trainer(config(), groups=3)
    run(good, batch(1.0), batch(2.0), batch(3.0))
    with caplog.at_level(logging.WARNING, logger="clipbert"):
        recorder = run(bad, batch(1.0), batch(math.nan), batch(3.0))
    assert [record["skipped_steps"] for record in recorder.records] == [0, 1, 1]
    assert recorder.records[1]["loss"] is None
    assert "step 2 is skipped, because a number is not finite: loss nan" in caplog.text
    assert math.isfinite(weight(bad))
    assert bad.step == 3
    # The skipped step counts for nothing: the same as two updates from the two good batches.
    two = trainer(config(), groups=2)
    run(two, batch(1.0), batch(3.0))
    assert weight(bad) == weight(two) != weight(good)


def test_too_many_skipped_steps_in_a_row_stop_the_run_and_name_step_and_examples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "MAX_SKIPPED_STEPS", 2)
    training = trainer(config(), groups=5)
    with pytest.raises(
        RunError,
        match=r"of 2 steps in a row was not finite, the last at step 4: loss inf.*; "
        r"examples of step 4: minf '[?]', m7.0 '[?]'",
    ):
        run(training, batch(math.nan), batch(1.0), batch(math.nan), batch(math.inf, 7.0), batch(1.0))


def test_fp16_finds_its_scale_by_skipping_steps_that_overflow() -> None:
    training = trainer(config(precision="fp16", max_grad_norm=None), groups=12)
    # The gradient is 2 * 20 * 20 = 800 times the scale of 65536: it overflows until the scale is at most 64.
    recorder = run(training, *[batch(20.0)] * 12)
    scales = [record["loss_scale"] for record in recorder.records]
    skipped = [record["skipped_steps"] for record in recorder.records]
    assert scales[:3] == [32768.0, 16384.0, 8192.0]
    assert skipped[:3] == [1, 2, 3]
    assert skipped[-1] == skipped[-2] < 12
    assert recorder.records[0]["loss"] is None
    assert recorder.records[-1]["loss"] > 0
    assert weight(training) < 1


# ------------------------------------------------------------------------------------------------ moving average


def test_the_moving_average_follows_the_weights_and_can_replace_them_for_a_while() -> None:
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
