"""A trained model as one self-contained folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from clipbert_cli.errors import OutputError
from clipbert_cli.files import atomic_folder
from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.model.ema import take_average
from clipbert_cli.model.pretrained import from_pretrained, save_pretrained
from clipbert_cli.runs.folder import RunFolder


def load_model(folder: RunFolder, *, checkpoint: str, weights: str) -> ClipBert:
    """Return the model of a checkpoint, in evaluation mode, on the CPU.

    Args:
        checkpoint: `best`, `latest` or `step_N`.
        weights: `plain`, `ema` (the moving average), or `auto` for the ones that validation scored.

    Raises:
        RunError: there is no such checkpoint, or it has no averaged weights.
        WeightsError: the checkpoint's files are damaged.
    """
    place = folder.checkpoint(checkpoint)
    average = folder.average(place, weights)
    model = from_pretrained(place)
    if average:
        take_average(model, average)
    return model


def export_run(folder: RunFolder, out: Path, *, checkpoint: str, weights: str) -> None:
    """Write weights, configuration, vocabulary and answers into a new folder, complete or not at all.

    Raises:
        OutputError: `out` exists.
        ClipbertError: see `load_model`.
    """
    if os.path.lexists(out):
        raise OutputError(f"{out} exists already", hint="name a folder that does not exist")
    model = load_model(folder, checkpoint=checkpoint, weights=weights)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(out) as unfinished:
        save_pretrained(model, unfinished)
        for file in (folder.vocabulary, folder.tokenizer_settings, folder.answers, folder.recipe):
            if file.exists():
                shutil.copyfile(file, unfinished / file.name)
