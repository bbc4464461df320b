"""Read first: a recipe becomes objects, the objects a run, a run predictions, predictions a score.

finetune  recipe ─► prepare_training ─► Training.run (train/session.py) ─► run folder
infer     run folder ─► open_run ─► predict_split | predict_media (infer/trained.py) ─► predictions
          of retrieval also        SplitScoring | search (infer/ranking.py) ─► scores
eval      predictions + recipe ─► evaluate ─► metrics
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Sampler

from clipbert_cli.errors import RecipeError, StoreError, UsageError
from clipbert_cli.loading.collate import Collate
from clipbert_cli.loading.dataset import GroupDataset, MediaSettings, OnBadMedia, Position
from clipbert_cli.loading.loader import BatchLoader
from clipbert_cli.loading.mixture import MixedDataset
from clipbert_cli.loading.order import OrderedBatches
from clipbert_cli.media.backend import choose_decoder
from clipbert_cli.media.sampling import ClipSampling
from clipbert_cli.model import ClipBert, LoadReport, load_weights
from clipbert_cli.model.weights.load import Part
from clipbert_cli.recipe.load import resolve
from clipbert_cli.recipe.schema import Recipe
from clipbert_cli.runtime.distributed import World
from clipbert_cli.store.lmdb_store import open_media
from clipbert_cli.store.source import MediaFolder, MediaSource
from clipbert_cli.task.base import Draw, Task
from clipbert_cli.task.registry import task_class
from clipbert_cli.text.annotations import FIELDS, Record, group_by_media, listed, read_answers, read_examples
from clipbert_cli.text.tokenizer import Tokenizer
from clipbert_cli.types import Example, Group, Texts

logger = logging.getLogger("clipbert")


# ---------------------------------------------------------------------------------------------- recipe to objects


def build_task(recipe: Recipe, answers: Mapping[str, int] | None = None) -> Task:
    """The recipe's task. Without `answers` it reads and scores; a task that needs them then does not train or predict.

    Raises:
        RecipeError: no such task.
    """
    return task_class(recipe.task)(recipe.objective, recipe.infer, answers)


def read_vocabulary(recipe: Recipe) -> dict[str, int] | None:
    """The recipe's answers, where its task needs them.

    Raises:
        RecipeError: the task needs them and the recipe names none, or the other way round.
        AnnotationError: the file is missing or wrong.
    """
    needed, named = task_class(recipe.task).needs_answers, recipe.data.answers
    if needed and named is None:
        raise RecipeError(
            f"data.answers is null: task {recipe.task} needs an answer vocabulary", hint="set data.answers"
        )
    if named is not None and not needed:
        raise RecipeError(
            f"data.answers is {named!r}: task {recipe.task} has no answer vocabulary", hint="leave it out"
        )
    return None if named is None else read_answers(resolve(recipe, named))


def read_split(
    recipe: Recipe, split: str, task: Task, check: Callable[[Example], None] = lambda example: None
) -> list[Example]:
    """The checked examples of one split.

    Args:
        check: raises RecordError where an example is not fit for its purpose.

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
    for neutral, own in recipe.data.fields.items():
        if neutral not in FIELDS:
            raise RecipeError(f"data.fields.{neutral} is {own!r}: the neutral names are {', '.join(FIELDS)}")

    def parse(record: Record) -> Example:
        example = task.parse(record)
        check(example)
        return example

    return read_examples(resolve(recipe, recipe.data.splits[split].annotations), parse, names=recipe.data.fields)


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
    if source.kind == "video" and not source.has_records:
        folder = isinstance(source, MediaFolder)
        logger.warning(
            "%s %s: each video is decoded once more on first use (%s)",
            source.path,
            "is a folder of files" if folder else "has no media records",
            "clipbert pack makes a store of it" if folder else f"add them: clipbert store scan {source.path}",
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
    sources: dict[Part, str | None] = {
        "all": weights.checkpoint,
        "bert": weights.bert,
        "cnn": recipe.model.visual.weights,
    }
    reports = [load_weights(model, resolve(recipe, path), parts=parts) for parts, path in sources.items() if path]
    return model, reports


def evaluation(
    recipe: Recipe,
    task: Task,
    examples: Sequence[Example],
    source: MediaSource,
    tokenizer: Tokenizer,
    *,
    world: World,
    media_ids: Sequence[str] = (),
    done: Collection[int] = frozenset(),
) -> Evaluation:
    """This process's share of the examples, media item by media item, clips as `infer` says; or of the media, where
    every text meets every item.

    How examples are grouped changes speed and memory, never a prediction. Bad media are never replaced or left out:
    unless `data.on_bad_media` says `error`, the batch reports them.

    Args:
        media_ids: media beside those of the examples, where every text meets every item.
        done: numbers of batches that are left out.
    """
    infer = recipe.infer
    sampling = ClipSampling(
        strategy=infer.single_clip if (infer.sampling, infer.num_clips) == ("clips", 1) else infer.sampling,
        num_clips=infer.num_clips,
        num_frames=infer.num_frames or recipe.data.num_frames,
        fps=recipe.data.fps,
        safeguard=True,
    )
    texts = functools.partial(task.collate, tokenizer=tokenizer, labelled=False)
    shared, draw = None, None
    if task.every_pair:
        gallery = dict.fromkeys([*(example.media_id for example in examples if example.media_id), *media_ids])
        groups = [Group(media_id, ()) for media_id in gallery]
        shared = SharedTexts(tuple(examples), texts(examples))
    else:
        groups = group_by_media(examples, max_examples=infer.max_examples_per_group)
        draw = task.draw(groups, training=False)
    on_bad_media: OnBadMedia = "error" if recipe.data.on_bad_media == "error" else "report"
    dataset = group_dataset(recipe, groups, source, sampling, draw, on_bad_media=on_bad_media, world=world)
    order = OrderedBatches(len(groups), batch_size=infer.batch_size, shard=world.shard, done=done)
    batches = batch_loader(recipe, dataset, texts, order, world=world)
    return Evaluation(batches, shared, len(groups) if shared else len(examples))


def group_dataset(
    recipe: Recipe,
    groups: Sequence[Group],
    source: MediaSource,
    sampling: ClipSampling,
    draw: Draw | None,
    *,
    on_bad_media: OnBadMedia,
    world: World,
) -> GroupDataset:
    """The groups with their clips.

    Raises:
        RecipeError: `data.decoder` asks for what is not here.
    """
    settings = MediaSettings(
        sampling,
        frame_size=recipe.data.frame_size,
        max_pixels=recipe.data.max_pixels,
        exif_rotation=recipe.data.exif_rotation,
        black_frames=recipe.data.black_frames,
        decoder=choose_decoder(recipe.data.decoder, world.device, source.kind),
    )
    return GroupDataset(groups, source, settings, seed=recipe.seed, on_bad_media=on_bad_media, draw=draw)


def batch_loader(
    recipe: Recipe,
    dataset: GroupDataset | MixedDataset,
    texts: Callable[[Sequence[Example]], Texts],
    order: Sampler[list[Position]],
    *,
    world: World,
) -> BatchLoader:
    """Batches of the dataset in the order given."""
    return BatchLoader(
        dataset,
        Collate(texts),
        order,
        workers=recipe.data.workers,
        pin_memory=world.device.type == "cuda",
        max_bad_fraction=recipe.data.max_bad_fraction,
    )


# ---------------------------------------------------------------------------------------------- finetune


Wanted = Callable[[Sequence[str]], Tensor]
"""Media ids of B items -> (B, N) bool: which texts are scored with them."""


@dataclass(frozen=True)
class SharedTexts:
    """The texts of a split that every media item is scored with, in the order of `examples`.

    Args:
        wanted: default: every text with every item. What is not wanted has logits of 0.
    """

    examples: tuple[Example, ...]
    texts: Texts
    wanted: Wanted | None = None


@dataclass(frozen=True)
class Evaluation:
    """Batches to predict, the texts that all their media meet (of some tasks), and how many predictions come."""

    batches: BatchLoader
    shared: SharedTexts | None
    total: int
