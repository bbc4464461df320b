"""The kinds of weight files that can be loaded, and how their entries are named in `ClipBert`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

DETECTOR = "detector heads"
IMAGE_CLASSIFIER = "image classifier"
UNUSED = "never used by the model"
TIED = "copies of tied weights"
OTHER_HEAD = "another task's head"
OTHER_PART = "parts that were not asked for"

Renames = Mapping[str, str]
"""Pattern of a whole name in a file -> the name in the model, with the groups of the pattern."""


@dataclass(frozen=True)
class Format:
    """One way of naming weights.

    Attributes:
        parts: parts of a model that such a file can supply.
        recognised_by: pattern at the start of some name in every such file.
        renames: the names that have a place in a model.
        ignored: pattern at the start of names without a place -> reason to ignore them.
        packed: whether queries, keys and values are one tensor, as in the model; otherwise `renames` gives the names
            of `split_projections`.
    """

    name: str
    parts: tuple[str, ...]
    recognised_by: str
    renames: Renames
    ignored: dict[str, str]
    packed: bool = False

    def rename(self, name: str) -> str | None:
        """Return the name in the model, or None for a name that has no place in a model."""
        # The first published BERTs have TensorFlow's names of layer norms.
        name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name))
        matches = ((re.fullmatch(pattern, name), place) for pattern, place in self.renames.items())
        return next((match.expand(place) for match, place in matches if match), None)

    def reason_to_ignore(self, name: str) -> str | None:
        """Return why an entry is ignored, or None if it should have a place in the model."""
        return next((reason for pattern, reason in self.ignored.items() if re.match(pattern, name)), None)


def below(prefix: str, renames: Renames) -> Renames:
    """Return the same for names with a prefix, which is a pattern without groups."""
    return {prefix + pattern: place for pattern, place in renames.items()}


LEAF = "(weight|bias)"
STATISTICS = "(?:weight|bias|running_mean|running_var)"
CONVOLUTION = rf"(weight|norm\.{STATISTICS})"

_RESNET = {
    rf"stem\.conv1\.{CONVOLUTION}": r"visual_encoder.stem.conv1.\1",
    **{
        rf"res{stage + 2}\.(\d+)\.{name}\.{CONVOLUTION}": rf"visual_encoder.stages.{stage}.\1.{place}.\2"
        for stage in range(4)
        for name, place in (("shortcut", "shortcut"), *((f"conv{n}", f"branch.conv{n}") for n in (1, 2, 3)))
    },
}
"""detectron2's ResNet."""

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

_BERT = {
    **{
        rf"encoder\.layer\.(\d+)\.{re.escape(module)}\.{LEAF}": rf"transformer.layers.\1.{place}.\2"
        for module, place in LAYER.items()
    },
    rf"pooler\.dense\.{LEAF}": r"transformer.pooler.\1",
    rf"embeddings\.LayerNorm\.{LEAF}": r"text_embeddings.norm.\1",
    r"embeddings\.((?:word|position|token_type)_embeddings\.weight)": r"text_embeddings.\1",
}

_MASKED_WORDS = {
    r"cls\.predictions\.bias": "head.mlm_bias",
    rf"cls\.predictions\.transform\.dense\.{LEAF}": r"head.transform.\1",
    rf"cls\.predictions\.transform\.LayerNorm\.{LEAF}": r"head.norm.\1",
}

_VISUAL_EMBEDDINGS = {
    r"visual_embeddings\.row_position_embeddings\.weight": "visual_embeddings.row_embeddings.weight",
    r"visual_embeddings\.col_position_embeddings\.weight": "visual_embeddings.column_embeddings.weight",
    r"visual_embeddings\.token_type_embeddings\.weight": "visual_embeddings.token_type_embeddings.weight",
    rf"visual_embeddings\.LayerNorm\.{LEAF}": r"visual_embeddings.norm.\1",
}

_ORIGINAL = {
    r"cnn\.grid_encoder\.0\.weight": "visual_encoder.grid.weight",
    **below(r"cnn\.feature\.backbone\.", _RESNET),
    **below(r"transformer\.bert\.", {**_VISUAL_EMBEDDINGS, **_BERT}),
    **below(r"transformer\.", _MASKED_WORDS),
    rf"transformer\.cls\.seq_relationship\.{LEAF}": r"head.itm.\1",
    rf"transformer\.classifier\.(\d+\.{LEAF})": r"head.layers.\1",
    rf"transformer\.classifier\.{LEAF}": r"head.layers.0.\1",
}
"""The original's module has a detectron2 model `cnn.feature` and a BERT `transformer`."""

