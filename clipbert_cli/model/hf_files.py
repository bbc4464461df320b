"""A vision model of Hugging Face's transformers: its family, its configuration, and how it sees pixels.

A family has an entry in `FAMILIES` because transformers' models differ in three points: where their blocks are, how
other sizes of frames are asked for, and what they hold that no grid of features needs.

Nothing here imports transformers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from clipbert_cli.errors import WeightsError
from clipbert_cli.model.weights.weight_files import CONFIG_FILE, check_values, read_object, wrong_file
from clipbert_cli.recipe.schema import Count, Depth, NotNegative, Positive, ShareBelow1, Three, Width


@dataclass(frozen=True)
class Family:
    """One family of vision models.

    Attributes:
        blocks: path of the list of blocks or stages in the model.
        shape: of the output: `tokens` (M, ..., C) whose last h * w are the grid, after class and register tokens, or a
            feature `map` (M, C, h, w).
        pixels: how frames are passed: `plain`; `interpolated`, with a flag that fits position embeddings to other
            sizes; `patches` (SigLIP 2 NaFlex), cut into patches by us.
        pads: whether the model pads frames to whole patches; the others drop what is left over, so it is refused.
        unused: starts of the names of parameters that do not contribute to the grid; they are not trained.
        config: values of the configuration that leave out what the grid does not need, such as pooling.
        options: arguments of the model's class for the same purpose.
    """

    blocks: str
    shape: Literal["tokens", "map"] = "tokens"
    pixels: Literal["plain", "interpolated", "patches"] = "plain"
    pads: bool = False
    unused: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


NO_POOLER = {"add_pooling_layer": False}
NO_HEAD = {"vision_use_head": False}
MASK = ("embeddings.mask_token",)

FAMILIES: dict[str, Family] = {
    "siglip_vision_model": Family("encoder.layers", pixels="interpolated", config=NO_HEAD),
    "siglip2_vision_model": Family("encoder.layers", pixels="patches", config=NO_HEAD),
    "clip_vision_model": Family("encoder.layers", pixels="interpolated", unused=("post_layernorm.",)),
    "dinov2": Family("encoder.layer", unused=MASK),
    "dinov2_with_registers": Family("encoder.layer", unused=MASK),
    "dinov3_vit": Family("model.layer", unused=MASK),
    "dinov3_convnext": Family("model.stages"),
    "vit": Family("layers", pixels="interpolated", options=NO_POOLER),
    "beit": Family("layers", pixels="interpolated", unused=MASK, options=NO_POOLER),
    "swin": Family("encoder.layers", pixels="interpolated", pads=True, options=NO_POOLER),
    "swinv2": Family("encoder.layers", pixels="interpolated", pads=True, options=NO_POOLER),
    "convnext": Family("encoder.stages", shape="map", unused=("layernorm.",)),
    "convnextv2": Family("encoder.stages", shape="map", unused=("layernorm.",)),
}
"""Model type in config.json -> family."""

NotNegativeCount = Annotated[int, Field(ge=0, le=65_536)]

NUMBERS: dict[str, Any] = {
    **dict.fromkeys(
        ("hidden_size", "intermediate_size", "embed_dim", "image_size", "patch_size", "window_size"), Width
    ),
    **dict.fromkeys(("num_hidden_layers", "num_attention_heads", "num_stages"), Depth),
    **dict.fromkeys(("depths", "num_heads"), list[Depth]),
    "hidden_sizes": list[Width],
    "num_channels": Literal[3],
    "num_patches": Count,
    "num_register_tokens": NotNegativeCount,
    "pretrained_window_sizes": list[NotNegativeCount],
    "mlp_ratio": Annotated[float, Field(gt=0, le=1000)],
    **dict.fromkeys(("rope_theta", "layer_norm_eps"), Positive),
    **dict.fromkeys(("layer_scale_init_value", "layerscale_value"), NotNegative),
    **dict.fromkeys(("initializer_range", "initializer_factor"), NotNegative),
    "pos_embed_rescale": Positive | None,
    **dict.fromkeys(("attention_dropout", "attention_probs_dropout_prob", "hidden_dropout_prob"), ShareBelow1),
    "drop_path_rate": ShareBelow1,
}
"""Numbers of a configuration that decide what the model computes -> their type, in every family that has them.

