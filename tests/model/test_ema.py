"""The average of the weights, and what an update of it costs."""

from __future__ import annotations

import pytest
import torch
from operations import Operations
from torch import nn
from torch_ema import ExponentialMovingAverage

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
def test_the_average_is_torch_emas(decay: float, frozen: bool) -> None:
    model = layers(3)
    model[0].requires_grad_(not frozen)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    ours, theirs = WeightAverage(model, decay), ExponentialMovingAverage(trained, decay=decay)
    for step in range(12):
        with torch.no_grad():
            for parameter in trained:
                parameter += torch.sin(parameter + step)
        ours.update()
        theirs.update()
    present = [parameter.clone() for parameter in model.parameters()]
    with ours.applied():
        for parameter, shadow in zip(trained, theirs.shadow_params, strict=True):
            torch.testing.assert_close(parameter.detach(), shadow)
    assert all(torch.equal(parameter, before) for parameter, before in zip(model.parameters(), present, strict=True))
