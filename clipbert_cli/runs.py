"""Read first: a recipe becomes objects, the objects a run, a run predictions, predictions a score.

finetune  recipe ─► prepare_training ─► Training.run (training.py) ─► run folder
infer     run folder ─► open_run ─► predict_split | predict_media ─► predictions
eval      predictions + recipe ─► evaluate ─► metrics
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch.utils.data import Sampler

from clipbert_cli.batch import Example, Group
from clipbert_cli.data.annotations import Record, RecordError, group_by_media, listed, read_answers, read_examples
from clipbert_cli.data.collate import Collate
from clipbert_cli.data.dataset import GroupDataset, Position
from clipbert_cli.data.loader import BatchLoader
from clipbert_cli.data.order import OrderedBatches, TrainingBatches
from clipbert_cli.data.sampling import ClipSampling
from clipbert_cli.data.store import MediaSource, open_media
from clipbert_cli.data.tokenizer import Tokenizer
from clipbert_cli.engine.distributed import World, start_world
from clipbert_cli.engine.plan import Plan
from clipbert_cli.engine.resume import Resumption, find_resumption
from clipbert_cli.engine.run_folder import RunFolder
from clipbert_cli.errors import RecipeError, StoreError, UsageError
from clipbert_cli.model import ClipBert, LoadReport, load_weights
from clipbert_cli.model.weights import Part
from clipbert_cli.recipe.load import load_recipe, resolve
from clipbert_cli.recipe.schema import Recipe, WeightsConfig
from clipbert_cli.task.base import Task
from clipbert_cli.task.video_qa import OpenEndedQa
from clipbert_cli.training import Training

logger = logging.getLogger("clipbert")

TASKS = {"open_ended_qa": OpenEndedQa}


# ---------------------------------------------------------------------------------------------- recipe to objects


def build_task(recipe: Recipe, answers: Mapping[str, int] | None) -> Task:
    """The recipe's task. Without `answers` it reads and scores, but does not train or predict.

    Raises:
        RecipeError: no such task.
    """
    if recipe.task not in TASKS:
        raise RecipeError(f"task is {recipe.task!r}: it must be one of {', '.join(TASKS)}")
    return TASKS[recipe.task](recipe.objective, recipe.infer, answers)


def read_split(recipe: Recipe, split: str, parse: Callable[[Record], Example]) -> list[Example]:
    """The checked examples of one split.

    Raises:
        UsageError: the recipe has no such split.
        AnnotationError: the file is missing or has bad records.
    """
    if split not in recipe.data.splits:
        known = ", ".join(recipe.data.splits) or "none"
        raise UsageError(
            f"recipe {recipe.name} has no split {split!r}; it has {known}",
            hint=f"add data.splits.{split} to the recipe, or name another split",
        )
    return read_examples(resolve(recipe, recipe.data.splits[split].annotations), parse)


def with_target(example: Example) -> Example:
    """The example, if it can be scored. Raises RecordError."""
    if example.target is None:
        raise RecordError("the record has no answer: validation needs one in every record")
    return example


def open_split_media(recipe: Recipe, split: str, examples: Sequence[Example]) -> MediaSource:
    """The media of one split, checked to hold every example's item.

    Raises:
        StoreError: no such store, or media ids that are not in it.
    """
    source = open_media(resolve(recipe, recipe.data.splits[split].media), kind=recipe.data.media)
    missing = source.missing(example.media_id for example in examples)
    if missing:
        raise StoreError(
            f"{source.path} lacks {len(missing)} {recipe.data.media}s that split {split!r} needs:\n"
            + listed([f"  {media_id}" for media_id in missing]),
            hint="pack the missing files, or take their records out of the annotations",
        )
    if source.kind == "video" and not source.indexed:
        logger.warning(
            "%s has no index: each video is decoded once more on first use (clipbert pack writes an index)", source.path
        )
    return source


def build_model(recipe: Recipe, task: Task, tokenizer: Tokenizer) -> tuple[ClipBert, list[LoadReport]]:
    """The model at its starting weights, and what was loaded into it.

    Raises:
        RecipeError: the tokenizer's vocabulary is not the model's.
        WeightsError: weights that are missing or do not fit.
    """
    if len(tokenizer) != recipe.model.bert.vocab_size:
        raise RecipeError(
            f"model.bert.vocab_size is {recipe.model.bert.vocab_size}: {tokenizer.vocabulary_file} "
            f"has {len(tokenizer)} entries",
            hint="make them equal",
        )
    torch.manual_seed(recipe.seed)
    model = ClipBert(recipe.model, task.head())
    weights = recipe.model.weights
    sources: dict[Part, str | None] = {"all": weights.checkpoint, "bert": weights.bert, "cnn": weights.cnn}
    reports = [load_weights(model, resolve(recipe, path), parts=parts) for parts, path in sources.items() if path]
    return model, reports


def training_loader(
    recipe: Recipe,
    task: Task,
    examples: Sequence[Example],
    source: MediaSource,
    tokenizer: Tokenizer,
    *,
    world: World,
    resumption: Resumption | None,
) -> tuple[Plan, BatchLoader]:
    """How long training runs, and this process's batches: shuffled anew each epoch, clips as `data` says."""
    data = recipe.data
    groups = group_by_media(examples, max_examples=data.max_examples_per_group)
    plan = Plan.make(
        recipe.train,
        groups=len(groups),
        processes=world.size,
        global_batch=resumption.global_batch if resumption else None,
    )
    order = TrainingBatches(
        len(groups),
        batch_size=recipe.train.batch_size,
        epochs=plan.epochs,
        seed=recipe.seed,
        global_batch=plan.cut.global_batch,
        shard=world.shard,
        after=resumption.step if resumption else 0,
    )
    sampling = ClipSampling(strategy=data.sampling, num_clips=data.num_clips, num_frames=data.num_frames, fps=data.fps)
    return plan, build_loader(
        recipe, groups, source, sampling, Collate(tokenizer, task.collate_targets), order, world=world
    )