transformers accepts most numbers. A wrong one would fail in the first forward pass, or fill the memory.
"""


PREPROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
"""The file of an image processor, and that of a processor for images and texts, which may hold an image processor."""

Channels = tuple[float, float, float]
"""A number for red, green and blue."""

PROCESSOR: dict[str, Any] = {
    **dict.fromkeys(("do_normalize", "do_rescale"), bool),
    "do_flip_channel_order": Literal[False],
    "rescale_factor": Positive,
    **dict.fromkeys(("image_mean", "image_std"), Annotated[list[float], Three]),
}
"""Settings of an image processor -> their type. No supported family has its channels in another order."""


@dataclass(frozen=True)
class PixelStatistics:
    """The normalisation of a model's pixels: (x / 255 - mean) / std, for each channel.

    Raises:
        ValueError: normalised pixels would be infinite.
    """

    mean: Channels
    std: Channels

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (*self.mean, *self.std))) or min(self.std) <= 0:
            raise ValueError(
                f"pixels are normalised with mean {self.mean} and deviation {self.std}: expected finite numbers, and "
                "deviations greater than 0"
            )


@dataclass(frozen=True)
class VisionModel:
    """A vision model before it is built.

    Attributes:
        config: its configuration, as transformers writes it; from a model with two towers, that of the vision tower.
        pixels: None if its folder does not say.
        source: the file of the configuration, for messages.

    Raises:
        ValueError: the family is not supported, or a number of the configuration is impossible.
    """

    config: Mapping[str, Any]
    pixels: PixelStatistics | None
    source: Path = Path(CONFIG_FILE)

    def __post_init__(self) -> None:
        if str(self.config.get("model_type")) not in FAMILIES:
            raise ValueError(f"model_type is {self.config.get('model_type')!r}, expected a supported vision model")
        check_values(self.config, NUMBERS)

    @property
    def family(self) -> Family:
        return FAMILIES[self.config["model_type"]]


def read_vision_model(folder: Path) -> VisionModel:
    """Read a model's config.json and preprocessor_config.json.

    Raises:
        WeightsError: a file is missing or is no such JSON, or the model is of no supported family.
    """
    if not folder.is_dir():
        found = "this is a file, expected the folder of a vision model" if folder.exists() else "no such folder"
        raise WeightsError(
            f"{folder}: {found}",
            hint="with kind hf, model.visual.weights names a folder, or a repository of the Hub as hf:ORG/NAME",
        )
    path = folder / CONFIG_FILE
    if (values := read_object(path)) is None:
        raise WeightsError(f"{path}: not found", hint="download the whole folder of the model")
    try:
        config = vision_part(values)
    except ValueError as error:
        raise WeightsError(f"{path}: {error}", hint=f"supported model types: {', '.join(FAMILIES)}") from error
    pixels = read_pixels(folder)
    try:
        return VisionModel(config, pixels, path)
    except ValueError as error:
        raise wrong_file(path, error) from error


def vision_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the configuration of a vision model, taken out of one with two towers if need be.

    Raises:
        ValueError: the model is of no supported family.
    """
    kind = str(config.get("model_type"))
    if kind in FAMILIES:
        return config
    if (tower := TWO_TOWERS.get(kind)) and isinstance(config.get("vision_config"), Mapping):
        return {**config["vision_config"], "model_type": tower}
    if "vocab_size" in config:
        raise ValueError(f"model_type is {kind!r}: this is a text model, expected a vision model")
    raise ValueError(f"model_type is {kind!r}, expected a supported vision model")


TWO_TOWERS = {
    "clip": "clip_vision_model",
    "siglip": "siglip_vision_model",
    "siglip2": "siglip2_vision_model",
}
"""Models of text and images that have a vision tower -> the model type of the tower."""


def vision_model_type(folder: Path) -> str | None:
    """Return the model type that a folder's config.json states; None unless it is that of a supported vision model.

    Raises:
        WeightsError: the file is damaged.
    """
    kind = str((read_object(folder / CONFIG_FILE) or {}).get("model_type"))
    return kind if kind in {*FAMILIES, *TWO_TOWERS} else None


def read_pixels(folder: Path) -> PixelStatistics | None:
    """Return the pixel statistics that a folder's preprocessor file gives, or None if there is no such file.

    Raises:
        WeightsError: the file is damaged or its statistics are not three numbers each.
    """
    for name in PREPROCESSOR_FILES:
        path = folder / name
        found = read_object(path) or {}
        values = found.get("image_processor", found)
        if isinstance(values, Mapping) and {"image_mean", "do_normalize"} & set(values):
            return pixel_statistics(path, values)
    return None


def pixel_statistics(path: Path, values: Mapping[str, Any]) -> PixelStatistics:
    """Return the statistics that the settings of an image processor amount to for pixels of 0..255.

    Raises:
        WeightsError: mean or deviation are not three numbers, or another setting has a value of another kind.
    """
    # transformers writes null for a setting that it leaves to the default of the processor's class.
    given = {name: value for name, value in values.items() if value is not None}
    try:
        check_values(given, PROCESSOR)
        # A processor multiplies pixels by a factor and then normalises them.
        white = 255 * given.get("rescale_factor", 1 / 255) if given.get("do_rescale", True) else 255
        mean, std = [0, 0, 0], [1, 1, 1]
        if given.get("do_normalize", True):
            mean, std = given["image_mean"], given["image_std"]
        return PixelStatistics(*(tuple(each / white for each in three) for three in (mean, std)))  # type: ignore[arg-type]
    except KeyError as error:
        raise wrong_file(path, f"{error} is missing") from error
    except ValueError as error:
        raise wrong_file(path, error) from error
