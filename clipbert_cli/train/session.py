"""A run from its start, or from where it was interrupted, to its end: folder, trainer, checkpoints, validation."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipbert_cli import __version__
from clipbert_cli.build import Evaluation, Setup
from clipbert_cli.errors import InterruptionError
from clipbert_cli.files import point_link, remove_leftovers
from clipbert_cli.infer.predict import Predictor
from clipbert_cli.loading.loader import BatchLoader
from clipbert_cli.model import ClipBert, LoadReport, load_weights
from clipbert_cli.model.ema import WeightAverage
from clipbert_cli.recipe.load import dump_recipe
from clipbert_cli.recipe.schema import Recipe
from clipbert_cli.runs.checkpoint import (
    mark_best,
    remove_old_checkpoints,
    save_checkpoint,
    saved_steps,
    set_aside,
)
from clipbert_cli.runs.folder import RunFolder
from clipbert_cli.runtime.distributed import World
from clipbert_cli.runtime.interrupts import STOP_SIGNALS, Interrupts
from clipbert_cli.runtime.precision import Precision
from clipbert_cli.runtime.provenance import device_name, environment
from clipbert_cli.runtime.slurm import requeue
from clipbert_cli.task.base import Task
from clipbert_cli.train.best import BestCheckpoint
from clipbert_cli.train.loop import Trainer
from clipbert_cli.train.model_options import apply_options
from clipbert_cli.train.plan import Plan
from clipbert_cli.train.resume import Resumption, groups_digest, recipe_digest
from clipbert_cli.train.sinks import JsonLines, Sink, TensorBoard
from clipbert_cli.train.startup import DataFacts, ModelFacts, TrainingFacts
from clipbert_cli.types import Example, Group

logger = logging.getLogger("clipbert")


class FirstStep:
    """A sink that notes how long it took to the first step, and tells the others."""

    def __init__(self, training: Training, others: Sequence[Sink]) -> None:
        self.training, self.others = training, others

    def advance(self, step: int) -> None:
        if self.training.seconds_to_first_step is None:
            seconds = time.monotonic() - self.training.begin
            self.training.seconds_to_first_step = seconds
            for sink in self.others:
                sink.write({"event": "first_step", "step": step, "seconds": seconds})

    def write(self, record: Mapping[str, Any]) -> None:
        pass

    def close(self) -> None:
        pass


@dataclass
class Training:
    """Everything of a run, checked and ready to start or to go on."""

    setup: Setup
    folder: RunFolder
    resumption: Resumption | None
    model: ClipBert
    reports: list[LoadReport]
    plan: Plan
    groups: Sequence[Group]
    train_loader: BatchLoader
    validation: Evaluation
    val_examples: Sequence[Example]
    begin: float = field(default_factory=time.monotonic)
    seconds_to_first_step: float | None = None
    trainer: Trainer | None = None
    _saved_step: int = 0

    def __post_init__(self) -> None:
        apply_options(self.model, self.recipe.train)
        self.devices = self.world.gather(device_name(self.world.device))
        self.data_digest = groups_digest(self.groups)
        self.best = BestCheckpoint(self.recipe.train.best_metric or self.task.main_metric)
        if self.resumption:
            self.resumption.check_data(self.data_digest)

    @property
    def recipe(self) -> Recipe:
        return self.setup.recipe

    @property
    def task(self) -> Task:
        return self.setup.task

    @property
    def world(self) -> World:
        return self.setup.world

    @property
    def facts(self) -> TrainingFacts:
        """What will run."""
        config, layout = self.recipe.train, self.plan.layout
        return TrainingFacts(
            run=str(self.folder.path),
            model=ModelFacts.of(self.model, ema_decay=config.ema_decay, reports=self.reports),
            data=DataFacts.of(self.groups, self.val_examples, decoder=self.train_loader.decoder.describe()),
            plan=self.plan,
            forward_passes=len(layout.batches(1, self.world.shard)),
            devices=tuple(self.devices),
            precision=Precision.choose(config.precision, self.world.device),
            going_on=self.resumption.describe() if self.resumption else "",
        )

    def load_one_batch(self) -> list[str]:
        """Load one batch of training and one of validation, and describe them; nothing is written."""
        return [
            f"{name:10} {next(iter(loader))} in {time.monotonic() - begin:.1f} s"
            for name, loader in (("training", self.train_loader), ("validation", self.validation.batches))
            for begin in [time.monotonic()]
        ]

    def new_trainer(self) -> Trainer:
        """A trainer of the model, before its first step."""
        return Trainer(
            self.model.to(self.world.device),
            self.task,
            config=self.recipe.train,
            plan=self.plan,
            world=self.world,
            seed=self.recipe.seed,
        )

    def run(self, sinks: Sequence[Sink] = (), *, ask_requeue: bool = False) -> dict[str, Any]:
        """Train to the end.

        Args:
            sinks: where the main process's records go besides metrics.jsonl.
            ask_requeue: ask SLURM for another turn where a signal stops the run.

        Returns:
            {"run", "steps", "best": {"step", ...metrics}, "last": {"step", ...metrics}, "seconds_to_first_step"}.

        Raises:
            InterruptionError: a signal asked to stop; all that was done is saved.
        """
        with ExitStack() as stack:
            interrupts = stack.enter_context(Interrupts(STOP_SIGNALS))
            self.world.main_first(lambda: self._take_folder(stack))
            try:
                own = self._open_sinks(stack, sinks)
                self._train(own, interrupts)
            except InterruptionError as exc:
                raise self._explained(exc, ask_requeue) from exc
            finally:
                if self.world.is_main and not self.resumption:
                    self.folder.remove_without_checkpoint()
        return {
            "run": str(self.folder.path),
            "steps": self.plan.total_steps,
            "best": self.best.best,
            "last": self.best.last,
            "seconds_to_first_step": self.seconds_to_first_step,
        }

    def _take_folder(self, stack: ExitStack) -> None:
        """Make the folder or clean up in it, and hold it."""
        if not self.resumption:
            self.folder.create(
                recipe=dump_recipe(self.recipe),
                vocabulary=self.setup.tokenizer.vocabulary_file,
                answers=self.setup.answers,
            )
            stack.enter_context(self.folder.held())
            return
        stack.enter_context(self.folder.held())
        remove_leftovers(self.folder.checkpoints)
        for damaged, problem in self.resumption.damaged.items():
            logger.warning("%s: %s; it is now %s", damaged, problem, set_aside(damaged).name)
        self.folder.forget_after(self.resumption.step)
        if self.resumption.checkpoint:  # the interruption may have come between its naming and the link
            point_link(self.folder.path / "latest", self.resumption.checkpoint)

    def _open_sinks(self, stack: ExitStack, given: Sequence[Sink]) -> list[Sink]:
        """The main process's sinks; the others have none."""
        record = environment(self.world, step=self.resumption.step if self.resumption else 0)
        record["decoder"] = self.train_loader.decoder.describe()
        sinks: list[Sink] = []
        if self.world.is_main:
            self.folder.add_environment(record)
            sinks += [*given, stack.enter_context(closing(JsonLines(self.folder.metrics)))]
            if self.recipe.train.tensorboard:
                sinks.append(stack.enter_context(closing(TensorBoard(self.folder.tensorboard))))
        return [*sinks, FirstStep(self, sinks)]

    def _train(self, sinks: list[Sink], interrupts: Interrupts) -> None:
        checkpoint = self.resumption.checkpoint if self.resumption else None
        if checkpoint:
            load_weights(self.model, checkpoint, parts="all", allow_new_head=False)
        trainer = self.trainer = self.new_trainer()
        if checkpoint:
            trainer.read(checkpoint)
            self._saved_step = trainer.step
            self._recall(trainer, sinks, interrupts)
        trainer.train(
            self.train_loader,
            sinks=sinks,
            interrupts=interrupts,
            save=lambda: self._save(trainer),
            validate=lambda: self._validate(trainer, sinks, interrupts),
        )

    def _recall(self, trainer: Trainer, sinks: list[Sink], interrupts: Interrupts) -> None:
        """Find out what validation said so far; make up for one that the interruption cut short."""
        for record in self.world.main_first(self._validations):
            self.best.update({name: value for name, value in record.items() if name != "event"})
        best, last = self.best.best, self.best.last
        if best:  # the interruption may have come between the record and the link
            self.world.main_first(lambda: mark_best(self.folder.checkpoints, step=best["step"]))
        if self.plan.validates(trainer.step) and last.get("step") != trainer.step:
            self._validate(trainer, sinks, interrupts)

    def _validations(self) -> list[dict[str, Any]]:
        """Records of validations whose checkpoint is there: the best one's always is, unless it was damaged."""
        there = saved_steps(self.folder.checkpoints)
        return [record for record in self.folder.validations() if record["step"] in there]

    def _save(self, trainer: Trainer) -> None:
        """A checkpoint of this step, unless there is one."""
        if trainer.step != self._saved_step:
            self._saved_step = trainer.step
            self.world.main_first(lambda: self._write_checkpoint(trainer))

    def _write_checkpoint(self, trainer: Trainer) -> None:
        def write(folder: Path) -> None:
            self.model.save_pretrained(folder)
            trainer.write(folder)

        save_checkpoint(
            self.folder.checkpoints,
            step=trainer.step,
            write=write,
            state={
                "epoch": self.plan.layout.epoch(trainer.step),
                "total_steps": self.plan.total_steps,
                "global_batch": self.plan.layout.global_batch,
                "validated_with": "ema" if self._average(trainer) else "plain",
                "metric": self.best.metric,
                "data": self.data_digest,
                "recipe": recipe_digest(self.recipe),
                "clipbert": __version__,
            },
        )
        remove_old_checkpoints(self.folder.checkpoints, keep_last=self.recipe.train.keep_last)

    def _average(self, trainer: Trainer) -> WeightAverage | None:
        """The averaged weights, where validation scores those."""
        return trainer.average if self.recipe.train.validate_with == "ema" else None

    def _validate(self, trainer: Trainer, sinks: Sequence[Sink], interrupts: Interrupts) -> None:
        """Score the validation split, log it, mark the best. The step is saved already: nothing here costs weights."""
        step, average = trainer.step, self._average(trainer)
        with average.applied() if average else nullcontext():
            predictor = Predictor(self.model, self.task, trainer.precision, self.recipe.infer, self.world)
            predictions = list(predictor.run(self.validation, check_interrupts=interrupts.check))
        fields = {prediction.key: prediction.fields for prediction in predictions}
        scores = {"step": step, **self.world.main_first(lambda: self.task.score(fields, self.val_examples))}
        is_best = self.best.update(scores)
        for sink in sinks:
            sink.write({"event": "validation", **scores})
        if is_best:
            self.world.main_first(lambda: mark_best(self.folder.checkpoints, step=step))

    def _explained(self, exc: InterruptionError, ask_requeue: bool) -> InterruptionError:
        """The same, with what was reached and how to go on."""
        step = self.trainer.step if self.trainer else 0
        if not step:
            return InterruptionError(
                exc.signal, f"interrupted by {exc.signal.name} before the first step: nothing is kept"
            )
        if ask_requeue and self.world.is_main:
            requeue()
        return InterruptionError(
            exc.signal,
            f"interrupted by {exc.signal.name} after step {step} of {self.plan.total_steps}; all of it is saved in "
            f"{self.folder.path}",
            hint="SLURM was asked to start the job again"
            if ask_requeue
            else f"go on with: clipbert finetune --run {self.folder.path} --resume",
        )
