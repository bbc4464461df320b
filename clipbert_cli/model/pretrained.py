"""A saved model: `config.json`, which describes it, beside `model.safetensors`.

`config.json` is `{"format": "clipbert", "format_version": 1, "model": {...}, "head": {...}, "vision": {...}}`: the
recipe's `model` section without the places of weights, the fields of `HeadSpec`, and the values of `VisionModel` if the
visual encoder is one of Hugging Face's, else null.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import save_file

from clipbert_cli.errors import OutputError, UnreadableError, WeightsError
from clipbert_cli.files import OUT_OF_SPACE, atomic_file, atomic_path
from clipbert_cli.foreign import read_json
from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.model.heads import HeadSpec
from clipbert_cli.model.hf_encoder import HuggingFaceEncoder
from clipbert_cli.model.hf_files import VisionModel
from clipbert_cli.model.weights.load import load_weights
from clipbert_cli.model.weights.weight_files import CONFIG_FILE, DOWNLOAD_AGAIN, WEIGHTS_FILE
from clipbert_cli.recipe.schema import ModelConfig

FORMAT, FORMAT_VERSION = "clipbert", 1


class Description(NamedTuple):
    """What a saved model's `config.json` describes; `vision` is None if the visual encoder is a ResNet."""

    config: ModelConfig
    head: HeadSpec
    vision: VisionModel | None


def save_pretrained(model: ClipBert, folder: str | Path) -> None:
    """Write `config.json` and `model.safetensors` into `folder`, which is created if needed.

    Raises:
        OSError: there is no space left.
        OutputError: the folder cannot be written for another reason.
    """
    folder = Path(folder)
    encoder = model.visual_encoder
    description = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": model.config.model_dump(mode="json", exclude={"weights": True, "visual": {"weights"}}),
        "head": dataclasses.asdict(model.head_spec),
        "vision": encoder.vision.values() if isinstance(encoder, HuggingFaceEncoder) else None,
    }
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(folder / CONFIG_FILE) as stream:
            stream.write(json.dumps(description, indent=2) + "\n")
        with atomic_path(folder / WEIGHTS_FILE) as unfinished:
            save_file(state, unfinished, metadata={"format": "pt"})
    except (OSError, SafetensorError) as error:
        if isinstance(error, OSError) and error.errno in OUT_OF_SPACE:
            raise
        raise OutputError(f"{folder}: the model cannot be written here: {error}") from error


def from_pretrained(folder: str | Path) -> ClipBert:
    """Return the model that `save_pretrained` wrote, in evaluation mode on the CPU.

    Raises:
        WeightsError: no such folder, or its files are not this project's or do not fit each other.
    """
    folder = Path(folder)
    model = ClipBert(*read_description(folder))
    load_weights(model, folder, parts="all", allow_new_head=False)
    return model.eval()


def read_description(folder: Path) -> Description:
    """Read the `config.json` that `save_pretrained` wrote into a folder.

    Raises:
        WeightsError: the file is missing, is not this project's, or has another version of the format.
    """
    path = folder / CONFIG_FILE
    try:
        description = read_json(path)
    except FileNotFoundError as error:
        raise WeightsError(
            f"{path}: not found; a model folder holds {CONFIG_FILE} and {WEIGHTS_FILE}",
            hint="name the folder that save_pretrained or a run's checkpoint wrote",
        ) from error
    except UnreadableError as error:
        raise WeightsError(str(error), hint=DOWNLOAD_AGAIN) from error
    found = description.get("format") if isinstance(description, dict) else None
    if found != FORMAT:
        raise WeightsError(f"{path}: format is {found!r}, expected {FORMAT!r}: this is not a model of this project")
    if description.get("format_version") != FORMAT_VERSION:
        raise WeightsError(
            f"{path}: format_version is {description.get('format_version')!r}, this release reads {FORMAT_VERSION}",
            hint="install the release of clipbert that wrote it",
        )
    try:
        config, head = ModelConfig.model_validate(description["model"]), HeadSpec(**description["head"])
        vision = None if config.visual.kind == "resnet" else VisionModel.from_values(description["vision"])
        return Description(config, head, vision)
    except (KeyError, TypeError, ValidationError, ValueError) as error:
        raise WeightsError(f"{path}: does not describe a model: {error}") from error
