"""Recognise a checkpoint of the original's pretraining."""

from __future__ import annotations

from pathlib import Path

import torch

from clipbert_cli.errors import WeightsError
from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.model.heads import HeadSpec
from clipbert_cli.model.transformer import split_projections
from clipbert_cli.model.weights.formats import original
from clipbert_cli.model.weights.head_rows import HeadRows
from clipbert_cli.model.weights.load import expect_format, explain, match
from clipbert_cli.model.weights.weight_files import check_finite, read_weights
from clipbert_cli.recipe.schema import ModelConfig


def check_original(path: Path) -> None:
    """Compare the entries of a torch file with the published model, by name and shape; its name may end in anything.

    Raises:
        WeightsError: the file cannot be read, or it is another model, or has other values than numbers.
    """
    file = read_weights(path, suffix=".pt")
    form = expect_format(file, "all")
    if form.rename is not original:
        raise WeightsError(f"{path}: this is a {form.name}")
    head = HeadSpec("pretraining", 2)
    # The shapes alone are needed: on the meta device, the model has no memory.
    with torch.device("meta"):
        state = split_projections(ClipBert(ModelConfig(), head).state_dict())
    values, report = match(file, form, "all", state, head=HeadRows.between(None, head), allow_new_head=False)
    if report.misfits:
        raise WeightsError(explain(report))
    check_finite({name: value for name, value in values.items() if not value.is_meta}, path)
