"""Weights in the names of the families that exist, made from a small model, and files of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from small_models import small_config
from torch import Tensor

from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.model.heads import HeadSpec
from clipbert_cli.model.transformer import split_projections

State = dict[str, Tensor]
CONFIG = small_config()
BERT_MODULES = {
    **{part: f"attention.self.{part}" for part in ("query", "key", "value")},
    "attention_output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
    "output_norm": "output.LayerNorm",
}
"""Modules of our transformer layer -> those of Hugging Face's (written apart from the package's own map)."""


def other_model(kind: str = "pretraining", outputs: int = 2) -> ClipBert:
    torch.manual_seed(11)
    model = ClipBert(CONFIG, HeadSpec(kind, outputs))  # type: ignore[arg-type]
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.copy_(torch.rand_like(tensor) + 0.5)
    return model


def to_detectron(state: State, prefix: str = "backbone.") -> State:
    """Our ResNet's entries in detectron2's names (written apart from the package's own map)."""
    renamed = {}
    for name, tensor in state.items():
        name = name.removeprefix("visual_encoder.").replace("branch.", "")
        if match := re.match(r"stages\.(\d)\.(.*)", name):
            name = f"res{int(match[1]) + 2}.{match[2]}"
        renamed[prefix + name] = tensor
    return renamed


def backbone(model: ClipBert) -> State:
    return {name: tensor for name, tensor in model.state_dict().items() if name.startswith("visual_encoder.st")}


def detector_heads() -> State:
    return {
        "proposal_generator.rpn_head.conv.weight": torch.ones(3, 3),
        "proposal_generator.anchor_generator.cell_anchors.0": torch.ones(15, 4),
        "roi_heads.box_head.fc1.bias": torch.ones(4),
    }


def to_bert(model: ClipBert, *, prefix: str = "bert.", old_names: bool = False) -> State:
    """Our transformer's entries in the names of Hugging Face's BertForPreTraining."""
    renamed = {}
    for name, tensor in split_projections(model.state_dict()).items():
        if match := re.match(r"transformer\.layers\.(\d+)\.(\w+)\.(\w+)", name):
            layer, module, leaf = match.groups()
            renamed[f"{prefix}encoder.layer.{layer}.{BERT_MODULES[module]}.{leaf}"] = tensor
        elif name.startswith("transformer.pooler."):
            renamed[prefix + name.replace("transformer.pooler.", "pooler.dense.")] = tensor
        elif name.startswith("text_embeddings."):
            renamed[prefix + name.removeprefix("text_").replace("norm.", "LayerNorm.")] = tensor
        elif name.startswith(("head.transform.", "head.norm.")):
            name = name.replace("head.transform.", "transform.dense.").replace("head.norm.", "transform.LayerNorm.")
            renamed[f"cls.predictions.{name}"] = tensor
        elif name == "head.mlm_bias":
            renamed["cls.predictions.bias"] = tensor
        elif name.startswith("head.itm."):
            renamed[name.replace("head.itm.", "cls.seq_relationship.")] = tensor
    if "cls.predictions.bias" in renamed:
        renamed["cls.predictions.decoder.weight"] = renamed[prefix + "embeddings.word_embeddings.weight"].clone()
    if old_names:
        renamed = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
            for name, tensor in renamed.items()
        }
    return renamed


def to_original(model: ClipBert) -> State:
    """A checkpoint as the original ClipBERT wrote it, detector heads and copies of tied weights included."""
    state = {f"transformer.{name}": tensor for name, tensor in to_bert(model).items()}
    if "head.mlm_bias" in model.state_dict():
        state["transformer.cls.predictions.decoder.bias"] = state["transformer.cls.predictions.bias"].clone()
    state |= {
        f"cnn.feature.{name}": tensor for name, tensor in (to_detectron(backbone(model)) | detector_heads()).items()
    }
    state["cnn.grid_encoder.0.weight"] = model.visual_encoder.grid.weight.detach()
    visual = "transformer.bert.visual_embeddings."
    state[visual + "position_embeddings.weight"] = torch.ones(24, 16)
    for name, tensor in model.visual_embeddings.state_dict().items():
        name = name.replace("row_embeddings", "row_position_embeddings").replace("norm.", "LayerNorm.")
        state[visual + name.replace("column_embeddings", "col_position_embeddings")] = tensor
    for name, tensor in model.head.state_dict().items():
        if name.startswith("layers."):
            state[f"transformer.classifier.{name.removeprefix('layers.')}"] = tensor
    return state


def save_torch(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path
