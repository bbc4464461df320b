"""A moving average of the trained weights, by torch-ema, with the names that a file needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from torch_ema import ExponentialMovingAverage

from clipbert_cli.errors import WeightsError
from clipbert_cli.files import atomic_path
from clipbert_cli.model.weights.weight_files import check_finite, read_safetensors


class WeightAverage:
    """The moving average of a model's trained parameters; frozen ones are their own average.

    Early on the decay is min(decay, (1 + n)/(10 + n)) at update n, so that the start is forgotten (torch-ema's rule).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._names, parameters = zip(*trained(model).items(), strict=True)
        self._parameters = parameters
        self._average = ExponentialMovingAverage(parameters, decay=decay)

    @torch.no_grad()
    def update(self) -> None:
        """Take the model's present weights into the average."""
        average = self._average
        average.num_updates += 1
        decay = min(average.decay, (1 + average.num_updates) / (10 + average.num_updates))
        # torch-ema's own update starts three kernels for each parameter, which take longer than the arithmetic.
        torch._foreach_lerp_(list(average.shadow_params), list(self._parameters), 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the model the averaged weights within a block."""
        with self._average.average_parameters(self._parameters):
            yield
        self._average.collected_params = None  # torch-ema would keep the copy

    def save(self, path: Path) -> None:
        """Write the averaged weights by name."""
        state = zip(self._names, self._average.shadow_params, strict=True)
        with atomic_path(path) as temporary:
            save_file({name: value.cpu().contiguous() for name, value in state}, temporary, metadata={"format": "pt"})

    def state_dict(self) -> dict[str, Any]:
        """Return the counters; the weights are in the file that `save` writes."""
        return {"decay": self._average.decay, "num_updates": self._average.num_updates}

    def load(self, path: Path, state: dict[str, Any]) -> None:
        """Go on from what `save` and `state_dict` gave.

        Raises:
            WeightsError: the file is not of this model.
        """
        take_average(dict(zip(self._names, self._average.shadow_params, strict=True)), path)
        self._average.num_updates = state["num_updates"]


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that training changes, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


@torch.no_grad()
def take_average(weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Put the averaged weights in a file into those of a model, by name.

    Raises:
        WeightsError: the file is missing, damaged or of another model, or has values that are no numbers.
    """
    average = read_safetensors(path)
    check_finite(average, path)
    for name, value in average.items():
        if name not in weights or weights[name].shape != value.shape:
            raise WeightsError(f"{path}: {name} {tuple(value.shape)} is no trained parameter of this model")
        weights[name].copy_(value)