_TVP_CONVOLUTIONS = {
    r"embedder\.embedder": "stem.conv1",
    r"encoder\.stages\.(\d+)\.layers\.(\d+)\.shortcut": r"stages.\1.\2.shortcut",
    **{
        rf"encoder\.stages\.(\d+)\.layers\.(\d+)\.layer\.{number}": rf"stages.\1.\2.branch.conv{number + 1}"
        for number in range(3)
    },
}

_TVP = {
    r"vision_model\.grid_encoder_conv\.weight": "visual_encoder.grid.weight",
    **{
        rf"vision_model\.backbone\.{name}\.{kind}": f"visual_encoder.{place}.{leaf}"
        for name, place in _TVP_CONVOLUTIONS.items()
        for kind, leaf in (
            (r"convolution\.weight", "weight"),
            (rf"normalization\.(?P<leaf>{STATISTICS})", r"norm.\g<leaf>"),
        )
    },
    **{
        pattern.replace(r"attention\.self", "attention")
        .replace(r"attention\.output", "attention")
        .replace("LayerNorm", "layer_norm"): place
        for pattern, place in {**_VISUAL_EMBEDDINGS, **_BERT}.items()
    },
}
"""TVP (video grounding, Zhang et al. 2023) has ClipBERT's network; the layout is that of transformers' `tvp`."""

DETECTOR_PARTS = {
    r"proposal_generator\.": DETECTOR,
    r"roi_heads\.": DETECTOR,
    r"pixel_(mean|std)$": UNUSED,
}

ORIGINAL = Format(
    "original ClipBERT checkpoint",
    parts=("all", "bert", "visual"),
    recognised_by=r"transformer\.bert\.|cnn\.feature\.",
    renames=_ORIGINAL,
    ignored={
        **{rf"cnn\.feature\.{pattern}": reason for pattern, reason in DETECTOR_PARTS.items()},
        r"transformer\.bert\.visual_embeddings\.position_embeddings\.weight$": UNUSED,
        r"transformer\.bert\.embeddings\.position_ids$": UNUSED,
        r"transformer\.cls\.predictions\.decoder\.(weight|bias)$": TIED,
    },
)

TVP = Format(
    "Hugging Face TVP",
    parts=("all", "bert", "visual"),
    recognised_by=r"(model\.)?(vision_model\.grid_encoder_conv|visual_prompter)\.",
    renames=below(r"(?:model\.)?", _TVP),
    ignored={
        r"(model\.)?(text_prompt$|visual_prompter\.)": "prompts of video grounding",
        r"video_grounding_head\.": OTHER_HEAD,
        r"(model\.)?visual_embeddings\.position_embeddings\.weight$": UNUSED,
    },
)

FORMATS = (
    ORIGINAL,
    Format(
        "clipbert model",
        parts=("all", "bert", "visual"),
        recognised_by=r"visual_encoder\.|text_embeddings\.",
        renames={r"(.*)": r"\1"},
        ignored={},
        packed=True,
    ),
    TVP,
    Format(
        "detectron2 ResNet",
        parts=("visual",),
        recognised_by=r"(backbone\.)?(res[2-5]\.\d+\.|stem\.conv1\.)",
        renames=below(r"(?:backbone\.)?", _RESNET),
        ignored={**DETECTOR_PARTS, r"((backbone\.)?stem\.fc|linear)\.(weight|bias)$": IMAGE_CLASSIFIER},
    ),
    Format(
        "Hugging Face BERT",
        parts=("bert",),
        recognised_by=r"(bert\.)?(embeddings\.word_embeddings|encoder\.layer\.\d+)\.",
        renames={**below(r"(?:bert\.)?", _BERT), **_MASKED_WORDS},
        ignored={
            r"(bert\.)?embeddings\.(position_ids|token_type_ids)$": UNUSED,
            r"cls\.predictions\.decoder\.(weight|bias)$": TIED,
            r"cls\.seq_relationship\.(weight|bias)$": OTHER_HEAD,
        },
    ),
)


NOTES = {
    TVP.name: "pixel statistics are not in the weights: tvp-base was trained with other ones than "
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
