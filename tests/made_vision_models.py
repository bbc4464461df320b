"""Tiny vision models with random weights, written by transformers itself: config.json, preprocessor and weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, PreTrainedModel

from clipbert_cli.model.hf_encoder import quiet_transformers

WIDE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
TEXT = {
    **WIDE,
    "vocab_size": 50,
    "max_position_embeddings": 16,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
DINO = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "mlp_ratio": 2}
SQUARE = {"image_size": 64, "patch_size": 16}
STAGES = {"image_size": 64, "patch_size": 4, "embed_dim": 16, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 2, 4]}
CONVOLUTIONS = {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 2, 1]}

CONFIGS: dict[str, dict[str, Any]] = {
    "siglip": {"vision_config": {**WIDE, **SQUARE}, "text_config": TEXT},
    "siglip2": {"vision_config": {**WIDE, "num_patches": 16, "patch_size": 16}, "text_config": TEXT},
    "clip": {
        "vision_config": {**WIDE, **SQUARE, "projection_dim": 16},
        "text_config": {**TEXT, "projection_dim": 16},
        "projection_dim": 16,
    },
    "dinov2": {**DINO, "image_size": 56, "patch_size": 14},
    "dinov2_with_registers": {**DINO, "image_size": 56, "patch_size": 14},
    "dinov3_vit": {**WIDE, **SQUARE, "num_register_tokens": 4},
    "dinov3_convnext": CONVOLUTIONS,
    "vit": {**WIDE, **SQUARE},
    "beit": {**WIDE, **SQUARE, "use_relative_position_bias": True},
    "swin": {**STAGES, "window_size": 2},
    "swinv2": {**STAGES, "window_size": 2},
    "convnext": CONVOLUTIONS,
    "convnextv2": CONVOLUTIONS,
}
"""Model type -> a small configuration. The two-tower models have text towers too."""

PREPROCESSOR = {
    "do_normalize": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "image_mean": [0.48, 0.46, 0.41],
    "image_std": [0.27, 0.26, 0.28],
}


def write_vision_model(kind: str, folder: Path, *, tower_alone: bool = False, **changes: object) -> PreTrainedModel:
    """Write a model of a kind with its preprocessor into a folder, and return its vision part in evaluation mode.

    Args:
        tower_alone: of a two-tower model, write the vision tower alone.
        changes: of the configuration.
    """
    torch.manual_seed(len(kind))
    with quiet_transformers():
        whole = AutoModel.from_config(AutoConfig.for_model(kind, **{**CONFIGS[kind], **changes})).eval()
    vision: PreTrainedModel = getattr(whole, "vision_model", whole)
    with torch.no_grad():
        # Fresh norms and position embeddings are ones and zeros, with which many mistakes would not show.
        for parameter in vision.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    with quiet_transformers():
        (vision if tower_alone else whole).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    return vision
