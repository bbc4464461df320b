"""A run becomes predictions: `clipbert infer`, for a split or for single files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipbert_cli.batch import Example, Prediction
from clipbert_cli.data.annotations import read_answers
from clipbert_cli.data.probe import Kind
from clipbert_cli.data.store import MediaFolder, MediaSource
from clipbert_cli.data.tokenizer import Tokenizer
from clipbert_cli.engine.distributed import World, start_world
from clipbert_cli.engine.interrupts import Interrupts
from clipbert_cli.engine.precision import Precision
from clipbert_cli.engine.predict import predict
from clipbert_cli.engine.run_folder import RunFolder
from clipbert_cli.errors import RecipeError, UsageError
from clipbert_cli.model import ClipBert
from clipbert_cli.recipe.load import load_recipe
from clipbert_cli.recipe.schema import Recipe
from clipbert_cli.runs import build_task, evaluation_loader, open_split_media, read_split
from clipbert_cli.task.base import Task


@dataclass(frozen=True)
class LoadedRun:
    """A trained model and what it needs to answer."""

    recipe: Recipe
    task: Task
    model: ClipBert
    tokenizer: Tokenizer
    world: World

    def predict(
        self, examples: Sequence[Example], source: MediaSource, progress: Callable[[int], None]
    ) -> Iterator[Prediction]:
        """One prediction per example, media item by media item."""
        loader = evaluation_loader(self.recipe, examples, source, self.tokenizer, world=self.world)
        precision = Precision.choose(self.recipe.train.precision, self.world.device)
        with Interrupts() as interrupts:

            def after_batch(count: int) -> None:
                progress(count)
                interrupts.check()

            yield from predict(
                self.model, loader, self.task, world=self.world, precision=precision, progress=after_batch
            )


def open_run(
    run: Path,
    *,
    checkpoint: str = "best",
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    data_root: Path | None = None,
    device: str | None = None,
) -> LoadedRun:
    """Load a run's model.

    Args:
        checkpoint: `best`, `latest` or `step_N`.
        recipe: whose splits and inference settings are taken; everything else stays the run's.

    Raises:
        ClipbertError: the run, the checkpoint or the recipe is missing or wrong.
    """
    folder = RunFolder.existing(run)
    weights = folder.checkpoint(checkpoint)
    world = start_world(device)
    settings = load_recipe(folder.recipe, overrides=() if recipe else overrides, data_root=data_root)
    if recipe:
        settings = with_other_data(settings, load_recipe(recipe, overrides=overrides, data_root=data_root))
    task = build_task(settings, read_answers(folder.answers))
    return LoadedRun(
        recipe=settings,
        task=task,
        model=ClipBert.from_pretrained(weights).to(world.device),
        tokenizer=Tokenizer(folder.vocabulary, max_length=settings.data.max_text_length),
        world=world,
    )


def with_other_data(own: Recipe, other: Recipe) -> Recipe:
    """The run's own recipe with the splits and the inference settings of another; what was trained stays.

    Raises:
        RecipeError: the other recipe is of another task.
    """
    if other.task != own.task:
        raise RecipeError(f"recipe {other.name} has task {other.task!r}, the run was trained for {own.task!r}")
    names = ("root", "splits", "media", "workers", "black_frames", "on_bad_media", "max_pixels", "exif_rotation")
    taken = {name: getattr(other.data, name) for name in names}
    return own.model_copy(update={"data": own.data.model_copy(update=taken), "infer": other.infer})


@dataclass(frozen=True)
class Answering:
    """Predictions to come, and how many."""

    total: int
    predictions: Iterator[Prediction]


def predict_split(loaded: LoadedRun, split: str, progress: Callable[[int], None]) -> Answering:
    """Predictions for every example of a split, media item by media item."""
    examples = read_split(loaded.recipe, split, loaded.task.parse)
    source = open_split_media(loaded.recipe, split, examples)
    return Answering(len(examples), loaded.predict(examples, source, progress))


def predict_media(
    loaded: LoadedRun, files: Sequence[Path], texts: Sequence[str], *, kind: Kind, progress: Callable[[int], None]
) -> Answering:
    """Predictions for every text on every media file, without a store or annotations; the path is the media id.

    Raises:
        UsageError: a file does not exist.
    """
    if absent := [str(file) for file in files if not file.is_file()]:
        raise UsageError(f"no such {kind} file: {', '.join(absent)}")
    examples = [
        Example(example_id=f"{file}#{number}", media_id=str(file), texts=(text,))
        for file in dict.fromkeys(files)
        for number, text in enumerate(texts)
    ]
    source = MediaFolder(Path("."), kind=kind, files={str(file): file for file in files})
    # A person who asks about one file wants to know at once what is wrong with it.
    data = loaded.recipe.data.model_copy(update={"on_bad_media": "error"})
    loaded = dataclasses.replace(loaded, recipe=loaded.recipe.model_copy(update={"data": data}))
    return Answering(len(examples), loaded.predict(examples, source, progress))
