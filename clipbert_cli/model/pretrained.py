"""A saved model: `config.json` (`description.py`) beside `model.safetensors`. A new model that starts from weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from clipbert_cli.errors import OutputError, RecipeError, WeightsError
from clipbert_cli.files import atomic_file, atomic_path
from clipbert_cli.model.bert_sizes import FROM_FILE, filled, read_bert_sizes
from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.model.description import Description, is_saved_model, read_description
from clipbert_cli.model.heads import HeadSpec
from clipbert_cli.model.hf_encoder import HuggingFaceEncoder
from clipbert_cli.model.hf_files import VisionModel, read_vision_model
from clipbert_cli.model.weights.formats import ORIGINAL
from clipbert_cli.model.weights.transfer import LoadReport, Part, expect_format, load_weights
from clipbert_cli.model.weights.vision import load_vision_model
from clipbert_cli.model.weights.weight_files import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    WeightFile,
    as_tensors,
    read_torch,
)
from clipbert_cli.recipe.schema import ModelConfig


def save_pretrained(model: ClipBert, folder: str | Path) -> None:
    """Write `config.json` and `model.safetensors` into `folder`, which is created if needed.

    Raises:
        OSError: the folder cannot be written; it names a path.
        OutputError: the weights cannot be written for another reason.
    """
    folder = Path(folder)
    encoder = model.visual_encoder
    vision = encoder.vision if isinstance(encoder, HuggingFaceEncoder) else None
    description = Description(model=model.config, head=model.head_spec, vision=vision, vocabulary=model.vocabulary)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(folder / CONFIG_FILE) as stream:
            stream.write(description.to_json())
        with atomic_path(folder / WEIGHTS_FILE) as unfinished:
            save_file(state, unfinished, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OutputError(f"{folder}: the model cannot be written here: {error}") from error


def from_pretrained(folder: str | Path) -> ClipBert:
    """Return the model that `save_pretrained` wrote, in evaluation mode on the CPU.

    Raises:
        WeightsError: no such folder, or its files are not this project's or do not fit each other.
    """
    folder = Path(folder)
    saved = read_description(folder)
    model = ClipBert(saved.model, saved.head, saved.vision, saved.vocabulary)
    load_weights(model, folder, parts="all", allow_new_head=False)
    return model.eval()


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
        found = {name: getattr(saved.model.bert, name) for name in FROM_FILE}
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


def check_original(path: Path) -> None:
    """Compare the entries of a torch file with the published model, by name and shape; its name may end in anything.

    Raises:
        WeightsError: the file cannot be read, or it is another model, or has other values than numbers.
    """
    file = WeightFile(path, as_tensors(path, read_torch(path)))
    if (form := expect_format(file, "all")) is not ORIGINAL:
        raise WeightsError(f"{path}: this is a {form.name}")
    # The names and shapes alone are needed: on the meta device, the model has no memory.
    with torch.device("meta"):
        model = ClipBert(ModelConfig(), HeadSpec("pretraining", 2))
    load_weights(model, file, allow_new_head=False)
