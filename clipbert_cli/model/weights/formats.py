"""Four families of weights, and what each entry is called here.

A format's `rename` turns a name of the file into a name of `ClipBert`; `known` says why an entry is never used here.
"""

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

    `parts` are what a file of it can supply; `recognised_by` is a pattern that some name of it starts with; `rename`
    gives None for names that it does not know; `known` are patterns of names that are ignored, by reason.
    """

    name: str
    parts: tuple[str, ...]
    recognised_by: str
    rename: Callable[[str], str | None]
    known: dict[str, str]

    def reason_to_ignore(self, name: str) -> str | None:
        return next((reason for pattern, reason in self.known.items() if re.match(pattern, name)), None)


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
    """`res2_0_branch2a_bn_s` -> `res2.0.conv1.norm.weight` -> as detectron2 (its `c2_model_loading`, names only)."""
    leaves = {"w": "weight", "bn_s": "norm.weight", "bn_b": "norm.bias"}
    leaves |= {"bn_rm": "norm.running_mean", "bn_riv": "norm.running_var"}
    layers = {"branch1": "shortcut", "branch2a": "conv1", "branch2b": "conv2", "branch2c": "conv3"}
    if match := re.fullmatch(r"(?:res_)?conv1_(w|bn_s|bn_b|bn_rm|bn_riv)", name):
        return detectron_resnet(f"stem.conv1.{leaves[match[1]]}")
    if match := re.fullmatch(r"(res[2-5])_(\d+)_(branch(?:1|2[abc]))_(w|bn_s|bn_b|bn_rm|bn_riv)", name):
        stage, block, layer, leaf = match.groups()
        return detectron_resnet(f"{stage}.{block}.{layers[layer]}.{leaves[leaf]}")
    return None


def bert(name: str) -> str | None:
    """`bert.embeddings.LayerNorm.gamma` -> `text_embeddings.LayerNorm.weight`."""
    name = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name)).removeprefix("bert.")
    if name.startswith(("encoder.layer.", "pooler.")):
        return name
    if match := re.fullmatch(r"embeddings\.((?:word|position|token_type)_embeddings\.weight|LayerNorm\..+)", name):
        return f"text_embeddings.{match[1]}"
    if match := re.fullmatch(r"cls\.predictions\.(?:(transform\..+)|bias)", name):
        return f"head.{match[1] or 'mlm_bias'}"
    return None


def original(name: str) -> str | None:
    """Names of the original's `ClipBert` module: `cnn.feature` is a detectron2 model, `transformer` a BERT."""
    if name == "cnn.grid_encoder.0.weight":
        return "visual_encoder.grid.weight"
    if match := re.fullmatch(r"cnn\.feature\.(backbone\..+)", name):
        return detectron_resnet(match[1])
    if match := re.fullmatch(r"transformer\.bert\.visual_embeddings\.(row|col)_position_embeddings\.weight", name):
        return f"visual_embeddings.{'row' if match[1] == 'row' else 'column'}_embeddings.weight"
    if match := re.fullmatch(r"transformer\.bert\.visual_embeddings\.(token_type_embeddings|LayerNorm)\.(.+)", name):
        return f"visual_embeddings.{match[1]}.{match[2]}"
    if match := re.fullmatch(r"transformer\.cls\.seq_relationship\.(weight|bias)", name):
        return f"head.itm.{match[1]}"
    if match := re.fullmatch(r"transformer\.classifier\.(\d+\.(?:weight|bias))", name):
        return f"head.layers.{match[1]}"
    if match := re.fullmatch(r"transformer\.classifier\.(weight|bias)", name):
        return f"head.layers.0.{match[1]}"
    return bert(name.removeprefix("transformer.")) if name.startswith("transformer.") else None


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
        known={
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
        known={},
    ),
    Format(
        "detectron2 ResNet",
        parts=("visual",),
        recognised_by=r"(backbone\.)?(res[2-5]\.\d+\.|stem\.conv1\.)",
        rename=detectron_resnet,
        known={**DETECTOR_PARTS, r"((backbone\.)?stem\.fc|linear)\.(weight|bias)$": IMAGE_CLASSIFIER},
    ),
    Format(
        "Caffe2 ResNet",
        parts=("visual",),
        recognised_by=r"res[2-5]_\d+_branch",
        rename=caffe2_resnet,
        known={r"(fc1000|pred)_[wb]$": IMAGE_CLASSIFIER, r"conv1_b$": UNUSED},
    ),
    Format(
        "Hugging Face BERT",
        parts=("bert",),
        recognised_by=r"(bert\.)?(embeddings\.word_embeddings|encoder\.layer\.\d+)\.",
        rename=bert,
        known={
            r"(bert\.)?embeddings\.(position_ids|token_type_ids)$": UNUSED,
            r"cls\.predictions\.decoder\.(weight|bias)$": TIED,
            r"cls\.seq_relationship\.(weight|bias)$": OTHER_HEAD,
        },
    ),
)


def recognise(names: Iterable[str]) -> Format | None:
    """The first format that one of the names belongs to; None where no name is known."""
    listed = list(names)
    return next((each for each in FORMATS if any(re.match(each.recognised_by, name) for name in listed)), None)
