from __future__ import annotations

import pytest

from clipbert_cli.recipe.schema import TrainConfig
from clipbert_cli.train import training
from clipbert_cli.train.plan import Plan


def test_the_plan_counts_updates_epochs_validations_and_checkpoints() -> None:
    plan = Plan.make(TrainConfig(batch_size=4, epochs=3, save_every_steps=2), groups=17, global_batch=8, seed=0)
    assert (plan.layout.steps_per_epoch, plan.total_steps, plan.epochs, plan.validations) == (3, 9, 3, 3)
    assert [len(plan.layout.batches(step)) for step in range(1, 10)] == [2, 2, 1] * 3
    assert [plan.layout.epoch(step) for step in range(1, 10)] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [step for step in range(1, 10) if plan.validates(step)] == [3, 6, 9]
    assert [step for step in range(1, 10) if plan.saves(step)] == [2, 3, 4, 6, 8, 9]


def test_max_steps_takes_precedence_over_epochs() -> None:
    config = TrainConfig(batch_size=4, epochs=1, max_steps=11, validate_every_steps=4)
    longer = Plan.make(config, groups=17, global_batch=4, seed=0)
    assert (longer.total_steps, longer.epochs, longer.validations) == (11, 3, 3)
    assert [step for step in range(1, 12) if longer.validates(step)] == [4, 8, 11]


@pytest.mark.parametrize(
    ("workers", "processes", "cores", "said"),
    [
        (8, 4, 32, ""),
        (0, 4, 1, ""),
        (8, 4, 8, "32 loading processes (4 processes with data.workers=8 each) share 8 cores"),
        (4, 1, 2, "4 loading processes share 2 cores"),
        (2, 1, 1, "2 loading processes share 1 core,"),
    ],
)
def test_loading_processes_that_outnumber_the_cores_are_warned_of(
    workers: int, processes: int, cores: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "available_cores", lambda: cores)
    message = training.too_few_cores(workers, processes)
    assert message.startswith(said) if said else message == ""
    assert not said or "--cpus-per-task" in message
