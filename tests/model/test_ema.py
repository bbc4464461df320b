"""The average of the weights, and what an update of it costs."""

from __future__ import annotations

import pytest
import torch
from operations import Operations
from torch import nn

from clipbert_cli.model.ema import WeightAverage


def layers(count: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleList([nn.Linear(3, 2 + number % 3) for number in range(count)])


@pytest.mark.parametrize("count", [1, 3, 40])
def test_an_update_is_one_operation_for_any_number_of_parameters(count: int) -> None:
    model = layers(count)
    average = WeightAverage(model, 0.9)
    with Operations() as done:
        average.update()
    changing = {name: times for name, times in done.counts.items() if name.endswith("_")}
    assert changing == {"_foreach_lerp_": 1}
    assert done.counts["item"] == done.counts["_local_scalar_dense"] == 0  # nothing waits for a GPU


@pytest.mark.parametrize("decay", [0.3, 0.9, 0.9999])
@pytest.mark.parametrize("frozen", [False, True])
def test_the_average_follows_the_weights_and_replaces_them_within_a_block(decay: float, frozen: bool) -> None:
    model = layers(3)
    model[0].requires_grad_(not frozen)
    parameters = list(model.parameters())
    average = WeightAverage(model, decay)
    expected = [parameter.detach().clone() for parameter in parameters]
    for step in range(1, 13):
        with torch.no_grad():
            for parameter in filter(lambda each: each.requires_grad, parameters):
                parameter += torch.sin(parameter + step)
        average.update()
        share = min(decay, (1 + step) / (10 + step))
        expected = [share * mean + (1 - share) * now.detach() for mean, now in zip(expected, parameters, strict=True)]
    present = [parameter.clone() for parameter in parameters]
    with average.applied():
        for parameter, mean in zip(parameters, expected, strict=True):
            torch.testing.assert_close(parameter.detach(), mean)
    assert all(torch.equal(parameter, before) for parameter, before in zip(parameters, present, strict=True))
