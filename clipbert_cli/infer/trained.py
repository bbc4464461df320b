"""A trained run, opened for inference."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from clipbert_cli.build import Evaluation, Setup, build_task
from clipbert_cli.errors import RecipeError, UsageError
from clipbert_cli.infer.predict import Predictor
from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.recipe.declaring import Change
from clipbert_cli.recipe.load import load_recipe
from clipbert_cli.recipe.schema import Recipe
from clipbert_cli.recipe.settings import change_of, setting_of, with_inference_settings
from clipbert_cli.runs.export import load_model
from clipbert_cli.runs.folder import RunFolder
from clipbert_cli.runtime.distributed import World, start_world
from clipbert_cli.runtime.interrupts import Interrupts
from clipbert_cli.task.registry import ranking_task, task_class
from clipbert_cli.types import Prediction

# Called with the number of predictions that a batch has added.
Progress = Callable[[int], None]


@dataclass(frozen=True)
class RunSelection:
    """The choice of a run, its weights, and the settings that they are used with.

    Args:
        checkpoint: `best`, `latest` or `step_N`.
        weights: `plain`, `ema` (the moving average), or `auto` for those that validation scored.
        recipe: the recipe whose splits and inference settings are used; everything else is the run's own.
        overrides: settings `section.key=value`.
        data_root: the folder that relative paths of the recipe start from.
    """

    run: Path
    checkpoint: str = "best"
    weights: str = "auto"
    recipe: str | None = None
    overrides: Sequence[str] = field(default=())
    data_root: Path | None = None


@dataclass(frozen=True)
class TrainedRun:
    """A trained model and the setup that feeds it.

    Args:
        clip_scores: see `Predictor`.
    """

    setup: Setup
    model: ClipBert
    clip_scores: bool = False

    @property
    def predictor(self) -> Predictor:
        """The predict path with this model."""
        setup = self.setup
        return Predictor(
            self.model, setup.task, setup.precision, setup.recipe.infer, setup.world, clip_scores=self.clip_scores
        )

    def weights_checksum(self, start: int = 0) -> str:
        """Return eight hexadecimal digits of the weights, and of what `start` is the CRC-32 of."""
        digest = start
        for tensor in self.model.state_dict().values():
            digest = zlib.crc32(tensor.detach().cpu().contiguous().numpy().tobytes(), digest)
        return f"{digest:08x}"

    def for_ranking(self, purpose: str) -> TrainedRun:
        """Return this run with a task that scores every text with every media item.

        Raises:
            UsageError: no such task uses the run's model; `purpose` needs one.
        """
        own = self.setup.recipe
        name = ranking_task(own.task)
        if name is None:
            self.setup.task.require_ranking(purpose)
        recipe = own.model_copy(update={"task": name or own.task})
        return replace(self, setup=replace(self.setup, recipe=recipe, task=build_task(recipe, self.setup.answers)))

    def predict(self, evaluation: Evaluation, progress: Progress = lambda count: None) -> Iterator[Prediction]:
        """Yield the predictions of all processes; Ctrl-C stops between two parts of a batch."""
        with Interrupts() as interrupts:
            yield from self.predictor.run(evaluation, progress=progress, check_interrupts=interrupts.check)


def open_run(selection: RunSelection, world: World | None = None) -> TrainedRun:
    """Load a run's model.

    Args:
        world: the processes that predict together; default: this one, or those that its launcher started.

    Raises:
        ClipbertError: the run, the checkpoint or the recipe is missing or wrong.
    """
    folder, named = RunFolder.of_model(selection.run)
    if named and selection.checkpoint not in (named, "best"):
        raise UsageError(
            f"--run is checkpoint {named} of {folder.path}, and --checkpoint is {selection.checkpoint}",
            hint=f"leave --checkpoint out, or give --run {folder.path}",
        )
    recipe, other = selected_recipes(selection)
    model = load_model(folder, checkpoint=named or selection.checkpoint, weights=selection.weights)
    world = world or start_world()
    setup = Setup.for_run(recipe, folder, world)
    setup.refuse_other_model(model)
    if other:
        setup.refuse_other_answers(other)
    return TrainedRun(setup, model.to(world.device))


def selected_recipes(selection: RunSelection) -> tuple[Recipe, Recipe | None]:
    """Return the recipe that a run is used with, and the other one that a part of it comes from.

    Raises:
        ClipbertError: the run or a recipe is missing or wrong, or a setting has no effect.
    """
    folder, _ = RunFolder.of_model(selection.run)
    overrides, data_root = selection.overrides, selection.data_root
    _refuse_without_effect(overrides)
    if selection.recipe is None:
        return load_recipe(folder.recipe, overrides=overrides, data_root=data_root), None
    of_own = [each for each in overrides if change_of(_key(each)) & Change.AT_INFERENCE == Change.BY_SET]
    own = load_recipe(folder.recipe, overrides=of_own, data_root=data_root)
    of_other = [each for each in overrides if each not in of_own]
    other = load_recipe(selection.recipe, overrides=of_other, data_root=data_root)
    if other.task != own.task and own.task not in task_class(other.task).also_answers_runs_of:
        raise RecipeError(
            f"recipe {other.name} has task {other.task!r}, the run was trained for {own.task!r}",
            hint="name a recipe of the run's task",
        )
    # What was trained stays the run's own.
    return with_inference_settings(own, other), other


def _refuse_without_effect(overrides: Sequence[str]) -> None:
    """Raise UsageError for a setting that inference does not use."""
    for override in overrides:
        key = _key(override)
        if setting_of(key) and Change.BY_SET not in change_of(key):
            raise UsageError(
                f"--set {override} has no effect here: what was trained stays the run's own",
                hint="leave it out; settings of infer, data.splits, data.media and the like can be changed",
            )


def _key(override: str) -> str:
    return override.partition("=")[0].strip()
