"""The start of a model: the files that decide its sizes, and the weights that are loaded into it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipbert_cli.errors import RecipeError
from clipbert_cli.model.bert_sizes import FROM_FILE, filled, read_bert_sizes
from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.model.description import is_saved_model, read_description
from clipbert_cli.model.hf_encoder import HuggingFaceEncoder
from clipbert_cli.model.hf_files import VisionModel, read_vision_model
from clipbert_cli.model.weights.load import LoadReport, Part, load_weights
from clipbert_cli.model.weights.vision import load_vision_model
from clipbert_cli.model.weights.weight_files import CONFIG_FILE
from clipbert_cli.recipe.schema import ModelConfig

StartingFiles = Mapping[Part, Path]
"""The local files or folders that a recipe names, by what they start; other parts start from random weights."""


def plan_model(
    config: ModelConfig, files: StartingFiles, *, vocabulary: int, resumed: Path | None = None
) -> tuple[ModelConfig, VisionModel | None]:
    """Return the recipe's section with the sizes that its files state, and the vision model of an encoder of kind `hf`.

    Args:
        vocabulary: number of the tokenizer's entries, for a model whose files do not state theirs.
        resumed: the checkpoint that a run continues from, which describes the model completely.

    Raises:
        RecipeError: a size in the recipe is not that of the files, or no file describes the vision model.
        WeightsError: a file is missing, damaged, or describes another kind of model.
    """
    whole = files.get("all")
    saved_in = resumed or (whole if whole and is_saved_model(whole) else None)
    saved = read_description(saved_in) if saved_in else None
    found: Mapping[str, Any] = {}
    if saved:
        found = {name: getattr(saved.config.bert, name) for name in FROM_FILE}
    elif "bert" in files:
        found = read_bert_sizes(files["bert"])
    bert = filled(config.bert, found, source=(saved_in or files.get("bert", Path())) / CONFIG_FILE)
    if bert.vocab_size is None:
        bert = bert.model_copy(update={"vocab_size": vocabulary})
    vision = None
    if config.visual.kind == "hf":
        vision = saved.vision if saved else read_vision_model(files["visual"]) if "visual" in files else None
        if vision is None:
            raise RecipeError(
                "model.visual.weights is null: with kind hf it names the folder of the model",
                hint="set model.visual.weights, or model.weights.checkpoint to a checkpoint with such an encoder",
            )
    return config.model_copy(update={"bert": bert}), vision


def load_start(model: ClipBert, files: StartingFiles) -> list[LoadReport]:
    """Load the weights into the model, and report every entry.

    Raises:
        WeightsError: weights are missing, damaged, or do not fit.
    """
    encoder = model.visual_encoder
    return [
        load_vision_model(encoder, source)
        if parts == "visual" and isinstance(encoder, HuggingFaceEncoder)
        else load_weights(model, source, parts=parts)
        for parts, source in files.items()
    ]
