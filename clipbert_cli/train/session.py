"""The callbacks of train/loop.py between steps: logs, checkpoints and validation in the folder of a run.

A checkpoint is saved before each validation, and a validation's record is written before the `best` link is moved. So a
process may be killed at any moment: `Session.complete` does whatever was left undone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipbert_cli import __version__
from clipbert_cli.build import Evaluation
from clipbert_cli.infer.predict import Predictor
from clipbert_cli.model.pretrained import save_pretrained
from clipbert_cli.model.weights.transfer import load_weights
from clipbert_cli.runs.checkpoint import (
    mark_best,
    remove_old_checkpoints,
    save_checkpoint,
    saved_steps,
)
from clipbert_cli.runtime.interrupts import Interrupts
from clipbert_cli.train.logs import Sink
from clipbert_cli.train.resume import computing, recipe_digest
from clipbert_cli.train.validation import ValidationLosses

if TYPE_CHECKING:
    from clipbert_cli.train.training import Training


class Session:
    """The work between the steps of a running training (the loop's callbacks).

    Making it reads the checkpoint to continue from and writes nothing: a checkpoint may be refused.
    `sinks`, which receive the records, are opened after that.
    """

    def __init__(self, training: Training, interrupts: Interrupts) -> None:
        self.training, self.interrupts = training, interrupts
        self.sinks: Sequence[Sink] = ()
        self.folder, self.world, self.plan, self.best = training.folder, training.world, training.plan, training.best
        self.seconds_to_first_step: float | None = None
        self.baseline: dict[str, Any] | None = None
        self._saved_step = 0
        self._checkpoint = training.resumption.checkpoint if training.resumption else None
        if self._checkpoint:
            load_weights(training.model, self._checkpoint, parts="all", allow_new_head=False)
        self.trainer = training.trainer()
        if self._checkpoint:
            self.trainer.read(self._checkpoint)
            self._saved_step = self.trainer.step
            for record in self.world.main_first(self._kept_validations):
                self.best.update({name: value for name, value in record.items() if name != "event"})

    def complete(self) -> None:
        """Do what the interruption cut short, if the training continues from a checkpoint."""
        if not self._checkpoint:
            return
        # The process may have been killed after it wrote the record and before it moved the link,
        if self.best.best:
            self.world.main_first(lambda: mark_best(self.folder.checkpoints, step=self.best.best["step"]))
        # or after it saved the checkpoint and before it wrote the validation's record.
        if self.plan.validates(self.trainer.step) and self.best.last.get("step") != self.trainer.step:
            self.validate()
        # or before it wrote what is scored without looking.
        elif self.trainer.step == self.plan.total_steps and not self.world.main_first(self._has_baseline):
            self.score_blind()

    def _has_baseline(self) -> bool:
        return any(record.get("step") == self.trainer.step for record in self.folder.baselines())

    def _kept_validations(self) -> list[dict[str, Any]]:
        """Return the records of validations whose checkpoint still exists. The best one is lost only if damaged."""
        # Later steps are done again: their checkpoints are damaged.
        steps = [step for step in saved_steps(self.folder.checkpoints) if step <= self.trainer.step]
        return [record for record in self.folder.validations() if record.get("step") in steps]

    def log(self, record: Mapping[str, Any]) -> None:
        for sink in self.sinks:
            sink.write(record)

    def advance(self, step: int) -> None:
        for sink in self.sinks:
            sink.advance(step)
        if self.seconds_to_first_step is None:
            self.seconds_to_first_step = time.monotonic() - self.training.begin
            self.log({"event": "first_step", "step": step, "seconds": self.seconds_to_first_step})

    def save(self) -> None:
        # An interruption may ask for a checkpoint that the plan has just written.
        if self.trainer.step != self._saved_step:
            self._saved_step = self.trainer.step
            self.world.main_first(self._write_checkpoint)

    def _write_checkpoint(self) -> None:
        def write(folder: Path) -> None:
            save_pretrained(self.training.model, folder)
            self.trainer.write(folder)

        # A folder of this name would be made anew, and would be no run.
        self.folder.check_present()
        step = self.trainer.step
        state = {
            "epoch": self.plan.layout.epoch(step),
            "total_steps": self.plan.total_steps,
            "global_batch": self.plan.layout.global_batch,
            "metric": self.best.metric,
            "data": self.training.data_digest,
            "recipe": recipe_digest(self.training.setup.recipe),
            "computing": computing(self.world),
            "clipbert": __version__,
        }
        save_checkpoint(self.folder.checkpoints, step=step, write=write, state=state)
        self.training.state_kept()
        remove_old_checkpoints(self.folder.checkpoints, keep_last=self.training.config.keep_last)

    def validate(self) -> None:
        """Score the validation split, log the scores, and mark the checkpoint if it is the best.

        Raises:
            InterruptionError: a signal asked to stop. The step is saved already, and resuming validates it again.
        """
        step, evaluation = self.trainer.step, self.training.validation
        if evaluation is None:
            self.world.main_first(lambda: mark_best(self.folder.checkpoints, step=step))
            return
        scores = self._scores(evaluation)
        # The record comes first: the link can be derived from the records, but not the other way round.
        is_best = self.best.update({"step": step, **scores})
        self.log({"event": "validation", **self.best.last})
        if is_best:
            self.world.main_first(lambda: mark_best(self.folder.checkpoints, step=step))
        if step == self.plan.total_steps:
            self.score_blind()

    def score_blind(self) -> None:
        """Log what is scored without looking at the validation media (`train.blind_baseline`)."""
        training = self.training
        if not training.config.blind_baseline or training.setup.recipe.data.black_frames or not training.val_examples:
            return
        task = training.setup.task
        trained = [example for group in training.groups for example in group.examples]
        record = {"event": "baseline", "step": self.trainer.step, "split": "val", "metric": self.best.metric_name}
        if guess := task.guess(trained, training.val_examples):
            record["guess"] = guess
        # Where media are ranked, all of them would look the same with black frames.
        if training.val and not task.ranks_media:
            black = training.setup.changed(data={"black_frames": True})
            record["black_frames"] = self._scores(black.evaluation(training.val))
        self.baseline = record
        self.log(record)

    def _scores(self, evaluation: Evaluation) -> dict[str, Any]:
        """Return the scores and losses of the validation split with the weights as they are now."""
        setup, average = self.training.setup, self.trainer.average
        losses = ValidationLosses(setup.task)
        predictor = Predictor(
            self.training.model, setup.task, self.trainer.precision, setup.recipe.infer, self.world, watch=losses
        )
        with average.applied() if average else nullcontext():
            predictions = list(predictor.run(evaluation, check_interrupts=self.interrupts.check))
        fields = {prediction.key: prediction.fields for prediction in predictions}
        scores: dict[str, Any] = self.world.main_first(lambda: setup.task.score(fields, self.training.val_examples))
        return {**scores, **losses.means(self.world)}
