"""The sizes of the transformer: BERT-base's, or those of the weights that a recipe starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from clipbert_cli.errors import RecipeError, WeightsError
from clipbert_cli.model.weights.weight_files import CONFIG_FILE, check_values, read_object, wrong_file
from clipbert_cli.recipe.schema import BertConfigSection, check_heads

FROM_FILE: dict[str, Any] = {
    name: get_args(BertConfigSection.model_fields[name].annotation)[0]
    for name in (
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "max_position_embeddings",
        "hidden_act",
        "layer_norm_eps",
    )
}
"""Settings that belong to weights -> their type, without null; their names are those of a `config.json` too."""


@dataclass(frozen=True)
class BertSizes:
    """Everything that decides the shapes and the arithmetic of the transformer; the defaults are BERT-base's."""

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1

    @classmethod
    def of(cls, section: BertConfigSection) -> BertSizes:
        """Return the sizes of a recipe; what it leaves open is BERT-base's."""
        return cls(**{name: value for name, value in section.model_dump().items() if value is not None})


def read_bert_sizes(source: Path) -> dict[str, Any]:
    """Return the sizes that the `config.json` of a BERT's folder states, by their names in a recipe.

    A file of weights alone, or a folder without `config.json`, states none.

    Raises:
        WeightsError: the file is damaged, or describes a model that is no BERT.
    """
    path = source / CONFIG_FILE
    # A single file of weights has nothing below it.
    values = read_object(path) if source.is_dir() else None
    if values is None:
        return {}
    if (kind := values.get("model_type")) != "bert":
        raise WeightsError(f"{path}: model_type is {kind!r}, expected 'bert'", hint="name the folder of a BERT")
    if (positions := values.get("position_embedding_type", "absolute")) != "absolute":
        raise WeightsError(f"{path}: position_embedding_type is {positions!r}, expected 'absolute'")
    found = {name: values[name] for name in FROM_FILE if name in values}
    try:
        check_values(found, FROM_FILE)
        check_heads(found)
    except ValueError as error:
        raise wrong_file(path, error) from error
    return found


def filled(section: BertConfigSection, found: Mapping[str, Any], *, source: Path) -> BertConfigSection:
    """Return the recipe's settings, with those that it leaves open taken from its weights.

    Raises:
        RecipeError: a setting has another value in the weights.
    """
    wrong = [
        f"model.bert.{name} is {own}, but {source} has {found[name]}"
        for name, own in section
        if name in found and own is not None and own != found[name]
    ]
    if wrong:
        raise RecipeError("\n".join(wrong), hint="leave the setting out: it is taken from the weights")
    return section.model_copy(update=found)
