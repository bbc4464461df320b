"""`FILE.meta.json` beside a file of predictions: which model made it, from what, and where.

run, checkpoint, weights    the run's folder, the checkpoint's name, `plain`, `ema` or `auto`
weights_crc32               of the weights themselves
recipe, split               the whole recipe with which was predicted, and the split
sampling                    how clips were taken
time, command, clipbert, git_commit, python, platform, libraries, processes    as in a run's environment.json
predictions                 size and CRC-32 of the predictions: a file that was changed afterwards is none of these
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipbert_cli.build import evaluation_sampling
from clipbert_cli.errors import PathError, PredictionsError, RunError, UnreadableError, UsageError
from clipbert_cli.foreign import read_json
from clipbert_cli.recipe.load import load_recipe, resolve
from clipbert_cli.recipe.schema import Recipe
from clipbert_cli.runs.checkpoint import change
from clipbert_cli.runs.folder import RunFolder

if TYPE_CHECKING:
    from clipbert_cli.infer.trained import RunSelection, TrainedRun


@dataclass(frozen=True)
class MadeBy:
    """The content of the meta file of predictions; None if nothing is known, and then `unknown` says why."""

    meta: Mapping[str, Any] | None
    unknown: str = ""


def meta_file(predictions: Path) -> Path:
    """Return the place of the meta file of a file of predictions."""
    return predictions.with_name(f"{predictions.name}.meta.json")


def describe(run: TrainedRun, selection: RunSelection, split: str) -> dict[str, Any]:
    """Return what is known before predicting. Every process must call this.

    Args:
        run, selection: an open `TrainedRun`, and the `RunSelection` that it was opened by.
    """
    from clipbert_cli.runtime.provenance import environment

    recipe = run.setup.recipe
    root = recipe.data.model_copy(update={"root": str(resolve(recipe, "."))})
    entry = environment(run.setup.world, step=0)
    del entry["step"]
    return {
        "run": str(selection.run.absolute()),
        "checkpoint": _checkpoint(selection),
        "weights": selection.weights,
        "weights_crc32": run.weights_checksum(),
        "recipe": recipe.model_copy(update={"data": root}).model_dump(mode="json"),
        "split": split,
        "sampling": asdict(evaluation_sampling(recipe)),
        **entry,
    }


def _checkpoint(selection: RunSelection) -> str:
    """Return the name of the checkpoint that was used; `best` may move later."""
    folder, named = RunFolder.of_model(selection.run)
    try:
        return folder.checkpoint(named or selection.checkpoint).name
    except (PathError, RunError):
        return "exported"


def read_meta(predictions: Path) -> MadeBy:
    """Return what the meta file of predictions says."""
    if predictions == Path("-"):
        return MadeBy(None, "unknown: they come from standard input")
    file = meta_file(predictions)
    try:
        content = read_json(file)
    except FileNotFoundError:
        return MadeBy(None, f"unknown: there is no {file.name}")
    except UnreadableError as exc:
        return MadeBy(None, f"unknown: {exc}")
    if not predictions.is_file():
        return MadeBy(None, f"unknown: {predictions} is no file")
    if not isinstance(content, dict) or change(predictions, content.get("predictions")):
        return MadeBy(None, f"unknown: {file.name} belongs to other predictions")
    return MadeBy(content)


def recipe_and_split(
    predictions: Path,
    made: MadeBy,
    *,
    command: str,
    recipe: str | Path | None,
    split: str | None,
    overrides: Sequence[str] | None,
    data_root: Path | None,
) -> tuple[Recipe, str]:
    """Return the recipe and the split that were predicted: those that a person names, else those of the meta file.

    Args:
        command: the command that needs them, for the message that repeats it.

    Raises:
        UsageError: neither says them.
    """
    stated = (made.meta or {}).get("split")
    split = split or (stated if isinstance(stated, str) else None)
    missing = [] if split else ["--split is missing"]
    missing += [] if recipe or made.meta else ["--recipe or --run is missing"]
    if missing or split is None:
        named = ["--recipe", str(recipe or "NAME"), "--split", split or "SPLIT"]
        raise UsageError(
            f"{' and '.join(missing)}; what made the predictions is {made.unknown}",
            hint="name them: " + shlex.join(["clipbert", command, str(predictions), *named]),
        )
    return load_recipe(recipe or _recipe_of(made.meta or {}), overrides=overrides, data_root=data_root), split


@contextmanager
def belonging_to(recipe: Recipe, split: str, files: Sequence[Path | None], *, command: str) -> Iterator[None]:
    """Say which split predictions were made for where they turn out not to fit this one.

    Args:
        files: the predictions that are read in the block.
        command: the command that reads them.

    Raises:
        PredictionsError: that of the block, or one with what the meta file of such predictions states.
    """
    try:
        yield
    except PredictionsError as exc:
        for file in filter(None, files):
            meta = read_meta(file).meta or {}
            own = meta.get("recipe")
            made_for = (meta.get("split"), own.get("task")) if isinstance(own, dict) else (split, recipe.task)
            if made_for != (split, recipe.task):
                raise PredictionsError(
                    f"{file}: these are predictions of split {made_for[0]}, task {made_for[1]}, and not of {split}, "
                    f"task {recipe.task}",
                    hint=f"{shlex.join(['clipbert', command, str(file)])} uses the recipe and the split of its own "
                    "meta file",
                ) from exc
        raise


def _recipe_of(meta: Mapping[str, Any]) -> Recipe:
    """Return the recipe of a meta file.

    Raises:
        PredictionsError: the recipe is none of this version.
    """
    try:
        return Recipe.model_validate(meta.get("recipe"))
    except ValueError as exc:
        raise PredictionsError(
            "the recipe in the meta file of the predictions cannot be used", hint="name the recipe with --recipe"
        ) from exc
