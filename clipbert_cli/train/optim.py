"""Parameter groups, the optimiser, and the learning rate of each group at each step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from clipbert_cli.recipe.schema import TrainConfig

# The parts of the model that have their own learning rate, and its name in log records.
RATE_NAMES = {"transformer": "learning_rate", "visual": "visual_learning_rate"}

# Parameters whose name contains one of these have no weight decay, as in BERT and in the original, nor have vectors.
NO_DECAY = ("bias", "norm.weight")

# The same for a visual encoder: the embeddings that ViTs are fine-tuned without weight decay of.
VISUAL_NO_DECAY = ("position_embedding", "cls_token", "class_embedding", "register_tokens", "mask_token")

# AdamW's decay rates of the averages of gradients and of squared gradients, as in the original.
BETAS = (0.9, 0.98)

# The learning rate where a schedule gives 0, as in the original. It is a rate, not a share of the peak rate.
LOWEST_RATE = 1e-8

Group = dict[str, Any]


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[Group]:
    """Return the trainable parameters in groups by part, by depth, and by weight decay.

    A group's name is `part/decay` or `part/no_decay`, with `/depth N` where `layer_decay` applies. It keeps its `part`,
    its `decay`, and the `multiplier` of the part's learning rate. Empty groups are left out; a tied parameter is in one
    group, once.
    """
    depths = depths_below_top(model, config.layer_decay)
    members: dict[tuple[str, int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            kind = part_of(name), depths.get(id(parameter), 0), decays(name, parameter)
            members.setdefault(kind, []).append(parameter)
    return [
        {
            "name": f"{part}/{'decay' if decay else 'no_decay'}{f'/depth {depth}' if depth else ''}",
            "params": members[part, depth, decay],
            "part": part,
            "multiplier": (config.layer_decay or 1.0) ** depth,
            "decay": config.weight_decay if decay else 0.0,
            "lr": 0.0,  # set by `set_rates` before every step
        }
        for part, depth, decay in sorted(members, key=lambda kind: (kind[0], -kind[1], not kind[2]))
    ]


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Return whether a parameter has weight decay."""
    without = NO_DECAY if part_of(name) == "transformer" else (*NO_DECAY, *VISUAL_NO_DECAY)
    return parameter.ndim > 1 and not any(word in name for word in without)


def depths_below_top(model: nn.Module, layer_decay: float | None) -> dict[int, int]:
    """Return how many layers below the top each parameter of the visual encoder's stem and blocks is, by its id.

    The last block is 1 below the top, the stem as many as there are blocks and 1 more; what follows the blocks is the
    top (BEiT, Bao et al. 2021, `get_num_layer_for_vit` in its published code). Without `layer_decay` all are the top.
    """
    if layer_decay is None:
        return {}
    parts = model.visual_encoder.parts()  # type: ignore[union-attr, operator]
    blocks = sum(name.isdigit() for name in parts)
    below = {"stem": blocks + 1, **{str(number): blocks - number for number in range(blocks)}}
    return {
        id(parameter): depth
        for name, depth in below.items()
        for module in parts[name]
        for parameter in module.parameters()
    }


def describe_groups(groups: Sequence[Group], config: TrainConfig) -> list[str]:
    """Return one line per part: how much is trained, with which weight decay and learning rate."""
    lines = []
    for part, peak in peak_rates(config).items():
        own = [group for group in groups if group["part"] == part]
        if not own:
            continue
        total, plain = (
            sum(parameter.numel() for group in own if select(group) for parameter in group["params"])
            for select in (lambda group: True, lambda group: not group["decay"])
        )
        factors = sorted({group["multiplier"] for group in own})
        decay = max(group["decay"] for group in own)
        times = f" times {factors[0]:.3g} to {factors[-1]:.3g}" if factors != [1.0] else ""
        lines.append(
            f"{part}: {total:,} parameters, {plain:,} without weight decay {decay:g}, learning rate {peak:g}{times}"
        )
    return lines


def part_of(name: str) -> str:
    """Return the part of the model that a parameter belongs to, by its name."""
    return "visual" if name.startswith("visual_encoder.") else "transformer"


