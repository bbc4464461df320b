"""Every moment of a step belongs to one phase."""

from __future__ import annotations

import pytest
import torch

from clipbert_cli.profile.timeline import Timeline, clock_of
from clipbert_cli.train.phases import PHASES


class Ticks:
    """A clock on which looking takes one second."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        self.time += 1
        return self.time

    def seconds(self, begin: float, end: float) -> float:
        return end - begin


def step(timeline: Timeline, clock: Ticks) -> None:
    with timeline.phase("data"):
        clock.time += 10
        with timeline.phase("copy"):
            clock.time += 100
    with timeline.phase("forward"):
        clock.time += 1000
    with timeline.phase("optimizer"), timeline.phase("communication"):
        clock.time += 10_000
    timeline.step()


@pytest.mark.parametrize("alone", [True, False])
def test_phases_and_steps_have_the_same_sum(alone: bool) -> None:
    clock = Ticks()
    timeline = Timeline(clock, alone=alone)
    clock.time = 50
    timeline.step()
    for _ in range(3):
        step(timeline, clock)
    end = clock.time
    with timeline.phase("forward"):  # after the last step: in nothing
        clock.time += 7
    spent, steps = timeline.seconds()
    assert list(spent) == [*PHASES, "other"]
    assert sum(spent.values()) == sum(steps) == end - 51
    assert len(steps) == 3
    assert len(set(steps)) == 1
    assert spent["forward"] == 3 * 1001
    assert spent["backward"] == 0


def test_a_phase_takes_its_time_from_the_one_it_interrupts() -> None:
    clock = Ticks()
    timeline = Timeline(clock, alone=False)
    timeline.step()
    step(timeline, clock)
    spent, _ = timeline.seconds()
    assert spent["data"] == 10 + 2
    assert spent["copy"] == 101
    assert spent["communication"] == 10_001
    assert spent["optimizer"] == 2


def test_one_process_communicates_nothing() -> None:
    clock = Ticks()
    timeline = Timeline(clock, alone=True)
    timeline.step()
    step(timeline, clock)
    spent, _ = timeline.seconds()
    assert spent["communication"] == 0
    assert spent["optimizer"] == 10_001


def test_what_follows_the_last_gradient_is_communication() -> None:
    clock = Ticks()
    timeline = Timeline(clock, alone=False)
    timeline.step()
    with timeline.phase("backward"):
        for _ in range(3):
            clock.time += 10
            timeline.gradient()
        clock.time += 100
    with timeline.phase("backward"):  # whose gradients nobody tells of
        clock.time += 5
    timeline.step()
    spent, _ = timeline.seconds()
    assert spent["backward"] == 33 + 6
    assert spent["communication"] == 101


def test_a_phase_that_fails_is_over() -> None:
    clock = Ticks()
    timeline = Timeline(clock, alone=False)
    timeline.step()
    with pytest.raises(ValueError, match="bad"), timeline.phase("data"), timeline.phase("copy"):
        raise ValueError("bad")
    clock.time += 10
    timeline.step()
    spent, _ = timeline.seconds()
    assert spent["other"] == 12


@pytest.mark.cuda
def test_on_a_gpu_a_phase_is_charged_with_what_it_gave_the_device_to_do() -> None:
    device = torch.device("cuda")
    timeline = Timeline(clock_of(device), alone=True)
    matrix = torch.rand(4096, 4096, device=device)
    timeline.step()
    with timeline.phase("forward"):
        for _ in range(50):
            matrix = torch.tanh(matrix @ matrix)
    with timeline.phase("backward"):
        matrix = matrix + 1
    timeline.step()
    spent, (whole,) = timeline.seconds()
    assert spent["forward"] > spent["backward"] > 0
    assert sum(spent.values()) == pytest.approx(whole)
