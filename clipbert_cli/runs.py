"""Read first: a recipe becomes objects, the objects a run, a run predictions, predictions a score.

finetune  recipe ─► prepare_training ─► Training.run ─► run folder
infer     run folder ─► open_run ─► predict_split | predict_media ─► predictions
eval      predictions + recipe ─► evaluate ─► metrics
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Sampler

from clipbert_cli.batch import Example, Group
from clipbert_cli.data.annotations import Record, RecordError, group_by_media, listed, read_answers, read_examples
from clipbert_cli.data.collate import Collate
from clipbert_cli.data.dataset import GroupDataset, MediaSettings, OnBadMedia, Position
from clipbert_cli.data.loader import BatchLoader, OrderedBatches, TrainingBatches
from clipbert_cli.data.sampling import ClipSampling
from clipbert_cli.data.store import MediaSource, open_media
from clipbert_cli.data.tokenizer import Tokenizer
from clipbert_cli.engine.checkpoint import mark_best, remove_old_checkpoints, save_checkpoint
from clipbert_cli.engine.distributed import World, start_world
from clipbert_cli.engine.interrupts import Interrupts
from clipbert_cli.engine.logging import JsonLines, Sink, TensorBoard
from clipbert_cli.engine.precision import Precision
from clipbert_cli.engine.predict import predict
from clipbert_cli.engine.run_folder import RunFolder
from clipbert_cli.engine.train import Plan, train
from clipbert_cli.errors import RecipeError, StoreError, UsageError
from clipbert_cli.model import ClipBert, LoadReport, load_weights
from clipbert_cli.model.weights import Part
from clipbert_cli.recipe.load import dump_recipe, resolve
from clipbert_cli.recipe.schema import Recipe
from clipbert_cli.task.base import Task
from clipbert_cli.task.video_qa import OpenEndedQa

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


def training_loader(
    recipe: Recipe, task: Task, examples: Sequence[Example], source: MediaSource, tokenizer: Tokenizer, *, world: World
) -> tuple[Plan, BatchLoader]:
    """How long training runs, and its batches: shuffled anew each epoch, clips as `data` says."""
    data = recipe.data
    groups = group_by_media(examples, max_examples=data.max_examples_per_group)
    plan = Plan.make(recipe.train, groups=len(groups))
    order = TrainingBatches(len(groups), batch_size=recipe.train.batch_size, epochs=plan.epochs, seed=recipe.seed)
    sampling = ClipSampling(strategy=data.sampling, num_clips=data.num_clips, num_frames=data.num_frames, fps=data.fps)
    collate = Collate(tokenizer, task.collate_targets)
    return plan, build_loader(
        recipe, groups, source, sampling, collate, order, on_bad_media=data.on_bad_media, world=world
    )


def evaluation_loader(
    recipe: Recipe, examples: Sequence[Example], source: MediaSource, tokenizer: Tokenizer, *, world: World
) -> BatchLoader:
    """Every example once, media item by media item, clips as `infer` says.

    How examples are grouped changes speed and memory, never a prediction. Bad media are never replaced or left out:
    unless `data.on_bad_media` says `error`, their examples are reported in the batch.
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
    order = OrderedBatches(len(groups), batch_size=infer.batch_size)
    on_bad_media: OnBadMedia = "error" if recipe.data.on_bad_media == "error" else "report"
    return build_loader(
        recipe, groups, source, sampling, Collate(tokenizer, None), order, on_bad_media=on_bad_media, world=world
    )


def build_loader(
    recipe: Recipe,
    groups: Sequence[Group],
    source: MediaSource,
    sampling: ClipSampling,
    collate: Collate,
    order: Sampler[list[Position]],
    *,
    on_bad_media: OnBadMedia,
    world: World,
) -> BatchLoader:
    """Batches of `groups` in the order given."""
    data = recipe.data
    settings = MediaSettings(
        sampling,
        frame_size=data.frame_size,
        max_pixels=data.max_pixels,
        exif_rotation=data.exif_rotation,
        black_frames=data.black_frames,
    )
    dataset = GroupDataset(groups, source, settings, seed=recipe.seed, on_bad_media=on_bad_media)
    return BatchLoader(
        dataset,
        collate,
        order,
        workers=data.workers,
        pin_memory=world.device.type == "cuda",
        max_bad_fraction=data.max_bad_fraction,
    )


# ---------------------------------------------------------------------------------------------- finetune


@dataclass
class Training:
    """Everything of a run, checked and ready to start."""

    recipe: Recipe
    folder: RunFolder
    task: Task
    answers: Mapping[str, int]
    model: ClipBert
    reports: list[LoadReport]
    tokenizer: Tokenizer
    world: World
    plan: Plan
    train_loader: BatchLoader
    val_loader: BatchLoader
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
            self.val_loader,
            self.task,
            world=self.world,
            precision=precision,
            progress=lambda examples: interrupts.check(),
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
    model, reports = build_model(recipe, task, tokenizer)
    plan, train_loader = training_loader(recipe, task, train_examples, train_media, tokenizer, world=world)
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
        val_loader=evaluation_loader(recipe, val_examples, val_media, tokenizer, world=world),
        val_examples=val_examples,
    )
