"""BERT's optimiser as one writes it down: a parameter at a time, in eight groups."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from clipbert_cli.recipe.schema import TrainConfig


class PlainAdamW:
    """AdamW; `step` takes the gradients that lie in the parameters."""

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        self.groups, self.config = eight_groups(model, config.weight_decay), config
        self.state: dict[Tensor, tuple[Tensor, Tensor]] = {}
        self.steps = 0

    @torch.no_grad()
    def step(self) -> None:
        self.steps += 1
        first, second = self.config.betas
        for group in self.groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                if parameter not in self.state:
                    self.state[parameter] = (torch.zeros_like(parameter), torch.zeros_like(parameter))
                mean, square = self.state[parameter]
                mean.mul_(first).add_(gradient, alpha=1 - first)
                square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
                size = self.config.learning_rate * math.sqrt(1 - second**self.steps) / (1 - first**self.steps)
                parameter.addcdiv_(mean, square.sqrt().add_(self.config.eps), value=-size)
                if group["decay"]:
                    parameter.add_(parameter, alpha=-self.config.learning_rate * group["decay"])


def eight_groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Transformer and CNN, new layers and old ones, with decay and without."""
    groups: dict[tuple[bool, bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            fixed = any(word in name for word in ("bias", "norm"))
            group = (name.startswith("visual_encoder."), name.startswith(("head", "visual_encoder.grid")), fixed)
            groups.setdefault(group, []).append(parameter)
    return [{"params": members, "decay": 0.0 if fixed else decay} for (*_, fixed), members in groups.items()]
