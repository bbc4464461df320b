"""Every moment of a step belongs to one phase."""

from __future__ import annotations

import pytest
import torch

from clipbert_cli.profile import phase_timer
from clipbert_cli.profile.phase_timer import PhaseTimer
from clipbert_cli.train.logs import PHASES


class Ticks:
    """A clock that advances by one second whenever it is read."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self, device: torch.device) -> float:
        self.time += 1
        return self.time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Ticks:
    ticks = Ticks()
    monkeypatch.setattr(phase_timer, "now", ticks.now)
    return ticks


def phase_timer_of(processes: int) -> PhaseTimer:
    return PhaseTimer(torch.device("cpu"), processes=processes)


def step(timer: PhaseTimer, clock: Ticks) -> None:
    with timer.phase("data"):
        clock.time += 10
        with timer.phase("copy"):
            clock.time += 100
    with timer.phase("forward"):
        clock.time += 1000
    with timer.phase("optimizer"), timer.phase("communication"):
        clock.time += 10_000
    timer.step()


@pytest.mark.parametrize("processes", [1, 2])
def test_phases_and_steps_have_the_same_sum(clock: Ticks, processes: int) -> None:
    timer = phase_timer_of(processes)
    clock.time = 50
    timer.step()
    for _ in range(3):
        step(timer, clock)
    end = clock.time
    with timer.phase("forward"):  # after the last step: in nothing
        clock.time += 7
    spent, steps = timer.seconds()
    assert list(spent) == [*PHASES, "other"]
    assert sum(spent.values()) == sum(steps) == end - 51
    assert len(steps) == 3
    assert len(set(steps)) == 1
    assert spent["forward"] == 3 * 1001
    assert spent["backward"] == 0


def test_an_inner_phase_does_not_count_for_the_outer_one(clock: Ticks) -> None:
    timer = phase_timer_of(2)
    timer.step()
    step(timer, clock)
    spent, _ = timer.seconds()
    assert spent["data"] == 10 + 2
    assert spent["copy"] == 101
    assert spent["communication"] == 10_001
    assert spent["optimizer"] == 2


def test_a_single_process_does_not_communicate(clock: Ticks) -> None:
    timer = phase_timer_of(1)
    timer.step()
    step(timer, clock)
    spent, _ = timer.seconds()
    assert spent["communication"] == 0
    assert spent["optimizer"] == 10_001


def test_a_phase_that_fails_is_over(clock: Ticks) -> None:
    timer = phase_timer_of(2)
    timer.step()
    with pytest.raises(ValueError, match="bad"), timer.phase("data"), timer.phase("copy"):
        raise ValueError("bad")
    clock.time += 10
    timer.step()
    spent, _ = timer.seconds()
    assert spent["other"] == 12


@pytest.mark.cuda
def test_on_a_gpu_a_phase_counts_as_long_as_the_gpu_works_on_it() -> None:
    device = torch.device("cuda")
    timer = PhaseTimer(device, processes=1)
    matrix = torch.rand(4096, 4096, device=device)
    timer.step()
    with timer.phase("forward"):
        for _ in range(50):
            matrix = torch.tanh(matrix @ matrix)
    with timer.phase("backward"):
        matrix = matrix + 1
    timer.step()
    spent, (whole,) = timer.seconds()
    assert spent["forward"] > spent["backward"] > 0
    assert sum(spent.values()) == pytest.approx(whole)
