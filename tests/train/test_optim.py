from __future__ import annotations

import pytest
import torch
from bounds import ONE_UPDATE_ABSOLUTE, ONE_UPDATE_RELATIVE, RATE
from goldens import golden_json
from small_models import small_config
from torch import nn

from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.model.heads import HeadSpec
from clipbert_cli.recipe.schema import TrainConfig
from clipbert_cli.train import optim
from clipbert_cli.train.optim import (
    BETAS,
    LOWEST_RATE,
    SCHEDULES,
    AdamW,
    build_optimizer,
    describe_groups,
    learning_rates,
    parameter_groups,
    set_rates,
)


def group(parameter: nn.Parameter, *, decay: float = 0.0) -> dict:
    return {
        "name": "transformer/decay",
        "params": [parameter],
        "lr": 0.0,
        "part": "transformer",
        "multiplier": 1.0,
        "decay": decay,
    }


@pytest.mark.golden
def test_updates_are_those_of_the_originals_optimiser() -> None:
    cases = [case for case in golden_json("training/training.json")["adamw_unit"] if case["config"]["correct_bias"]]
    assert cases
    for case in cases:
        parameter = nn.Parameter(torch.tensor(case["params"][0]))
        config = case["config"]
        assert tuple(config["betas"]) == BETAS
        optimizer = AdamW([group(parameter, decay=config["weight_decay"])], eps=config["eps"])
        for rate, gradient, expected in zip(case["lr"], case["grads"], case["params"][1:], strict=True):
            parameter.grad = torch.tensor(gradient)
            set_rates(optimizer, {"transformer": rate})
            optimizer.step()
            # Decay before or after the update differs by lr * decay * update.
            wanted = torch.tensor(expected)
            torch.testing.assert_close(parameter.detach(), wanted, rtol=ONE_UPDATE_RELATIVE, atol=ONE_UPDATE_ABSOLUTE)


@pytest.mark.golden
def test_learning_rates_are_the_originals() -> None:
    cases = [case for case in golden_json("training/training.json")["lr_schedule"] if case["decay"] in SCHEDULES]
    assert {case["decay"] for case in cases} == set(SCHEDULES)
    for case in cases:
        config = TrainConfig(
            learning_rate=case["peak"], warmup_ratio=case["warmup_ratio"], schedule=case["decay"], epochs=1
        )
        for step, expected in zip(case["steps"], case["lr"], strict=True):
            if expected is None:  # the original divides by zero: nothing is left to decay over
                continue
            found = learning_rates(config, step, total=case["total"])
            assert found["transformer"] == pytest.approx(expected, rel=RATE), case


def test_every_schedule_of_a_recipe_exists() -> None:
    schedule = TrainConfig.model_fields["schedule"].annotation
    assert set(schedule.__args__) == set(SCHEDULES)  # type: ignore[union-attr]


def test_an_all_warmup_schedule_ends_without_dividing_by_zero() -> None:
    config = TrainConfig(learning_rate=1.0, warmup_ratio=1.0, schedule="linear")
    assert learning_rates(config, 4, total=4)["transformer"] == LOWEST_RATE
    assert learning_rates(config, 3, total=4)["transformer"] == 0.75


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.visual_encoder = nn.Conv2d(1, 1, 1)
        self.dense = nn.Linear(2, 2)
        self.norm = nn.LayerNorm(2)
        self.frozen = nn.Linear(2, 2)
        self.frozen.requires_grad_(False)


def test_groups_are_named_and_biases_and_layer_norms_do_not_decay() -> None:
    groups = parameter_groups(Small(), TrainConfig(weight_decay=0.5))
    found = {
        group["name"]: (group["part"], group["decay"], group["multiplier"], len(group["params"])) for group in groups
    }
    assert found == {
        "transformer/decay": ("transformer", 0.5, 1.0, 1),
        "transformer/no_decay": ("transformer", 0.0, 1.0, 3),
        "visual/decay": ("visual", 0.5, 1.0, 1),
        "visual/no_decay": ("visual", 0.0, 1.0, 1),
    }


