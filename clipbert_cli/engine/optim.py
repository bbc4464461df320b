"""Parameter groups, the optimiser and the learning-rate schedule."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from clipbert_cli.recipe.schema import TrainConfig

NO_DECAY = ("bias", "LayerNorm.bias", "LayerNorm.weight")  # parts of names whose weights are not decayed
LOWEST_RATE = 1e-8  # what the published schedule gives where its formula reaches zero


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Trainable parameters in four named groups: transformer and CNN, each with and without weight decay.

    Each group keeps its peak rate as `peak_lr`. Empty groups are left out.
    """
    rates = {"transformer": config.learning_rate, "cnn": config.cnn_learning_rate or config.learning_rate}
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = "cnn" if name.startswith("cnn.") else "transformer"
            groups.setdefault((part, not any(word in name for word in NO_DECAY)), []).append(parameter)
    return [
        {
            "name": f"{part}/{'decay' if decayed else 'no_decay'}",
            "params": groups[part, decayed],
            "decay": config.weight_decay if decayed else 0.0,
            "lr": rates[part],
            "peak_lr": rates[part],
        }
        for part in ("transformer", "cnn")
        for decayed in (True, False)
        if (part, decayed) in groups
    ]


class AdamW(torch.optim.AdamW):
    """PyTorch's Adam with the two details of BERT's optimiser that differ from it.

    m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2;  p -= lr * sqrt(1-b2^t)/(1-b1^t) * m/(sqrt(v) + eps);  p -= lr*decay*p

    Epsilon is added to the uncorrected root of the second moment, which is PyTorch's rule with eps / sqrt(1-b2^t) at
    step t (at t = 1 and b2 = 0.98 the two differ by a factor of 7); and the decay acts on the updated parameter.

    Args:
        groups: each with `params`, `lr`, `decay`, `name` and `peak_lr`, see `parameter_groups`.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], *, betas: tuple[float, float], eps: float) -> None:
        groups = list(groups)
        devices = {parameter.device.type for group in groups for parameter in group["params"]}
        super().__init__(groups, betas=betas, eps=eps, weight_decay=0.0, fused=devices == {"cuda"} or None)
        # The fused kernel would count a step that GradScaler skips; without this flag the scaler skips the call.
        self._step_supports_amp_scaling = False
        self.uncorrected_eps = eps
        self.steps = 0

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update; learning rates are those that `set_rates` left in the groups."""
        self.steps += 1
        for group in self.param_groups:
            group["eps"] = self.uncorrected_eps / (1 - group["betas"][1] ** self.steps) ** 0.5
        result = super().step(closure)
        for group in self.param_groups:
            if group["decay"]:
                updated = [parameter for parameter in group["params"] if parameter.grad is not None]
                torch._foreach_mul_(updated, 1 - group["lr"] * group["decay"])
        return result


def rate_factor(step: int, *, total: int, warmup_ratio: float, schedule: str) -> float:
    """Share of the peak rate at update `step`, counted from 1.

    With w = int(warmup_ratio * total): rises as step/w before w; then `linear` falls to 0 at `total`, `constant`
    stays 1 and never warms up. Raises KeyError for another schedule.
    """
    return SCHEDULES[schedule](step, total, int(warmup_ratio * total))


def _linear(step: int, total: int, warmup: int) -> float:
    return step / warmup if step < warmup else max(0.0, (total - step) / (total - warmup)) if total > warmup else 0.0


def _constant(step: int, total: int, warmup: int) -> float:
    return 1.0


SCHEDULES: dict[str, Callable[[int, int, int], float]] = {"linear": _linear, "constant": _constant}


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> dict[str, float]:
    """Set every group's rate to `factor` of its peak, or `LOWEST_RATE` for 0; returns the rates by part."""
    rates = {}
    for group in optimizer.param_groups:
        group["lr"] = factor * group["peak_lr"] if factor > 0 else LOWEST_RATE
        rates[group["name"].split("/")[0]] = group["lr"]
    return rates
