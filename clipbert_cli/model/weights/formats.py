"""The kinds of weight files that can be loaded, and how their entries are named in `ClipBert`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

DETECTOR = "detector heads"
IMAGE_CLASSIFIER = "image classifier"
UNUSED = "never used by the model"
TIED = "copies of tied weights"
OTHER_HEAD = "another task's head"
OTHER_PART = "parts that were not asked for"

BLOCK = re.compile(r"res([2-5])\.(\d+)\.(shortcut|conv[123])\.(weight|norm\.(?:weight|bias|running_mean|running_var))")
STEM = re.compile(r"stem\.conv1\.(weight|norm\.(?:weight|bias|running_mean|running_var))")


@dataclass(frozen=True)
class Format:
    """One way of naming weights.

    Attributes:
        parts: parts of a model that such a file can supply.
        recognised_by: pattern at the start of some name in every such file.
        rename: name in the file -> name in the model, or None for a name that has no place in a model.
        ignored: pattern at the start of names without a place -> reason to ignore them.
        packed: whether queries, keys and values are one tensor, as in the model; otherwise `rename` gives the names
            of `split_projections`.
    """

    name: str
    parts: tuple[str, ...]
    recognised_by: str
    rename: Callable[[str], str | None]
    ignored: dict[str, str]
    packed: bool = False

    def reason_to_ignore(self, name: str) -> str | None:
        """Return why an entry is ignored, or None if it should have a place in the model."""
        return next((reason for pattern, reason in self.ignored.items() if re.match(pattern, name)), None)


def detectron_resnet(name: str) -> str | None:
    """`res2.0.conv1.norm.weight` -> `visual_encoder.stages.0.0.branch.conv1.norm.weight`."""
    name = name.removeprefix("backbone.")
    if STEM.fullmatch(name):
        return f"visual_encoder.{name}"
    if match := BLOCK.fullmatch(name):
        stage, block, convolution, leaf = match.groups()
        place = "shortcut" if convolution == "shortcut" else f"branch.{convolution}"
        return f"visual_encoder.stages.{int(stage) - 2}.{block}.{place}.{leaf}"
    return None


def caffe2_resnet(name: str) -> str | None:
    """Rename `res2_0_branch2a_bn_s` to `res2.0.conv1.norm.weight`, and then as `detectron_resnet` does.

    The names are those of Caffe2's model zoo, as in detectron2's `c2_model_loading.py`.
    """
    leaves = {"w": "weight", "bn_s": "norm.weight", "bn_b": "norm.bias"}
    leaves |= {"bn_rm": "norm.running_mean", "bn_riv": "norm.running_var"}
    layers = {"branch1": "shortcut", "branch2a": "conv1", "branch2b": "conv2", "branch2c": "conv3"}
    if match := re.fullmatch(r"(?:res_)?conv1_(w|bn_s|bn_b|bn_rm|bn_riv)", name):
        return detectron_resnet(f"stem.conv1.{leaves[match[1]]}")
    if match := re.fullmatch(r"(res[2-5])_(\d+)_(branch(?:1|2[abc]))_(w|bn_s|bn_b|bn_rm|bn_riv)", name):
        stage, block, layer, leaf = match.groups()
        return detectron_resnet(f"{stage}.{block}.{layers[layer]}.{leaves[leaf]}")
    return None


LAYER = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "attention_output",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "intermediate",
    "output.dense": "output",
    "output.LayerNorm": "output_norm",
}
"""Modules of a BERT layer -> modules of `TransformerLayer`, its packed projection split into three."""

HEAD = {"transform.dense": "transform", "transform.LayerNorm": "norm"}
"""Modules of BERT's masked word head -> modules of `PretrainingHead`."""


