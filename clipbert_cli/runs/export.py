"""A trained model as one self-contained folder; for others without paths of this machine and with a model card."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipbert_cli.errors import OutputError
from clipbert_cli.files import atomic_folder, make_parents
from clipbert_cli.hub import is_hub_name
from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.model.ema import take_average
from clipbert_cli.model.pretrained import from_pretrained, save_pretrained
from clipbert_cli.recipe.load import dump_recipe, load_recipe
from clipbert_cli.recipe.schema import Recipe
from clipbert_cli.runs.folder import RunFolder
from clipbert_cli.runs.summary import stated_devices, stated_versions, summarise
from clipbert_cli.task.registry import task_class


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
        take_average(dict(model.named_parameters()), average)
    return model


def export_run(
    folder: RunFolder, out: Path, *, checkpoint: str, weights: str, texts: Mapping[str, str] | None = None
) -> None:
    """Write weights, configuration, vocabulary and answers into a new folder, complete or not at all.

    Args:
        texts: names and contents of further files, or of those of the run that have another content.

    Raises:
        OutputError: `out` exists.
        ClipbertError: see `load_model`.
    """
    if os.path.lexists(out):
        raise OutputError(f"{out} exists already", hint="name a folder that does not exist")
    model = load_model(folder, checkpoint=checkpoint, weights=weights)
    make_parents(out)
    with atomic_folder(out) as unfinished:
        save_pretrained(model, unfinished)
        for file in (folder.vocabulary, folder.tokenizer_settings, folder.answers, folder.recipe):
            if file.exists():
                shutil.copyfile(file, unfinished / file.name)
        for name, text in (texts or {}).items():
            (unfinished / name).write_text(text, encoding="utf-8")


def write_shared(folder: RunFolder, out: Path, *, checkpoint: str, weights: str) -> None:
    """Write a run's model and its card into a new folder; `--run OUT` answers with it.

    Raises:
        OutputError: `out` exists.
        ClipbertError: see `load_model` and `summarise`.
    """
    recipe = without_paths(load_recipe(folder.recipe))
    texts = {folder.recipe.name: dump_recipe(recipe), "README.md": model_card(folder, recipe)}
    export_run(folder, out, checkpoint=checkpoint, weights=weights, texts=texts)


def without_paths(recipe: Recipe) -> Recipe:
    """Return the recipe without the folders of this machine; a model that is there already needs none of them."""
    values = recipe.model_dump()
    model = values["model"]
    values["data"]["root"], model["tokenizer"] = ".", "vocab.txt"
    for section, name in ((model["weights"], "checkpoint"), (model["weights"], "bert"), (model["visual"], "weights")):
        if not is_hub_name(section[name] or ""):
            section[name] = None
    return Recipe.model_validate(values)


def model_card(folder: RunFolder, recipe: Recipe) -> str:
    """Return the card: what the Hub reads at its top, then task, model, scores and versions for people."""
    summary = summarise(folder)
    best: Mapping[str, Any] = next(
        (each for each in reversed(folder.validations()) if each.get("step") == summary.best_step), {}
    )
    scores = {name: value for name, value in best.items() if isinstance(value, float)}
    # Versions and devices are those of the last start. Its host names and paths are not published.
    start = folder.last_start()
    task, data, model, train = task_class(recipe.task), recipe.data, recipe.model, recipe.train
    visual_rate = train.visual_learning_rate or train.learning_rate
    lines = [
        "---",
        *([f"license: {recipe.license}"] if recipe.license else []),
        "library_name: clipbert",
        f"pipeline_tag: {task.hub_task}",
        "tags: [clipbert, video, vision-and-language]",
        "---",
        "",
        f"# {recipe.name}",
        "",
        f"A ClipBERT model for the task `{recipe.task}`, trained with `clipbert`. `recipe.yaml` has all settings.",
        "",
        f"* visual encoder: {model.visual.weights or model.visual.kind}",
        f"* text: {model.weights.bert or model.weights.checkpoint or 'see config.json'}",
        f"* training clips: {data.num_clips} of {data.num_frames} frames, {data.frame_size} pixels",
        f"* learning rate: {train.learning_rate:g}; of the visual encoder: {visual_rate:g}",
        f"* steps: {summary.best_step or summary.step}",
        f"* licence: {recipe.license or 'not stated'}",
        "",
        "## Validation",
        "",
        *(["| metric | value |", "|---|---|"] if scores else ["The run was not validated."]),
        *(f"| {name} | {value:.2f} |" for name, value in scores.items()),
        "",
        "## Versions",
        "",
        *(f"* {name} {version}" for name, version in stated_versions(start).items()),
        f"* device {', '.join(sorted(set(stated_devices(start)))) or 'not known'}",
        "",
        "## Use",
        "",
        "```sh",
        "pip install clipbert",
        task.use.format(run="hf:ORG/NAME", media=recipe.data.media),
        "```",
    ]
    return "\n".join(lines) + "\n"
