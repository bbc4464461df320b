"""`FILE.meta.json` beside a file of predictions: which model made it, from what, and where.

run, checkpoint, weights    the run's folder, the checkpoint's name, `plain`, `ema` or `auto`
checkpoint_asked            the checkpoint as the command named it, such as `best`
checkpoint_files            size and CRC-32 of each file of the checkpoint, as its state.json states them
weights_crc32               of the weights themselves
recipe, split               the whole recipe with which was predicted, and the split
sampling                    how clips were taken
time, command, clipbert, git_commit, python, platform, libraries, processes    as in a run's environment.json
predictions                 size and CRC-32 of the predictions: a file that was changed afterwards is none of these
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipbert_cli.build import evaluation_sampling
from clipbert_cli.errors import PathError, PredictionsError, RunError, UnreadableError, UsageError
from clipbert_cli.foreign import read_json
from clipbert_cli.recipe.load import load_recipe, resolve
from clipbert_cli.recipe.schema import Recipe
from clipbert_cli.runs.checkpoint import change, read_state
from clipbert_cli.runs.folder import RunFolder

if TYPE_CHECKING:
    from clipbert_cli.infer.trained import RunSelection, TrainedRun

MAX_COMPARED = 2**32
"""The limit of bytes in predictions whose checksum is computed, which takes a second per gigabyte."""


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
        **_checkpoint(selection),
        "weights": selection.weights,
        "weights_crc32": run.weights_checksum(),
        "recipe": recipe.model_copy(update={"data": root}).model_dump(mode="json"),
        "split": split,
        "sampling": asdict(evaluation_sampling(recipe)),
        **entry,
    }


def _checkpoint(selection: RunSelection) -> dict[str, Any]:
    """Return the name and the files of the checkpoint that was used; `best` may move later."""
    folder, named = RunFolder.of_model(selection.run)
    asked = named or selection.checkpoint
    try:
        used = folder.checkpoint(asked)
        found = {"checkpoint": used.name, "checkpoint_files": read_state(used).get("files")}
    except (PathError, RunError, UnreadableError):
        found = {"checkpoint": "exported", "checkpoint_files": None}
    return {**found, "checkpoint_asked": asked}


def older_than_best(predictions: Path, made: MadeBy, run: RunFolder | None) -> list[str]:
    """Return a warning, in lines, if predictions of the best checkpoint are not of what is the best one now.

    Args:
        run: the run that a person names, for predictions whose own run is elsewhere by now.
    """
    meta = made.meta
    # Whoever names another checkpoint wants its predictions.
    if meta is None or meta.get("checkpoint_asked") != "best":
        return []
    own = Path(str(meta.get("run"))).absolute()
    try:
        folder = RunFolder.of_model(own)[0] if own.exists() or run is None else run
        best = folder.checkpoint("best")
        state = read_state(best)
    except (PathError, RunError, UnreadableError, OSError):
        return []
    used, files = meta.get("checkpoint"), meta.get("checkpoint_files")
    if used == best.name and files in (None, state.get("files")):
        return []
    now = best.name if used != best.name else f"another {best.name}, trained since"
    again = ["clipbert", "infer", "--run", str(folder.path), "--split", str(meta.get("split")), "-o", str(predictions)]
    return [
        f"{predictions} was made with checkpoint {used}, and the best of {folder.path} is {now}",
        f"  its predictions are made by: {shlex.join([*again, '--overwrite'])}",
    ]


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
    if predictions.stat().st_size > MAX_COMPARED:
        return MadeBy(None, f"unknown: {predictions} is too large to be compared with {file.name}")
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
    if (recipe is None and made.meta is None) or split is None:
        missing = ["--split is missing"] if split is None else []
        missing += ["--recipe or --run is missing"] if recipe is None and made.meta is None else []
        named = ["--recipe", str(recipe or "NAME"), "--split", split or "SPLIT"]
        raise UsageError(
            f"{' and '.join(missing)}; what made the predictions is {made.unknown}",
            hint="name them: " + shlex.join(["clipbert", command, str(predictions), *named]),
        )
    return load_recipe(recipe or _recipe_of(made.meta or {}), overrides=overrides, data_root=data_root), split


def refuse_other_task(files: Sequence[Path | None], recipe: Recipe, *, command: str) -> None:
    """Raise UsageError if predictions are known to be of another task than the recipe with which they are read.

    Args:
        files: the predictions that are scored, then others that they are compared with.
        command: the command that reads them, for the example of how to use their own recipe.
    """
    for file in filter(None, files):
        own = (read_meta(file).meta or {}).get("recipe")
        if isinstance(own, dict) and own.get("task") != recipe.task:
            again = f"{shlex.join(['clipbert', command, str(file)])} uses the recipe and the split of its own meta file"
            raise UsageError(
                f"{file}: these are predictions of task {own.get('task')} (recipe {own.get('name')}), but recipe "
                f"{recipe.name} has task {recipe.task}",
                hint=again if file is files[0] else f"compare predictions of the same split; {again}",
            )


def of_other_split(error: PredictionsError, predictions: Path, made: MadeBy, split: str) -> PredictionsError:
    """Return the error about predictions that do not fit a split; if they were made for another one, it says which."""
    own = (made.meta or {}).get("split")
    if not isinstance(own, str) or own == split:
        return error
    infer = ["clipbert", "infer", "--run", str((made.meta or {}).get("run")), "--split", split, "-o", "FILE"]
    again = shlex.join(["clipbert", "eval", str(predictions)])
    return PredictionsError(
        f"{predictions}: these are predictions of split {own}, and not of {split}",
        hint=f"to score them: {again}; to predict {split}: {shlex.join(infer)}",
    )


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