def bert(name: str) -> str | None:
    """`bert.encoder.layer.0.attention.self.query.bias` -> `transformer.layers.0.query.bias`."""
    # The first published checkpoints have TensorFlow's names of layer norms.
    name = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name)).removeprefix("bert.")
    module, _, leaf = name.rpartition(".")
    if leaf not in ("weight", "bias"):
        return None
    if (match := re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)", module)) and match[2] in LAYER:
        return f"transformer.layers.{match[1]}.{LAYER[match[2]]}.{leaf}"
    if module == "pooler.dense":
        return f"transformer.pooler.{leaf}"
    if module == "embeddings.LayerNorm":
        return f"text_embeddings.norm.{leaf}"
    if match := re.fullmatch(r"embeddings\.((?:word|position|token_type)_embeddings)\.weight", name):
        return f"text_embeddings.{match[1]}.weight"
    if name == "cls.predictions.bias":
        return "head.mlm_bias"
    if (place := module.removeprefix("cls.predictions.")) in HEAD and place != module:
        return f"head.{HEAD[place]}.{leaf}"
    return None


VISUAL_EMBEDDINGS = {
    "row_position_embeddings": "row_embeddings",
    "col_position_embeddings": "column_embeddings",
    "token_type_embeddings": "token_type_embeddings",
    "LayerNorm": "norm",
}
"""Modules of the original's visual embeddings -> modules of `VisualEmbeddings`."""


def visual_embeddings(name: str) -> str | None:
    """`visual_embeddings.row_position_embeddings.weight` -> `visual_embeddings.row_embeddings.weight`."""
    match = re.fullmatch(rf"visual_embeddings\.({'|'.join(VISUAL_EMBEDDINGS)})\.(.+)", name)
    return f"visual_embeddings.{VISUAL_EMBEDDINGS[match[1]]}.{match[2]}" if match else None


def original(name: str) -> str | None:
    """`cnn.feature.backbone.stem.conv1.weight` -> `visual_encoder.stem.conv1.weight`.

    The original's module has a detectron2 model `cnn.feature` and a BERT `transformer`.
    """
    if name == "cnn.grid_encoder.0.weight":
        return "visual_encoder.grid.weight"
    if match := re.fullmatch(r"cnn\.feature\.(backbone\..+)", name):
        return detectron_resnet(match[1])
    if place := visual_embeddings(name.removeprefix("transformer.bert.")):
        return place
    if match := re.fullmatch(r"transformer\.cls\.seq_relationship\.(weight|bias)", name):
        return f"head.itm.{match[1]}"
    if match := re.fullmatch(r"transformer\.classifier\.(\d+\.(?:weight|bias))", name):
        return f"head.layers.{match[1]}"
    if match := re.fullmatch(r"transformer\.classifier\.(weight|bias)", name):
        return f"head.layers.0.{match[1]}"
    return bert(name.removeprefix("transformer.")) if name.startswith("transformer.") else None


TVP_TO_BERT = {
    r"\.attention\.(query|key|value)\.": r".attention.self.\1.",
    r"\.attention\.(dense|layer_norm)\.": r".attention.output.\1.",
    r"\.layer_norm\.": ".LayerNorm.",
}
"""Parts of names in transformers' TVP -> the same in BERT and in the original, one after the other."""

TVP_NORM = r"normalization\.(weight|bias|running_mean|running_var)"
TVP_CONVOLUTION = rf"(?:convolution\.(weight)|{TVP_NORM})"


def tvp(name: str) -> str | None:
    """`vision_model.backbone.encoder.stages.0.layers.1.layer.2.convolution.weight` -> `visual_encoder.stages.0.1...`.

    TVP (video grounding, Zhang et al. 2023) has ClipBERT's network; the layout is that of transformers' `tvp`.
    """
    name = name.removeprefix("model.")
    if name == "vision_model.grid_encoder_conv.weight":
        return "visual_encoder.grid.weight"
    backbone = name.removeprefix("vision_model.backbone.")
    if match := re.fullmatch(rf"embedder\.embedder\.{TVP_CONVOLUTION}", backbone):
        return f"visual_encoder.stem.conv1.{match[1] or f'norm.{match[2]}'}"
    place = r"encoder\.stages\.(\d+)\.layers\.(\d+)\.(?:layer\.(\d)|shortcut)"
    if match := re.fullmatch(rf"{place}\.{TVP_CONVOLUTION}", backbone):
        stage, block, number, weight, norm = match.groups()
        convolution = "shortcut" if number is None else f"branch.conv{int(number) + 1}"
        return f"visual_encoder.stages.{stage}.{block}.{convolution}.{weight or f'norm.{norm}'}"
    for pattern, replacement in TVP_TO_BERT.items():
        name = re.sub(pattern, replacement, name)
    return visual_embeddings(name) or bert(name)


