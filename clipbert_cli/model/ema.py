"""A moving average of the trained weights, by torch-ema, with the names that a file needs."""

from __future__ import annotations

from collections.abc import Iterator
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
        loaded = read_average(path)
        shapes = {name: value.shape for name, value in zip(self._names, self._average.shadow_params, strict=True)}
        if {name: value.shape for name, value in loaded.items()} != shapes:
            raise WeightsError(f"{path}: not the averaged weights of this model: names or shapes differ")
        with torch.no_grad():
            for name, value in zip(self._names, self._average.shadow_params, strict=True):
                value.copy_(loaded[name])
        self._average.num_updates = state["num_updates"]


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that training changes, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def read_average(path: Path) -> dict[str, torch.Tensor]:
    """Return averaged weights by name.

    Raises:
        WeightsError: no such file, it is damaged, or it has values that are no numbers.
    """
    weights = read_safetensors(path)
    check_finite(weights, path)
    return weights


@torch.no_grad()
def take_average(model: nn.Module, path: Path) -> None:
    """Put averaged weights into a model.

    Raises:
        WeightsError: the file is missing, damaged or of another model.
    """
    parameters = dict(model.named_parameters())
    for name, value in read_average(path).items():
        if name not in parameters or parameters[name].shape != value.shape:
            raise WeightsError(f"{path}: {name} {tuple(value.shape)} is no parameter of this model")
        parameters[name].copy_(value)
