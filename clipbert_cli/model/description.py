"""`config.json` of a saved model: what it is, what its outputs mean, and which vocabulary its texts were read with.

    {"format": "clipbert", "format_version": 1, "model": {...}, "head": {...}, "vision": {...}, "vocabulary": "..."}

`model` is the recipe's `model` section without the places of weights, `head` the fields of `HeadSpec`, `vision` those
of `VisionModel` if the visual encoder is one of Hugging Face's, else null, and `vocabulary` the digest of the
tokenizer's vocabulary, null if it is not known.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from clipbert_cli.errors import WeightsError
from clipbert_cli.model.heads import HeadSpec
from clipbert_cli.model.hf_files import VisionModel
from clipbert_cli.model.weights.weight_files import CONFIG_FILE, WEIGHTS_FILE, read_object
from clipbert_cli.recipe.schema import ModelConfig

FORMAT, FORMAT_VERSION = "clipbert", 1


class Description(BaseModel):
    """The content of `config.json`; `vision` is None if the visual encoder is a ResNet."""

    format: Literal["clipbert"] = "clipbert"
    format_version: int = FORMAT_VERSION
    model: ModelConfig
    head: HeadSpec
    vision: VisionModel | None
    vocabulary: str | None = None

    def to_json(self) -> str:
        """Return the content of `config.json`, without the places of weights."""
        places: Any = {"model": {"weights": True, "visual": {"weights": True}}, "vision": {"source": True}}
        return self.model_dump_json(indent=2, exclude=places) + "\n"


def read_description(folder: Path) -> Description:
    """Read the `config.json` of a folder.

    Raises:
        WeightsError: the file is missing, is not this project's, or has another version of the format.
    """
    path = folder / CONFIG_FILE
    values = read_object(path)
    if values is None:
        raise WeightsError(
            f"{path}: not found; a model folder holds {CONFIG_FILE} and {WEIGHTS_FILE}",
            hint="name the folder that save_pretrained or a run's checkpoint wrote",
        )
    if (found := values.get("format")) != FORMAT:
        raise WeightsError(f"{path}: format is {found!r}, expected {FORMAT!r}: this is not a model of this project")
    if values.get("format_version") != FORMAT_VERSION:
        raise WeightsError(
            f"{path}: format_version is {values.get('format_version')!r}, this release reads {FORMAT_VERSION}",
            hint="install the release of clipbert that wrote it",
        )
    if isinstance(values.get("vision"), dict):
        values["vision"]["source"] = path
    try:
        described = Description.model_validate(values)
    except ValidationError as error:
        raise WeightsError(f"{path}: does not describe a model: {error}") from error
    if (described.model.visual.kind == "hf") != (described.vision is not None):
        raise WeightsError(f"{path}: does not describe a model: vision must be given for the visual encoder of kind hf")
    return described


def is_saved_model(folder: Path) -> bool:
    """Return whether `save_pretrained` wrote the folder; weights of others are files, or lie in folders too.

    Raises:
        WeightsError: its `config.json` is damaged.
    """
    return folder.is_dir() and (read_object(folder / CONFIG_FILE) or {}).get("format") == FORMAT


def description_beside(weights: Path) -> Description | None:
    """Return the description beside a file of weights; None if there is none of this project's.

    Raises:
        WeightsError: it is damaged.
    """
    return read_description(weights.parent) if is_saved_model(weights.parent) else None
