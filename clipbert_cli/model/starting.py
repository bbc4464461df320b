"""The start of a model: the files that decide its sizes, and the weights that are loaded into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True)
class StartingFiles:
    """Local files or folders that a recipe names; None starts that part from random weights."""

    checkpoint: Path | None = None
    bert: Path | None = None
    visual: Path | None = None


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
    saved_in = resumed or (files.checkpoint if files.checkpoint and is_saved_model(files.checkpoint) else None)
    saved = read_description(saved_in) if saved_in else None
    found: Mapping[str, Any] = {}
    if saved:
        found = {name: getattr(saved.config.bert, name) for name in FROM_FILE}
    elif files.bert:
        found = read_bert_sizes(files.bert)
    bert = filled(config.bert, found, source=(saved_in or files.bert or Path()) / CONFIG_FILE)
    if bert.vocab_size is None:
        bert = bert.model_copy(update={"vocab_size": vocabulary})
    vision = None
    if config.visual.kind == "hf":
        vision = saved.vision if saved else read_vision_model(files.visual) if files.visual else None
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
    reports = []
    sources: dict[Part, Path | None] = {"all": files.checkpoint, "bert": files.bert, "visual": files.visual}
    for parts, source in sources.items():
        encoder = model.visual_encoder
        if source and parts == "visual" and isinstance(encoder, HuggingFaceEncoder):
            reports.append(load_vision_model(encoder, source))
        elif source:
            reports.append(load_weights(model, source, parts=parts))
    return reports
