"""A training that is ready: everything is read and checked, nothing is written. `--dry-run` ends here.

`setup.prepare_training` makes it, and `Training.run` makes and locks the run folder, trains in it through a `Session`,
and says how an interrupted or failed training goes on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from clipbert_cli.build import Evaluation, Setup
from clipbert_cli.errors import ClipbertError, InterruptionError, RunError
from clipbert_cli.files import point_link, remove_leftovers
from clipbert_cli.loading.loader import BatchLoader
from clipbert_cli.memory import memory_advice
from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.model.flops import ForwardCost, forward_cost
from clipbert_cli.model.weights.transfer import LoadReport
from clipbert_cli.recipe.load import dump_recipe
from clipbert_cli.recipe.schema import TrainConfig
from clipbert_cli.runs.checkpoint import saved_steps, set_aside
from clipbert_cli.runs.folder import RunFolder
from clipbert_cli.runtime.distributed import World
from clipbert_cli.runtime.interrupts import Interrupts, requeue
from clipbert_cli.runtime.process_exit import state_kept
from clipbert_cli.runtime.provenance import device_name, environment
from clipbert_cli.runtime.stopping import STOP_SIGNALS
from clipbert_cli.system_errors import advice, reason, remedy, stops_writing
from clipbert_cli.task.coverage import (
    alike_answers,
    cut_texts,
    guessed,
    shared_media,
    unknown_answers,
    unread_words,
)
from clipbert_cli.train.logs import Announce, JsonLines, Sink, unnoticed
from clipbert_cli.train.loop import Trainer
from clipbert_cli.train.model_options import apply_options
from clipbert_cli.train.optim import parameter_groups
from clipbert_cli.train.plan import Plan
from clipbert_cli.train.resume import Resumption, groups_digest, same_threads
from clipbert_cli.train.session import Session
from clipbert_cli.train.trackers import InBackground, TrackedRun, check_installed
from clipbert_cli.train.validation import BestCheckpoint
from clipbert_cli.types import Batch, Example, Group

logger = logging.getLogger("clipbert")


@dataclass
class Training:
    """A training that is ready to start or to resume.

    Args:
        resumption: the state to resume from; None for a new run.
        validation: the batches to validate with; None trains without validation, and the last checkpoint is the best.
        groups: the groups of all training splits, in order.
        blind_validation: the same with black frames, where they can be scored.
        begin: when preparations began, in seconds of `time.monotonic`; the time to the first step counts from there.
    """

    setup: Setup
    folder: RunFolder
    resumption: Resumption | None
    model: ClipBert
    reports: list[LoadReport]
    plan: Plan
    groups: Sequence[Group]
    train_loader: BatchLoader
    validation: Evaluation | None
    val_examples: Sequence[Example]
    blind_validation: Evaluation | None = None
    begin: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        check_installed(self.config.trackers)
        apply_options(self.model, self.config)
        self.devices = self.world.gather(device_name(self.world.device))
        self.data_digest = groups_digest(self.groups)
        self.best = BestCheckpoint(self.config.best_metric or self.setup.task.main_metric)
        # A multiplier that applies to nothing is found here, and not when the run has its folder.
        self.parameter_groups = parameter_groups(self.model, self.config)
        if self.resumption:
            self.resumption.check_data(self.data_digest)
            self.resumption.check_length(self.plan.total_steps)

    @property
    def world(self) -> World:
        return self.setup.world

    @property
    def config(self) -> TrainConfig:
        return self.setup.recipe.train

    @property
    def forward_passes(self) -> int:
        """The number of them in one step of the main process, whose share is the largest."""
        return len(self.plan.layout.batches(1, self.world.shard))

    @cached_property
    def cost(self) -> ForwardCost:
        """The operations of a clip and of a text."""
        data = self.setup.recipe.data
        return forward_cost(
            self.model, num_frames=data.num_frames, frame_size=data.frame_size, text_length=data.max_text_length
        )

    @cached_property
    def notes(self) -> list[str]:
        """Notes for the user about texts, answers and media, one sentence each."""
        setup, trained = self.setup, [example for group in self.groups for example in group.examples]
        return [
            *cut_texts(trained, setup.tokenizer, what="training"),
            *cut_texts(self.val_examples, setup.tokenizer, what="validation"),
            *unread_words(trained, setup.tokenizer, what="training"),
            *unread_words(self.val_examples, setup.tokenizer, what="validation"),
            *unknown_answers(self.val_examples, setup.task, what="validation"),
            *alike_answers(setup.task.answers if setup.task.needs_answers else ()),
            *shared_media(trained, self.val_examples),
            *guessed(trained, self.val_examples, setup.task),
        ]

    @property
    def is_finished(self) -> bool:
        """True if an earlier start has done all steps of the plan."""
        return self.resumption is not None and self.resumption.step >= self.plan.total_steps

    def load_one_batch(self) -> list[str]:
        """Load one batch of training and one of validation, and return a description of each."""
        lines = []
        loaders: dict[str, Iterable[Batch]] = {"training": self.train_loader}
        if self.validation:
            loaders["validation"] = self.validation.batches
        for name, loader in loaders.items():
            begin = time.monotonic()
            # A process can have no share of few examples, and a finished training has no step left.
            batch = next(iter(loader), "no batch")
            lines.append(f"{name:10} {batch} in {time.monotonic() - begin:.1f} s")
        return lines

    def read_other_splits(self) -> list[str]:
        """Read the splits that training does not need, and return what is in each or why it cannot be read."""
        lines, data = [], self.setup.recipe.data
        for name, files in data.splits.items():
            if files is None or name in (*data.train_splits, "val"):
                continue
            try:
                found = f"{len(self.setup.split(name).examples):,} examples"
            except ClipbertError as exc:
                found = f"cannot be read, which training does not need: {exc}"
            lines.append(f"split      {name}: {found}")
        return lines

    def trainer(self, phase: Announce = unnoticed) -> Trainer:
        """Return a trainer of the model, before its first step."""
        model = self.model.to(self.world.device)
        loss = self.setup.task.loss
        return Trainer(model, loss, config=self.config, plan=self.plan, world=self.world, phase=phase)

    def run(self, sinks: Sequence[Sink] = (), *, ask_requeue: bool = False) -> dict[str, Any]:
        """Train to the end of the plan.

        Args:
            sinks: where the main process's records go besides metrics.jsonl.
            ask_requeue: ask SLURM to start the job again when a signal stops the run.

        Returns:
            {"run", "steps", "best": {"step", ...metrics}, "last": {"step", ...metrics}, "seconds_to_first_step"}.

        Raises:
            InterruptionError: a signal asked to stop; all that was done is saved.
        """
        with ExitStack() as stack:
            interrupts = stack.enter_context(Interrupts(STOP_SIGNALS))
            stack.enter_context(same_threads(self.resumption, self.world))
            # Whatever may be refused comes before the first change in the run folder: weights, optimiser, records.
            session = Session(self, interrupts)
            # All processes send theirs, so that none of them can fail before the main process changes the folder.
            start = self._start_record()
            try:
                self.world.main_first(lambda: self._take_folder(stack, start))
                session.sinks = self._open_sinks(stack, sinks)
                session.complete()
                advice = memory_advice(train=self.config, data=self.setup.recipe.data)
                with advice, self.model.visual_encoder.weights_kept():
                    self._train(session, interrupts)
            except InterruptionError as exc:
                raise self._interruption(exc, session.trainer.step, ask_requeue) from exc
            except OSError as exc:
                if error := self._unwritable(exc):
                    raise error from exc
                raise
        return {
            "run": str(self.folder.path),
            "steps": self.plan.total_steps,
            "best": self.best.best,
            "last": self.best.last,
            "baseline": session.baseline,
            "seconds_to_first_step": session.seconds_to_first_step,
        }

    def _train(self, session: Session, interrupts: Interrupts) -> None:
        try:
            session.trainer.train(self.train_loader, session, interrupts=interrupts)
        except (InterruptionError, OSError):
            # Of several processes the main one removes a folder without a checkpoint, while others are still here.
            if self.world.is_main:
                self.folder.check_present()
            raise

    def _start_record(self) -> dict[str, Any]:
        """Return the entry of this start in environment.json."""
        step = self.resumption.step if self.resumption else 0
        return environment(self.world, step=step) | {"decoder": self.train_loader.decoder.describe()}

    def _take_folder(self, stack: ExitStack, start: Mapping[str, Any]) -> None:
        """Make the run folder, or clean up the existing one, and lock it."""
        if not self.resumption:
            self.folder.create(
                recipe=dump_recipe(self.setup.recipe),
                tokenizer=self.setup.tokenizer.files(),
                answers=self.setup.answers,
            )
            stack.enter_context(self.folder.locked())
            # A folder without a checkpoint is of no use, and would be in the way of the next attempt.
            stack.callback(self._remove_without_checkpoint)
            self.folder.begin(start)
            self.state_kept()
            return
        stack.enter_context(self.folder.locked())
        self.resumption.check_newest(self.folder)
        # The next start takes the length of training from the recipe. Later steps are done and logged again.
        self.folder.begin(start, recipe=dump_recipe(self.resumption.recipe), after=self.resumption.step)
        remove_leftovers(self.folder.checkpoints)
        for damaged, problem in self.resumption.damaged.items():
            logger.warning("%s: %s; it is renamed to %s", damaged, problem, set_aside(damaged).name)
        # The process may have been killed after it saved the checkpoint and before it moved the link.
        if self.resumption.checkpoint:
            point_link(self.folder.path / "latest", self.resumption.checkpoint)
        self.state_kept()

    def _open_sinks(self, stack: ExitStack, given: Sequence[Sink]) -> list[Sink]:
        """Return the sinks; only the main process has any."""
        if not self.world.is_main:
            return []
        sinks = [*given, stack.enter_context(closing(JsonLines(self.folder.metrics)))]
        for name in self.config.trackers:
            tracked = TrackedRun(
                name=self.folder.path.name,
                recipe=self.setup.recipe.model_dump(),
                step=self.resumption.step if self.resumption else 0,
                folder=self.folder.tracker(name),
            )
            sinks.append(stack.enter_context(InBackground(name, tracked)))
        return sinks

    @property
    def _resume_command(self) -> str:
        return f"resume with: clipbert {self.setup.task.trained_by} --run {self.folder.path} --resume"

    def _unwritable(self, exc: OSError) -> RunError | None:
        """Return the error that says what a disk or a limit has left, None for other errors."""
        if not stops_writing(exc):
            return None
        run, place = self.folder.path, Path(exc.filename or self.folder.path)
        named = run if run in (place, *place.parents) else place
        steps = saved_steps(self.folder.checkpoints)
        return RunError(
            f"{named} cannot be written: {reason(exc)}; {self._kept}",
            hint=f"{remedy(exc)}, then {self._resume_command}" if steps else advice(exc, then="start again"),
        )

    @property
    def _kept(self) -> str:
        steps = saved_steps(self.folder.checkpoints)
        return f"the checkpoint of step {steps[-1]} is complete" if steps else "nothing is kept"

    def _remove_without_checkpoint(self) -> None:
        self.folder.remove_without_checkpoint()
        if not self.folder.path.exists():
            state_kept("nothing is kept", "start again")

    def state_kept(self) -> None:
        """State what is left if this process is ended before it saves again. The folder is then left, too."""
        state_kept(self._kept, self._resume_command)

    def _interruption(self, exc: InterruptionError, step: int, ask_requeue: bool) -> InterruptionError:
        """Return the error that says what is saved and how to resume; request the requeue."""
        name = exc.signal.name
        if not step:
            return InterruptionError(exc.signal, f"interrupted by {name} before the first step: nothing is kept")
        if ask_requeue and self.world.is_main:
            requeue()
        return InterruptionError(
            exc.signal,
            f"interrupted by {name} after step {step} of {self.plan.total_steps}; everything is saved in "
            f"{self.folder.path}",
            hint="SLURM was asked to start the job again" if ask_requeue else self._resume_command,
        )
