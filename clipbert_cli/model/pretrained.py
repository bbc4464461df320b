"""The description of a saved model: `config.json` beside `model.safetensors`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from clipbert_cli.errors import WeightsError
from clipbert_cli.model.heads import HeadSpec
from clipbert_cli.model.weights.weight_files import CONFIG_FILE, WEIGHTS_FILE
from clipbert_cli.recipe.schema import ModelConfig

FORMAT_VERSION = 1


def read_config(path: Path) -> tuple[ModelConfig, HeadSpec]:
    """What `save_pretrained` wrote into `config.json`.

    Raises:
        WeightsError: the file is missing, or not of this project, or of a later format.
    """
    try:
        description: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise WeightsError(
            f"{path}: not found; a model folder holds {CONFIG_FILE} and {WEIGHTS_FILE}",
            hint="name the folder that save_pretrained or a run's checkpoint wrote",
        ) from error
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read as JSON: {error}") from error
    found = description.get("format") if isinstance(description, dict) else None
    if found != "clipbert":
        raise WeightsError(f"{path}: format is {found!r}, expected 'clipbert': this is not a model of this project")
    if description.get("format_version") != FORMAT_VERSION:
        raise WeightsError(
            f"{path}: format_version is {description.get('format_version')!r}, this release reads {FORMAT_VERSION}",
            hint="install the release of clipbert that wrote it",
        )
    try:
        return ModelConfig.model_validate(description["model"]), HeadSpec(**description["head"])
    except (KeyError, TypeError, ValidationError, ValueError) as error:
        raise WeightsError(f"{path}: does not describe a model: {error}") from error
