"""Predictions of a trained run, for a split or for single files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipbert_cli.build import Evaluation, build_task, evaluation, open_split_media, read_split
from clipbert_cli.errors import RecipeError, UsageError
from clipbert_cli.infer.predict import predict, predict_batches
from clipbert_cli.model import ClipBert
from clipbert_cli.recipe.load import load_recipe
from clipbert_cli.recipe.schema import Recipe
from clipbert_cli.runs.export import load_model
from clipbert_cli.runs.folder import RunFolder
from clipbert_cli.runtime.distributed import World, start_world
from clipbert_cli.runtime.interrupts import STOP_SIGNALS, Interrupts
from clipbert_cli.runtime.precision import Precision
from clipbert_cli.store.source import MediaFolder, MediaSource
from clipbert_cli.task.base import Task
from clipbert_cli.task.registry import task_class
from clipbert_cli.text.annotations import read_answers
from clipbert_cli.text.tokenizer import Tokenizer
from clipbert_cli.types import Example, Kind, Prediction

# Of another recipe's `data`.
TAKEN = (
    *("root", "splits", "fields", "media", "workers", "decoder", "black_frames"),
    *("on_bad_media", "max_pixels", "exif_rotation"),
)

Progress = Callable[[int], None]


@dataclass(frozen=True)
class LoadedRun:
    """A trained model and what it needs to answer."""

    recipe: Recipe
    task: Task
    model: ClipBert
    tokenizer: Tokenizer
    world: World

    def evaluation(
        self,
        examples: Sequence[Example],
        source: MediaSource,
        media_ids: Sequence[str] = (),
        *,
        done: Collection[int] = frozenset(),
    ) -> Evaluation:
        """What the model is to answer; numbers of batches that are `done` are left out."""
        return evaluation(
            self.recipe, self.task, examples, source, self.tokenizer, world=self.world, media_ids=media_ids, done=done
        )

    def predict(self, questions: Evaluation, progress: Progress) -> Iterator[Prediction]:
        """Its answers, media item by media item; every process yields those of all."""
        with Interrupts() as interrupts:
            yield from predict(
                self.model,
                questions.batches,
                self.task,
                world=self.world,
                precision=self.precision,
                shared=questions.shared,
                text_rows=self.recipe.infer.text_rows,
                compiled=self.recipe.infer.compile,
                progress=progress,
                alive=interrupts.check,
            )

    def predict_own(self, questions: Evaluation, progress: Progress) -> Iterator[Sequence[Prediction]]:
        """This process's answers, batch by batch."""
        with Interrupts(STOP_SIGNALS) as interrupts:
            yield from predict_batches(
                self.model,
                questions.batches,
                self.task,
                device=self.world.device,
                precision=self.precision,
                shared=questions.shared,
                text_rows=self.recipe.infer.text_rows,
                compiled=self.recipe.infer.compile,
                progress=progress,
                alive=interrupts.check,
            )

    @property
    def precision(self) -> Precision:
        """The training's, as far as the device has it."""
        return Precision.choose(self.recipe.train.precision, self.world.device)


def open_run(
    run: Path,
    *,
    checkpoint: str = "best",
    weights: str = "auto",
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    data_root: Path | None = None,
    world: World | None = None,
) -> LoadedRun:
    """Load a run's model.

    Args:
        checkpoint: `best`, `latest` or `step_N`.
        weights: `plain`, `ema` (the moving average), or `auto` for those that validation scored.
        world: the processes that answer together; default: this one, or those that its launcher started.
        recipe: whose splits and inference settings are taken; everything else stays the run's.

    Raises:
        ClipbertError: the run, the checkpoint or the recipe is missing or wrong.
    """
    folder = RunFolder.existing(run)
    model = load_model(folder, checkpoint=checkpoint, weights=weights)
    world = world or start_world()
    settings = load_recipe(folder.recipe, overrides=() if recipe else overrides, data_root=data_root)
    if recipe:
        _refuse_without_effect(overrides)
        settings = with_other_data(settings, load_recipe(recipe, overrides=overrides, data_root=data_root))
    answers = read_answers(folder.answers) if task_class(settings.task).needs_answers else None
    return LoadedRun(
        recipe=settings,
        task=build_task(settings, answers),
        model=model.to(world.device),
        tokenizer=Tokenizer(folder.vocabulary, max_length=settings.data.max_text_length),
        world=world,
    )


def with_other_data(own: Recipe, other: Recipe) -> Recipe:
    """The run's own recipe with the task, the splits and the inference settings of another; what was trained stays.

    Raises:
        RecipeError: the other recipe's task cannot use the run's model.
    """
    if other.task != own.task and own.task not in task_class(other.task).also_answers_runs_of:
        raise RecipeError(
            f"recipe {other.name} has task {other.task!r}, the run was trained for {own.task!r}",
            hint="name a recipe of the run's task",
        )
    taken = {name: getattr(other.data, name) for name in TAKEN}
    objective = own.objective.model_copy(update={"num_options": other.objective.num_options})
    return own.model_copy(
        update={
            "task": other.task,
            "data": own.data.model_copy(update=taken),
            "objective": objective,
            "infer": other.infer,
        }
    )


def _refuse_without_effect(overrides: Sequence[str]) -> None:
    """Raise UsageError for a setting that `with_other_data` does not take."""
    taken = ("infer.", "objective.num_options", *(f"data.{name}" for name in TAKEN))
    for override in overrides:
        if not override.strip().startswith(taken):
            raise UsageError(
                f"--set {override}: with --recipe it has no effect, what was trained stays the run's own",
                hint="leave it out; settings of infer, data.splits, data.media and the like can be changed",
            )


@dataclass(frozen=True)
class Answering:
    """Predictions to come, and how many."""

    total: int
    predictions: Iterator[Prediction]


def predict_split(loaded: LoadedRun, split: str, progress: Progress) -> Answering:
    """Predictions for every example of a split (of a retrieval run: for every media item), media item by media item."""
    examples = read_split(loaded.recipe, split, loaded.task)
    source = open_split_media(loaded.recipe, split, examples)
    questions = loaded.evaluation(examples, source)
    return Answering(questions.total, loaded.predict(questions, progress))


def predict_media(
    loaded: LoadedRun,
    files: Sequence[Path],
    texts: Sequence[str],
    *,
    options: Sequence[str] = (),
    kind: Kind,
    progress: Progress,
) -> Answering:
    """Predictions for every text on every media file, without a store or annotations; the path is the media id.

    Raises:
        UsageError: a file does not exist, or the run's task takes no such questions.
    """
    if absent := [str(file) for file in files if not file.is_file()]:
        raise UsageError(f"no such {kind} file: {', '.join(absent)}")
    if loaded.task.every_pair:
        raise UsageError(
            f"the run's task is {loaded.recipe.task}: it finds media by text", hint="give --text and --videos"
        )
    examples = [
        loaded.task.ask(f"{file}#{number}", str(file), text, options)
        for file in dict.fromkeys(files)
        for number, text in enumerate(texts)
    ]
    source = MediaFolder(Path("."), kind=kind, files={str(file): file for file in files})
    # A person who asks about one file wants to know at once what is wrong with it.
    data = loaded.recipe.data.model_copy(update={"on_bad_media": "error"})
    loaded = dataclasses.replace(loaded, recipe=loaded.recipe.model_copy(update={"data": data}))
    questions = loaded.evaluation(examples, source)
    return Answering(questions.total, loaded.predict(questions, progress))