class AdamW(torch.optim.AdamW):
    """PyTorch's Adam with the two details of BERT's optimiser that differ from it.

        m = b1 m + (1-b1) g
        v = b2 v + (1-b2) g^2
        p -= lr * sqrt(1-b2^t) / (1-b1^t) * m / (sqrt(v) + eps)
        p -= lr * decay * p

    Epsilon is added to the uncorrected root of the second moment. That is PyTorch's rule with eps / sqrt(1-b2^t) at
    step t; at t = 1 and b2 = 0.98 the two differ by a factor of 7. And the decay acts on the updated parameter.
    The original has the same rule in `src/optimization/adamw.py`.

    Args:
        groups: each with `params`, `lr` and `decay`, see `parameter_groups`.
    """

    def __init__(self, groups: Iterable[Group], *, eps: float) -> None:
        groups = list(groups)
        super().__init__(groups, betas=BETAS, eps=eps, weight_decay=0.0, fused=_fused(groups))
        # The fused kernel would count a step that GradScaler skips; without this flag the scaler skips the call.
        self._step_supports_amp_scaling = False
        self.uncorrected_eps = eps
        self.steps = 0

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Do one update with the learning rates of the groups."""
        self.steps += 1
        for group in self.param_groups:
            group["eps"] = self.uncorrected_eps / (1 - group["betas"][1] ** self.steps) ** 0.5
        result = super().step(closure)
        for group in self.param_groups:
            if group["decay"]:
                updated = [parameter for parameter in group["params"] if parameter.grad is not None]
                torch._foreach_mul_(updated, 1 - group["lr"] * group["decay"])
        return result

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a `state_dict`, including the number of steps."""
        # These say how the device computes, and torch would take them from the saved state. A run that began on a CPU
        # may continue on a GPU.
        own = ({flag: group[flag] for flag in ("fused", "foreach", "capturable")} for group in self.param_groups)
        groups = [{**saved, **flags} for saved, flags in zip(state_dict["param_groups"], own, strict=True)]
        super().load_state_dict({**state_dict, "param_groups": groups})
        self.steps = max((int(state["step"]) for state in self.state.values()), default=0)


def _fused(groups: Sequence[Group]) -> bool | None:
    """Return True if the device updates all parameters in one pass, else None, which is PyTorch's default."""
    devices = {parameter.device.type for group in groups for parameter in group["params"]}
    # On a CPU, memory limits the speed: the fused kernel takes a third of the time of one pass per operation.
    return devices in ({"cuda"}, {"cpu"}) or None


def build_optimizer(model: nn.Module, config: TrainConfig) -> AdamW:
    """Return the optimiser of all trained parameters; each is in exactly one of its groups."""
    return AdamW(parameter_groups(model, config), eps=config.eps)


def _linear(step: int, total: int, warmup: int) -> float:
    if step < warmup:
        return step / warmup
    return max(0.0, (total - step) / (total - warmup)) if total > warmup else 0.0


# Share of the peak rate at update s of n, after w updates of warm-up, by the schedule's name.
#
# linear      s/w before w, then (n-s)/(n-w)
# constant    1
#
# The formulas, and which of them include step w, are those of the original (`src/optimization/sched.py`).
SCHEDULES: dict[str, Callable[[int, int, int], float]] = {
    "linear": _linear,
    "constant": lambda step, total, warmup: 1.0,
}


def peak_rates(config: TrainConfig) -> dict[str, float]:
    """Return the peak learning rate of each part."""
    return {"transformer": config.learning_rate, "visual": config.visual_learning_rate or config.learning_rate}


def learning_rates(config: TrainConfig, step: int, *, total: int) -> dict[str, float]:
    """Return the learning rate of each part at update `step` of `total`, counted from 1, before multipliers."""
    share = SCHEDULES[config.schedule](step, total, int(config.warmup_ratio * total))
    return {part: share * peak or LOWEST_RATE for part, peak in peak_rates(config).items()}


def set_rates(optimizer: Optimizer, by_part: Mapping[str, float]) -> None:
    """Set the rate of every group to its part's rate times its multiplier."""
    for group in optimizer.param_groups:
        group["lr"] = by_part[group["part"]] * group["multiplier"]