DETECTOR_PARTS = {
    r"proposal_generator\.": DETECTOR,
    r"roi_heads\.": DETECTOR,
    r"pixel_(mean|std)$": UNUSED,
}

FORMATS = (
    Format(
        "original ClipBERT checkpoint",
        parts=("all", "bert", "visual"),
        recognised_by=r"transformer\.bert\.|cnn\.feature\.",
        rename=original,
        ignored={
            **{rf"cnn\.feature\.{pattern}": reason for pattern, reason in DETECTOR_PARTS.items()},
            r"transformer\.bert\.visual_embeddings\.position_embeddings\.weight$": UNUSED,
            r"transformer\.bert\.embeddings\.position_ids$": UNUSED,
            r"transformer\.cls\.predictions\.decoder\.(weight|bias)$": TIED,
        },
    ),
    Format(
        "clipbert model",
        parts=("all", "bert", "visual"),
        recognised_by=r"visual_encoder\.|text_embeddings\.",
        rename=lambda name: name,
        ignored={},
        packed=True,
    ),
    Format(
        "Hugging Face TVP",
        parts=("all", "bert", "visual"),
        recognised_by=r"(model\.)?(vision_model\.grid_encoder_conv|visual_prompter)\.",
        rename=tvp,
        ignored={
            r"(model\.)?(text_prompt$|visual_prompter\.)": "prompts of video grounding",
            r"video_grounding_head\.": OTHER_HEAD,
            r"(model\.)?visual_embeddings\.position_embeddings\.weight$": UNUSED,
        },
    ),
    Format(
        "detectron2 ResNet",
        parts=("visual",),
        recognised_by=r"(backbone\.)?(res[2-5]\.\d+\.|stem\.conv1\.)",
        rename=detectron_resnet,
        ignored={**DETECTOR_PARTS, r"((backbone\.)?stem\.fc|linear)\.(weight|bias)$": IMAGE_CLASSIFIER},
    ),
    Format(
        "Caffe2 ResNet",
        parts=("visual",),
        recognised_by=r"res[2-5]_\d+_branch",
        rename=caffe2_resnet,
        ignored={r"(fc1000|pred)_[wb]$": IMAGE_CLASSIFIER, r"conv1_b$": UNUSED},
    ),
    Format(
        "Hugging Face BERT",
        parts=("bert",),
        recognised_by=r"(bert\.)?(embeddings\.word_embeddings|encoder\.layer\.\d+)\.",
        rename=bert,
        ignored={
            r"(bert\.)?embeddings\.(position_ids|token_type_ids)$": UNUSED,
            r"cls\.predictions\.decoder\.(weight|bias)$": TIED,
            r"cls\.seq_relationship\.(weight|bias)$": OTHER_HEAD,
        },
    ),
)


NOTES = {
    "Hugging Face TVP": "pixel statistics are not in the weights: tvp-base was trained with other ones than "
    "ClipBERT's; set model.visual.pixel_mean to [8.2381, 7.3115, 6.6981] and pixel_std to [9.6335, 9.0659, 8.7213]. "
    "The training on ActivityNet used ClipBERT's",
}
"""Format -> what to know about weights of this kind beyond their entries."""


def recognise(names: Iterable[str]) -> Format | None:
    """Return the first format that one of the names belongs to, or None if no name is known.

    The order of `FORMATS` matters: the names of a whole model contain those of its parts.
    """
    listed = list(names)
    return next((each for each in FORMATS if any(re.match(each.recognised_by, name) for name in listed)), None)
