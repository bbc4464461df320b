"""A moving average of the trained weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from clipbert_cli.errors import WeightsError
from clipbert_cli.files import atomic_path
from clipbert_cli.model.weights.weight_files import check_finite, read_safetensors


class WeightAverage:
    """The moving average of a model's trained parameters; frozen ones are their own average.

    Early on the decay is min(decay, (1 + n)/(10 + n)) at update n, so that the start is forgotten (TensorFlow's rule,
    which torch-ema has as well).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._trained = trained(model)
        self._average = {name: parameter.detach().clone() for name, parameter in self._trained.items()}
        self._decay, self._updates = decay, 0

    @torch.no_grad()
    def update(self) -> None:
        """Take the model's present weights into the average."""
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        torch._foreach_lerp_([*self._average.values()], [*self._trained.values()], 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the model the averaged weights within a block."""
        present = [parameter.detach().clone() for parameter in self._trained.values()]
        self._replace([*self._average.values()])
        try:
            yield
        finally:
            self._replace(present)

    @torch.no_grad()
    def _replace(self, weights: list[Tensor]) -> None:
        torch._foreach_copy_([*self._trained.values()], weights)

    def save(self, path: Path) -> None:
        """Write the averaged weights by name."""
        state = {name: value.cpu().contiguous() for name, value in self._average.items()}
        with atomic_path(path) as temporary:
            save_file(state, temporary, metadata={"format": "pt"})

    def state_dict(self) -> dict[str, Any]:
        """Return the counter; the weights are in the file that `save` writes."""
        return {"num_updates": self._updates}

    def load(self, path: Path, state: dict[str, Any]) -> None:
        """Go on from what `save` and `state_dict` gave.

        Raises:
            WeightsError: the file is not of this model.
        """
        take_average(self._average, path)
        self._updates = state["num_updates"]


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that training changes, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


@torch.no_grad()
def take_average(weights: Mapping[str, Tensor], path: Path) -> None:
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