class Encoder(nn.Module):
    """A stem, two blocks and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.Conv2d(1, 1, 1)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 2))
        self.blocks = nn.ModuleList(nn.Linear(2, 2, bias=False) for _ in range(2))
        self.last = nn.LayerNorm(2)

    def parts(self) -> dict[str, list[nn.Module]]:
        blocks = {str(number): [block] for number, block in enumerate(self.blocks)}
        return {"stem": [self.embeddings], **blocks, "norm": [self.last]}


def test_layer_decay_lowers_the_rate_block_by_block() -> None:
    """The convention of BEiT: the last block has the factor once, the stem once for each block and once more."""
    model = Small()
    model.visual_encoder = Encoder()
    config = TrainConfig(layer_decay=0.5)
    groups = {group["name"]: (group["multiplier"], len(group["params"])) for group in parameter_groups(model, config)}
    assert groups == {
        "transformer/decay": (1.0, 1),
        "transformer/no_decay": (1.0, 3),
        "visual/decay/depth 3": (0.125, 1),
        "visual/no_decay/depth 3": (0.125, 1),
        "visual/decay/depth 2": (0.25, 1),
        "visual/decay/depth 1": (0.5, 1),
        "visual/no_decay": (1.0, 3),  # norm, and the class token, which has no weight decay
    }


def test_the_four_stages_of_a_resnet_are_its_blocks() -> None:
    model = ClipBert(small_config(), HeadSpec("classifier", 3))
    rates = {group["multiplier"] for group in parameter_groups(model, TrainConfig(layer_decay=0.5))}
    assert rates == {0.5**depth for depth in range(6)}


def test_the_plan_lists_the_groups_of_each_rate() -> None:
    model = Small()
    model.visual_encoder = Encoder()
    config = TrainConfig(learning_rate=1e-4, visual_learning_rate=2e-5, layer_decay=0.5, weight_decay=0.1)
    assert describe_groups(parameter_groups(model, config), config) == [
        "transformer: 10 parameters, 6 without weight decay 0.1, learning rate 0.0001",
        "visual: 16 parameters, 7 without weight decay 0.1, learning rate 2e-05 times 0.125 to 1",
    ]


def test_a_groups_rate_is_its_parts_rate_times_its_multiplier() -> None:
    model = Small()
    model.visual_encoder = Encoder()
    optimizer = build_optimizer(model, TrainConfig(layer_decay=0.5))
    set_rates(optimizer, {"transformer": 1e-3, "visual": 1e-4})
    rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    assert (rates["transformer/decay"], rates["visual/decay/depth 2"]) == (1e-3, pytest.approx(2.5e-5))


def test_the_cnn_learns_at_the_transformers_rate_unless_told() -> None:
    found = learning_rates(TrainConfig(learning_rate=1e-3, schedule="constant"), 1, total=2)
    assert found == {"transformer": 1e-3, "visual": 1e-3}


def test_every_trained_parameter_is_in_the_optimiser_once() -> None:
    model = Small()
    held = [parameter for group in build_optimizer(model, TrainConfig()).param_groups for parameter in group["params"]]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert sorted(map(id, held)) == sorted(map(id, trained))


def test_adamw_goes_on_from_its_state_bitwise() -> None:
    def steps(count: int, *, restart_after: int | None = None) -> torch.Tensor:
        torch.manual_seed(0)
        parameter = nn.Parameter(torch.randn(5))
        optimizer = AdamW([group(parameter, decay=0.1)], eps=1e-6)
        for number in range(count):
            if number == restart_after:
                state = optimizer.state_dict()
                optimizer = AdamW([group(parameter, decay=0.1)], eps=1e-6)
                optimizer.load_state_dict(state)
            parameter.grad = torch.sin(parameter.detach() * (number + 1))
            set_rates(optimizer, {"transformer": 0.01})
            optimizer.step()
        return parameter.detach()

    assert torch.equal(steps(6), steps(6, restart_after=2))


@pytest.mark.parametrize("before", [True, None], ids=["fused before", "not fused before"])
@pytest.mark.parametrize("after", [True, None], ids=["fused after", "not fused after"])
@pytest.mark.parametrize("scaled", [False, True], ids=["", "loss scale"])
def test_the_device_of_the_moment_decides_how_a_resumed_optimiser_computes(
    before: bool | None, after: bool | None, scaled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def steps(count: int, *, restart_after: int | None = None) -> tuple[torch.Tensor, AdamW]:
        parameter = nn.Parameter(torch.linspace(-1, 1, 5))
        monkeypatch.setattr(optim, "_fused", lambda groups: before)
        optimizer = AdamW([group(parameter, decay=0.1)], eps=1e-6)
        scaler = torch.amp.GradScaler("cpu", enabled=scaled)
        for number in range(count):
            if number == restart_after:
                state = optimizer.state_dict()
                monkeypatch.setattr(optim, "_fused", lambda groups: after)
                optimizer = AdamW([group(parameter, decay=0.1)], eps=1e-6)
                optimizer.load_state_dict(state)
            parameter.grad = None
            scaler.scale(torch.cos(parameter * (number + 1)).sum()).backward()
            set_rates(optimizer, {"transformer": 0.01})
            scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
        return parameter.detach(), optimizer

    resumed, optimizer = steps(5, restart_after=2)
    assert [each["fused"] for each in optimizer.param_groups] == [after]
    assert optimizer.steps == 5
    torch.testing.assert_close(resumed, steps(5)[0], rtol=ONE_UPDATE_RELATIVE, atol=ONE_UPDATE_ABSOLUTE)
