"""Read first: a recipe becomes objects, the objects a run, a run predictions, predictions a score.

finetune  recipe ─► prepare_training ─► Training.run ─► run folder
infer     run folder ─► open_run ─► predict_split | predict_media ─► predictions
eval      predictions + recipe ─► evaluate ─► metrics
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Sampler

from clipbert_cli.batch import Example, Group, Texts
from clipbert_cli.data.annotations import FIELDS, Record, group_by_media, listed, read_answers, read_examples
from clipbert_cli.data.collate import Collate
from clipbert_cli.data.dataset import GroupDataset, MediaSettings, OnBadMedia, Position
from clipbert_cli.data.loader import BatchLoader, OrderedBatches, TrainingBatches
from clipbert_cli.data.mixture import MixedDataset, Mixture
from clipbert_cli.data.sampling import ClipSampling
from clipbert_cli.data.store import MediaSource, open_media
from clipbert_cli.data.tokenizer import Tokenizer
from clipbert_cli.engine.checkpoint import mark_best, remove_old_checkpoints, save_checkpoint
from clipbert_cli.engine.distributed import World, start_world
from clipbert_cli.engine.interrupts import Interrupts
from clipbert_cli.engine.logging import JsonLines, Sink, TensorBoard
from clipbert_cli.engine.precision import Precision
from clipbert_cli.engine.predict import SharedTexts, predict
from clipbert_cli.engine.run_folder import RunFolder
from clipbert_cli.engine.train import Plan, train
from clipbert_cli.errors import RecipeError, StoreError, UsageError
from clipbert_cli.model import ClipBert, LoadReport, load_weights
from clipbert_cli.model.weights import Part
from clipbert_cli.recipe.load import dump_recipe, resolve
from clipbert_cli.recipe.schema import Recipe
from clipbert_cli.task.base import Draw, Task
from clipbert_cli.task.registry import task_class

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
    if source.kind == "video" and not source.indexed:
        logger.warning(
            "%s has no index: each video is decoded once more on first use (add one: clipbert pack index %s)",
            source.path,
            source.path,
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


def training_loader(recipe: Recipe, task: Task, tokenizer: Tokenizer, *, world: World) -> tuple[Plan, BatchLoader]:
    """How long training runs, and its batches: shuffled anew each epoch, clips as `data` says.

    Raises:
        ClipbertError: what is missing or wrong in a split's annotations or media.
    """
    data = recipe.data
    sampling = ClipSampling(strategy=data.sampling, num_clips=data.num_clips, num_frames=data.num_frames, fps=data.fps)
    parts = []
    for split in data.train_splits:
        examples = read_split(recipe, split, task, task.check_training)
        source = open_split_media(recipe, split, examples)
        groups = group_by_media(examples, max_examples=data.max_examples_per_group)
        draw = task.draw(groups, training=True)
        parts.append(group_dataset(recipe, groups, source, sampling, draw, on_bad_media=data.on_bad_media))
    step_size = recipe.train.batch_size * recipe.train.gradient_accumulation_steps * world.size
    mixture = Mixture([len(part) for part in parts], step_size, data.train_ratios)
    plan = Plan.make(recipe.train, groups=len(mixture))
    order = TrainingBatches(mixture, batch_size=recipe.train.batch_size, epochs=plan.epochs, seed=recipe.seed)
    texts = functools.partial(task.collate, tokenizer=tokenizer, labelled=True)
    return plan, batch_loader(recipe, MixedDataset(parts), texts, order, world=world)


@dataclass(frozen=True)
class Evaluation:
    """Batches to predict, the texts that all their media meet (of some tasks), and how many predictions come."""

    batches: BatchLoader
    shared: SharedTexts | None
    total: int


def evaluation(
    recipe: Recipe,
    task: Task,
    examples: Sequence[Example],
    source: MediaSource,
    tokenizer: Tokenizer,
    *,
    world: World,
    media_ids: Sequence[str] = (),
) -> Evaluation:
    """Every example once, media item by media item, clips as `infer` says; or every text with every media item.

    How examples are grouped changes speed and memory, never a prediction. Bad media are never replaced or left out:
    unless `data.on_bad_media` says `error`, the batch reports them.

    Args:
        media_ids: media beside those of the examples, where every text meets every item.
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
    dataset = group_dataset(recipe, groups, source, sampling, draw, on_bad_media=on_bad_media)
    order = OrderedBatches(len(groups), batch_size=infer.batch_size)
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
) -> GroupDataset:
    """The groups with their clips."""
    settings = MediaSettings(
        sampling,
        frame_size=recipe.data.frame_size,
        max_pixels=recipe.data.max_pixels,
        exif_rotation=recipe.data.exif_rotation,
        black_frames=recipe.data.black_frames,
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


@dataclass
class Training:
    """Everything of a run, checked and ready to start."""

    recipe: Recipe
    folder: RunFolder
    task: Task
    answers: Mapping[str, int] | None
    model: ClipBert
    reports: list[LoadReport]
    tokenizer: Tokenizer
    world: World
    plan: Plan
    train_loader: BatchLoader
    validation: Evaluation
    val_examples: list[Example]
    best: dict[str, Any] = field(default_factory=dict)
    last: dict[str, Any] = field(default_factory=dict)

    def describe(self) -> str:
        """What will run, for the person, before it runs."""
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        trained = sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad)
        precision = Precision.choose(self.recipe.train.precision, self.world.device).name
        train_size = len(self.train_loader.dataset)
        return "\n".join(
            [
                *(report.summary() for report in self.reports),
                f"model      {parameters:,} parameters, {trained:,} trained",
                f"data       {train_size:,} training groups, {len(self.val_examples):,} validation examples",
                f"training   {self.plan.total_steps:,} steps, {self.plan.epochs} epochs, batch {self.global_batch}",
                f"device     {self.world.device}, {precision}",
                f"run        {self.folder.path}",
            ]
        )

    @property
    def global_batch(self) -> int:
        """Groups of one update."""
        return self.recipe.train.batch_size * self.recipe.train.gradient_accumulation_steps * self.world.size

    def run(self, sinks: Sequence[Sink] = ()) -> dict[str, Any]:
        """Train to the end.

        Returns:
            {"run", "steps", "best": {"step", ...metrics}, "last": {"step", ...metrics}}.
        """
        self.folder.create(
            recipe=dump_recipe(self.recipe), vocabulary=self.tokenizer.vocabulary_file, answers=self.answers
        )
        try:
            with ExitStack() as stack:
                interrupts = stack.enter_context(Interrupts())
                sinks = [*sinks, interrupts, stack.enter_context(closing(JsonLines(self.folder.metrics)))]
                if self.recipe.train.tensorboard:
                    sinks.append(stack.enter_context(closing(TensorBoard(self.folder.tensorboard))))
                self.model.to(self.world.device)
                train(
                    self.model,
                    self.task,
                    self.train_loader,
                    config=self.recipe.train,
                    plan=self.plan,
                    world=self.world,
                    sinks=sinks,
                    validate=lambda step: self._save_and_validate(step, sinks, interrupts),
                )
        finally:
            self.folder.remove_without_checkpoint()
        return {"run": str(self.folder.path), "steps": self.plan.total_steps, "best": self.best, "last": self.last}

    def _save_and_validate(self, step: int, sinks: Sequence[Sink], interrupts: Interrupts) -> None:
        """Save first: nothing that goes wrong in validation costs the weights. Then score, log, mark the best."""
        save_checkpoint(
            self.folder.checkpoints,
            step=step,
            write_model=self.model.save_pretrained,
            state={"epoch": self.plan.epoch(step)},
        )
        precision = Precision.choose(self.recipe.train.precision, self.world.device)
        predictions = predict(
            self.model,
            self.validation.batches,
            self.task,
            world=self.world,
            precision=precision,
            shared=self.validation.shared,
            text_rows=self.recipe.infer.text_rows,
            progress=lambda done: interrupts.check(),
        )
        fields = {prediction.example_id: prediction.fields for prediction in predictions}
        self.last = {"step": step, **self.task.score(fields, self.val_examples)}
        if not self.best or self.last[self.task.main_metric] > self.best[self.task.main_metric]:
            self.best = self.last
            mark_best(self.folder.checkpoints, step=step)
        for sink in sinks:
            sink.write({"event": "validation", **self.last})
        remove_old_checkpoints(self.folder.checkpoints, keep_last=self.recipe.train.keep_last)


def prepare_training(recipe: Recipe, run: Path, *, device: str | None = None) -> Training:
    """Read and check everything a run needs; nothing is written.

    Raises:
        ClipbertError: whatever of the recipe's files, media or weights is missing or wrong.
    """
    folder = RunFolder.absent(run)
    world = start_world(device)
    root = str(resolve(recipe, ".").absolute())  # the run's own recipe works from any folder
    answers = read_vocabulary(recipe)
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"root": root})})
    task = build_task(recipe, answers)
    tokenizer = Tokenizer(resolve(recipe, recipe.model.tokenizer), max_length=recipe.data.max_text_length)
    plan, train_loader = training_loader(recipe, task, tokenizer, world=world)
    val_examples = read_split(recipe, "val", task, task.check_truth)
    val_media = open_split_media(recipe, "val", val_examples)
    model, reports = build_model(recipe, task, tokenizer)
    return Training(
        recipe=recipe,
        folder=folder,
        task=task,
        answers=answers,
        model=model,
        reports=reports,
        tokenizer=tokenizer,
        world=world,
        plan=plan,
        train_loader=train_loader,
        validation=evaluation(recipe, task, val_examples, val_media, tokenizer, world=world),
        val_examples=val_examples,
    )
