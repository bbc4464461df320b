"""The parts of a model that are not trained: `train.freeze` by name."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from clipbert_cli.errors import RecipeError

if TYPE_CHECKING:
    from torch import nn

Parts = Mapping[str, Sequence["nn.Module"]]
"""Name of each part that can be frozen -> its modules. Numbered parts, such as layers, are named `transformer.0`,
`transformer.1` and so on; a range such as `transformer.0-5` selects several of them."""


PART = re.compile(r"head|(visual|transformer)(\.(\d+(-\d+)?|embeddings|stem|grid|backbone|norm|projection))?")
"""A part that some model has, or a range of numbered parts."""


def freeze(model: nn.Module, parts: Parts, names: Sequence[str]) -> None:
    """Exclude the named parts of `model` from training by clearing `requires_grad` of their parameters.

    A parameter that two parts share (the word embeddings, which the masked-word head reads too) is frozen as soon as
    one of the two is.

    Args:
        names: names or ranges of `parts`, such as `visual.stem`, `visual.0-1` or `transformer.embeddings`.

    Raises:
        RecipeError: a name or an end of a range is no part of the model, or no parameter is left to train.
    """
    for name in names:
        for part in expanded(name, parts):
            for module in parts[part]:
                module.requires_grad_(False)
    if names and not any(parameter.requires_grad for parameter in model.parameters()):
        raise RecipeError(
            f"train.freeze is [{', '.join(names)}]: every parameter is frozen, so there is nothing to train",
            hint="leave out the parts that should learn",
        )


def expanded(name: str, parts: Collection[str]) -> list[str]:
    """Return the parts that `name`, a part or a range of numbered parts, stands for.

    Raises:
        RecipeError: they are not among `parts`.
    """
    found = [name]
    if match := re.fullmatch(r"(.+\.)(\d+)-(\d+)", name):
        prefix, first, last = match[1], int(match[2]), int(match[3])
        # Only the two ends are built as names: `transformer.0-999999999` must not fill the memory.
        ends = [f"{prefix}{first}", f"{prefix}{last}"]
        found = ends if not set(ends) <= set(parts) else [f"{prefix}{each}" for each in range(first, last + 1)]
    if not found or not set(found) <= set(parts):
        raise RecipeError(
            f"train.freeze has {name!r}, which is no part of this model", hint=f"its parts are {_listed(parts)}"
        )
    return found


def _listed(parts: Collection[str]) -> str:
    """Return the names of all parts, numbered ones as the largest range: `transformer.0-11`."""
    last = {name.rpartition(".")[0]: name.rpartition(".")[2] for name in parts if name.rpartition(".")[2].isdigit()}
    names = []
    for name in parts:
        prefix, _, leaf = name.rpartition(".")
        if leaf.isdigit() and last[prefix] != "0":
            name = f"{prefix}.0-{last[prefix]}"
        names.append(name)
    return ", ".join(dict.fromkeys(names))
