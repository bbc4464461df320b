"""Prepare a training run: read and check everything it needs, and write nothing."""

from __future__ import annotations

import functools
import time
from pathlib import Path

from clipbert_cli.build import (
    batch_loader,
    build_model,
    build_task,
    evaluation,
    group_dataset,
    open_split_media,
    read_split,
    read_vocabulary,
)
from clipbert_cli.loading.loader import BatchLoader
from clipbert_cli.loading.mixture import MixedDataset, Mixture
from clipbert_cli.loading.order import TrainingBatches
from clipbert_cli.media.sampling import ClipSampling
from clipbert_cli.recipe.load import load_recipe, resolve
from clipbert_cli.recipe.schema import Recipe, WeightsConfig
from clipbert_cli.runs.folder import RunFolder
from clipbert_cli.runtime.distributed import World, start_world
from clipbert_cli.task.base import Task
from clipbert_cli.text.annotations import group_by_media
from clipbert_cli.text.tokenizer import Tokenizer
from clipbert_cli.train.plan import Plan
from clipbert_cli.train.resume import Resumption, find_resumption
from clipbert_cli.train.session import Training
from clipbert_cli.types import Group


def training_loader(
    recipe: Recipe, task: Task, tokenizer: Tokenizer, *, world: World, resumption: Resumption | None
) -> tuple[Plan, list[Group], BatchLoader]:
    """How long training runs, its groups, and this process's batches: shuffled anew each epoch, clips as `data` says.

    Raises:
        ClipbertError: what is missing or wrong in a split's annotations or media.
    """
    data = recipe.data
    sampling = ClipSampling(strategy=data.sampling, num_clips=data.num_clips, num_frames=data.num_frames, fps=data.fps)
    parts, all_groups = [], []
    for split in data.train_splits:
        examples = read_split(recipe, split, task, task.check_training)
        source = open_split_media(recipe, split, examples)
        groups = group_by_media(examples, max_examples=data.max_examples_per_group)
        all_groups += groups
        draw = task.draw(groups, training=True)
        parts.append(group_dataset(recipe, groups, source, sampling, draw, on_bad_media=data.on_bad_media, world=world))
    begun = resumption.global_batch if resumption else None  # with however many processes
    step_size = begun or recipe.train.batch_size * recipe.train.gradient_accumulation_steps * world.size
    mixture = Mixture([len(part) for part in parts], step_size, data.train_ratios)
    plan = Plan.make(recipe.train, groups=len(mixture), global_batch=step_size)
    order = TrainingBatches(
        mixture,
        batch_size=recipe.train.batch_size,
        epochs=plan.epochs,
        seed=recipe.seed,
        shard=world.shard,
        after=resumption.step if resumption else 0,
    )
    texts = functools.partial(task.collate, tokenizer=tokenizer, labelled=True)
    return plan, all_groups, batch_loader(recipe, MixedDataset(parts), texts, order, world=world)


def prepare_training(
    recipe: Recipe, run: Path, *, world: World | None = None, resume: bool = False, must_be_new: bool = True
) -> Training:
    """Read and check everything a run needs; nothing is written.

    Args:
        world: the processes that train together; default: this one, or those that its launcher started.
        resume: go on with the run that is there.
        must_be_new: the run will be kept in its folder; what only looks at a training may do so beside a run.

    Raises:
        ClipbertError: whatever of the recipe's files, media or weights is missing or wrong.
    """
    begin = time.monotonic()
    world = world or start_world()
    folder = RunFolder.existing(run) if resume else RunFolder.absent(run) if must_be_new else RunFolder(run)
    resumption = None
    if resume:
        own = load_recipe(folder.recipe)
        resumption = world.main_first(lambda: find_resumption(folder, own=own, given=recipe))
    root = str(resolve(recipe, ".").absolute())  # the run's own recipe works from any folder
    answers = read_vocabulary(recipe)
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"root": root})})
    task = build_task(recipe, answers)
    tokenizer = Tokenizer(resolve(recipe, recipe.model.tokenizer), max_length=recipe.data.max_text_length)
    plan, groups, train_loader = training_loader(recipe, task, tokenizer, world=world, resumption=resumption)
    val_examples = read_split(recipe, "val", task, task.check_truth)
    val_media = open_split_media(recipe, "val", val_examples)
    has_weights = resumption is not None and resumption.checkpoint is not None
    model, reports = build_model(without_weights(recipe) if has_weights else recipe, task, tokenizer)
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
        groups=groups,
        train_loader=train_loader,
        validation=evaluation(recipe, task, val_examples, val_media, tokenizer, world=world),
        val_examples=val_examples,
        begin=begin,
    )


def without_weights(recipe: Recipe) -> Recipe:
    """The recipe with random starting weights: a run that goes on has its own."""
    visual = recipe.model.visual.model_copy(update={"weights": None})
    model = recipe.model.model_copy(update={"weights": WeightsConfig(), "visual": visual})
    return recipe.model_copy(update={"model": model})
