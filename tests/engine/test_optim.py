from __future__ import annotations

import pytest
import torch
from goldens import golden_json
from torch import nn

from clipbert_cli.engine.optim import SCHEDULES, AdamW, parameter_groups, rate_factor, set_rates
from clipbert_cli.recipe.schema import TrainConfig


@pytest.mark.golden
def test_updates_are_those_of_the_originals_optimiser() -> None:
    cases = [case for case in golden_json("training/training.json")["adamw_unit"] if case["config"]["correct_bias"]]
    assert cases
    for case in cases:
        parameter = nn.Parameter(torch.tensor(case["params"][0]))
        config = case["config"]
        group = {
            "name": "transformer/decay",
            "params": [parameter],
            "lr": 1.0,
            "peak_lr": 1.0,
            "decay": config["weight_decay"],
        }
        optimizer = AdamW([group], betas=tuple(config["betas"]), eps=config["eps"])
        for rate, gradient, expected in zip(case["lr"], case["grads"], case["params"][1:], strict=True):
            parameter.grad = torch.tensor(gradient)
            set_rates(optimizer, rate)
            optimizer.step()
            # Decay before or after the update differs by lr * decay * update.
            torch.testing.assert_close(parameter.detach(), torch.tensor(expected), rtol=1e-6, atol=1e-7)


@pytest.mark.golden
def test_learning_rates_are_the_originals() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    cases = [case for case in golden_json("training/training.json")["lr_schedule"] if case["decay"] in SCHEDULES]
    assert cases
    for case in cases:
        group = {"name": "cnn/decay", "params": [parameter], "lr": 0.0, "peak_lr": case["peak"], "decay": 0.0}
        optimizer = AdamW([group], betas=(0.9, 0.98), eps=1e-6)
        for step, expected in zip(case["steps"], case["lr"], strict=True):
            if expected is None:  # the original divides by zero: nothing is left to decay over
                continue
            factor = rate_factor(step, total=case["total"], warmup_ratio=case["warmup_ratio"], schedule=case["decay"])
            assert set_rates(optimizer, factor)["cnn"] == pytest.approx(expected, rel=1e-9), case


def test_an_all_warmup_schedule_ends_without_dividing_by_zero() -> None:
    assert rate_factor(4, total=4, warmup_ratio=1.0, schedule="linear") == 0.0
    assert rate_factor(3, total=4, warmup_ratio=1.0, schedule="linear") == 0.75


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cnn = nn.Conv2d(1, 1, 1)
        self.dense = nn.Linear(2, 2)
        self.LayerNorm = nn.LayerNorm(2)
        self.frozen = nn.Linear(2, 2)
        self.frozen.requires_grad_(False)


def test_groups_are_named_and_biases_and_layer_norms_do_not_decay() -> None:
    model = Small()
    groups = parameter_groups(model, TrainConfig(learning_rate=1e-3, cnn_learning_rate=1e-4, weight_decay=0.5))
    found = {group["name"]: (group["lr"], group["decay"], len(group["params"])) for group in groups}
    assert found == {
        "transformer/decay": (1e-3, 0.5, 1),
        "transformer/no_decay": (1e-3, 0.0, 3),
        "cnn/decay": (1e-4, 0.5, 1),
        "cnn/no_decay": (1e-4, 0.0, 1),
    }


def test_the_cnn_learns_at_the_transformers_rate_unless_told() -> None:
    assert {group["lr"] for group in parameter_groups(Small(), TrainConfig(learning_rate=1e-3))} == {1e-3}
