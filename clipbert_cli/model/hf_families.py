"""The families of vision models that the encoder of kind `hf` supports: one entry each.

A family needs an entry because transformers' models differ in three points: where their blocks are, how other sizes of
frames are asked for, and what they hold that no grid of features needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from clipbert_cli.recipe.schema import AtMost, Count, Depth, NotNegative, Positive, ShareBelow1, Width


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

NotNegativeCount = Annotated[int, Field(ge=0), AtMost(65_536)]

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
    "mlp_ratio": Annotated[float, Field(gt=0), AtMost(1000)],
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