def evaluation_loader(
    recipe: Recipe, examples: Sequence[Example], source: MediaSource, tokenizer: Tokenizer, *, world: World
) -> BatchLoader:
    """This process's share of the examples, media item by media item, clips as `infer` says.

    How examples are grouped changes speed and memory, never a prediction.
    """
    infer = recipe.infer
    groups = group_by_media(examples, max_examples=infer.max_examples_per_group)
    sampling = ClipSampling(
        strategy=infer.sampling,
        num_clips=infer.num_clips,
        num_frames=infer.num_frames or recipe.data.num_frames,
        fps=recipe.data.fps,
        safeguard=True,
    )
    order = OrderedBatches(len(groups), batch_size=infer.batch_size, shard=world.shard)
    return build_loader(recipe, groups, source, sampling, Collate(tokenizer, None), order, world=world)


def build_loader(
    recipe: Recipe,
    groups: Sequence[Group],
    source: MediaSource,
    sampling: ClipSampling,
    collate: Collate,
    order: Sampler[list[Position]],
    *,
    world: World,
) -> BatchLoader:
    """Batches of `groups` in the order given."""
    data = recipe.data
    dataset = GroupDataset(
        groups,
        source,
        sampling=sampling,
        frame_size=data.frame_size,
        seed=recipe.seed,
        black_frames=data.black_frames,
    )
    return BatchLoader(dataset, collate, order, workers=data.workers, pin_memory=world.device.type == "cuda")


# ---------------------------------------------------------------------------------------------- finetune


def prepare_training(recipe: Recipe, run: Path, *, world: World | None = None, resume: bool = False) -> Training:
    """Read and check everything a run needs; nothing is written.

    Args:
        world: the processes that train together; default: this one, or those that its launcher started.
        resume: go on with the run that is there.

    Raises:
        ClipbertError: whatever of the recipe's files, media or weights is missing or wrong.
    """
    begin = time.monotonic()
    world = world or start_world()
    folder = RunFolder.existing(run) if resume else RunFolder.absent(run)
    resumption = None
    if resume:
        own = load_recipe(folder.recipe)
        resumption = world.main_first(lambda: find_resumption(folder, own=own, given=recipe))
    if recipe.data.answers is None:
        raise RecipeError("data.answers is null: it must name the answer vocabulary", hint="set data.answers")
    root = str(resolve(recipe, ".").absolute())  # the run's own recipe works from any folder
    answers = read_answers(resolve(recipe, recipe.data.answers))
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"root": root})})
    task = build_task(recipe, answers)
    train_examples = read_split(recipe, "train", task.parse_training)
    val_examples = read_split(recipe, "val", lambda record: with_target(task.parse(record)))
    train_media = open_split_media(recipe, "train", train_examples)
    val_media = open_split_media(recipe, "val", val_examples)
    tokenizer = Tokenizer(resolve(recipe, recipe.model.tokenizer), max_length=recipe.data.max_text_length)
    started = resumption is not None and resumption.checkpoint is not None
    model, reports = build_model(without_weights(recipe) if started else recipe, task, tokenizer)
    plan, train_loader = training_loader(
        recipe, task, train_examples, train_media, tokenizer, world=world, resumption=resumption
    )
    return Training(
        recipe=recipe,
        folder=folder,
        resumption=resumption,
        task=task,
        answers=answers,
        model=model,
        reports=reports,
        tokenizer=tokenizer,
        world=world,
        plan=plan,
        train_loader=train_loader,
        val_loader=evaluation_loader(recipe, val_examples, val_media, tokenizer, world=world),
        val_examples=val_examples,
        begin=begin,
    )


def without_weights(recipe: Recipe) -> Recipe:
    """The recipe with random starting weights: a run that goes on has its own."""
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"weights": WeightsConfig()})})
