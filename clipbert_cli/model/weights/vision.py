"""Load a vision model of Hugging Face's transformers into the visual encoder of kind `hf`."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import torch

from clipbert_cli.errors import WeightsError
from clipbert_cli.model.hf_encoder import HuggingFaceEncoder, quiet_transformers
from clipbert_cli.model.weights.formats import UNUSED
from clipbert_cli.model.weights.transfer import MISSING, UNEXPECTED, UNLIKE, LoadReport, both_kinds, explain
from clipbert_cli.model.weights.weight_files import check_finite, read_weights

IGNORED = {
    r"(\w+\.)?(text_model|text_projection|visual_projection|logit_scale|logit_bias)\b": "the text tower and its like",
    r"(\w+\.)?(head|pooler|classifier|lm_head|decoder|cls_classifier|distillation_classifier)\b": "poolers and heads",
    r".*\b(position_ids|mask_token|relative_position_index|relative_coords_table|attn_mask)$": UNUSED,
}
"""Pattern of names that no grid of features needs -> what they are."""


def load_vision_model(encoder: HuggingFaceEncoder, source: Path) -> LoadReport:
    """Load the weights of a vision model, or of a two-tower model's vision tower; the projection stays as it is.

    Raises:
        WeightsError: the file cannot be read, or an entry is missing, unexpected or of another shape; the encoder is
            unchanged then.
    """
    file = read_weights(source)
    backbone = encoder.backbone
    # transformers renames and converts the entries of older releases. It names what does not fit: missing keys as in
    # the model, unexpected ones as in the file, and the shapes of both where they differ.
    with quiet_transformers():
        loaded, found = type(backbone).from_pretrained(
            None,
            config=backbone.config,
            state_dict=dict(file.tensors),
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **encoder.family.options,
        )
    values = loaded.state_dict()
    prefix = "visual_encoder.backbone."
    ignored: dict[str, list[str]] = defaultdict(list)
    misfits: dict[str, list[str]] = defaultdict(list)
    for name in sorted(found["unexpected_keys"]):
        reason = next((reason for pattern, reason in IGNORED.items() if re.match(pattern, name)), None)
        (ignored[reason] if reason else misfits[UNEXPECTED]).append(name)
    for name in sorted(found["missing_keys"]):
        # Models that were not trained with masks lack the mask token, and what is not trained may be missing.
        if not name.startswith(encoder.family.unused):
            misfits[MISSING].append(prefix + name)
    for name, *shapes in found["mismatched_keys"]:
        misfits[UNLIKE].append(both_kinds(prefix + name, *map(tuple, shapes)))
    report = LoadReport(
        source=file.path,
        format=f"Hugging Face {backbone.config.model_type}",
        loaded=tuple(prefix + name for name in values if name not in found["missing_keys"]),
        new=tuple(f"visual_encoder.projection.{leaf}" for leaf in ("weight", "bias")),
        ignored={reason: tuple(names) for reason, names in ignored.items()},
        misfits=misfits,
    )
    if misfits:
        raise WeightsError(explain(report), hint="its config.json and its weights do not belong together: compare both")
    check_finite(values, file.path)
    with torch.no_grad():
        backbone.load_state_dict(values)
    return report
