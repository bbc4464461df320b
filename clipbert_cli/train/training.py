"""A training: to make one reads and checks everything that it needs, and writes nothing. `--dry-run` ends here.

`Training.run` makes and locks the run folder, trains in it through a `Session`, and says how an interrupted or failed
training goes on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import cached_property
from pathlib import Path
from typing import Any

from clipbert_cli.build import Setup
from clipbert_cli.contradictions import check_training_recipe
from clipbert_cli.cores import available_cores
from clipbert_cli.errors import ClipbertError, InterruptionError, RunError
from clipbert_cli.files import point_link, remove_leftovers
from clipbert_cli.loading.loader import BatchLoader
from clipbert_cli.loading.mixture import MixedDataset, Mixture
from clipbert_cli.loading.order import TrainingBatches
from clipbert_cli.memory import memory_advice
from clipbert_cli.model.flops import ForwardCost, forward_cost
from clipbert_cli.printable import plural
from clipbert_cli.recipe.load import dump_recipe, load_recipe
from clipbert_cli.recipe.schema import Recipe
from clipbert_cli.runs.checkpoint import saved_steps, set_aside
from clipbert_cli.runs.folder import RunFolder
from clipbert_cli.runtime.distributed import World, start_world
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
from clipbert_cli.train.plan import Plan
from clipbert_cli.train.resume import Resumption, find_resumption, groups_digest, same_threads
from clipbert_cli.train.session import Session
from clipbert_cli.train.trackers import InBackground, TrackedRun, check_installed
from clipbert_cli.train.validation import BestCheckpoint
from clipbert_cli.types import Batch

logger = logging.getLogger("clipbert")


def too_few_cores(workers: int, processes: int) -> str:
    """Return a warning if the loading processes of this machine outnumber the cores that they may use, else ""."""
    cores, loading = available_cores(), workers * processes
    if loading <= cores:
        return ""
    each = f" ({processes} processes with data.workers={workers} each)" if processes > 1 else ""
    return (
        f"{plural(loading, 'loading process', 'es')}{each} share {plural(cores, 'core')}, so decoding will be slow: "
        "give the job more cores (SLURM: --cpus-per-task for sbatch and srun), or lower data.workers"
    )


class Training:
    """A training that is ready to start or to resume.

    Args:
        run: the run's folder.
        world: the processes that train together; default: this one, or those that its launcher started.
        resume: continue the run that is in the folder.
        must_be_new: refuse a folder that exists. A dry run or a profile writes nothing there and may use one.

    Raises:
        ClipbertError: one of the recipe's files, media or weights is missing or wrong.
    """

    def __init__(
        self, recipe: Recipe, run: Path, *, world: World | None = None, resume: bool = False, must_be_new: bool = True
    ) -> None:
        # The time to the first step counts from here.
        self.begin = time.monotonic()
        for warning in check_training_recipe(recipe):
            logger.warning(warning)
        check_installed(recipe.train.trackers)
        self.world = world or start_world()
        self.config = recipe.train
        self.folder = RunFolder.existing(run) if resume else RunFolder.absent(run) if must_be_new else RunFolder(run)
        self.resumption: Resumption | None = None  # the state to resume from; None for a new run
        if resume:
            own = load_recipe(self.folder.recipe)
            self.resumption = self.world.main_first(lambda: find_resumption(self.folder, own=own, given=recipe))
        self.setup = Setup.for_training(recipe, self.world, begun=self.folder if resume else None)
        data = self.setup.training_data()
        self.groups = [group for part in data.parts for group in part.groups]  # of all training splits, in order
        self.data_digest = groups_digest(self.groups)
        self.plan, self.train_loader = self._planned(data)
        # None trains without validation, and the last checkpoint is the best.
        self.val = self.setup.split("val", self.setup.task.check_truth) if recipe.data.splits["val"] else None
        self.val_examples = self.val.examples if self.val else ()
        for warning in self.setup.check_columns():
            logger.warning(warning)
        # Late, because it is about the training: whoever lacks a file of the recipe has other worries.
        if message := too_few_cores(recipe.data.workers, self.world.processes_here):
            logger.warning(message)
        resumed = self.resumption.checkpoint if self.resumption else None
        self.model, self.reports = self.setup.model(resumed=resumed)
        apply_options(self.model, self.config)
        self.validation = self.setup.evaluation(self.val) if self.val else None
        self.devices = self.world.gather(device_name(self.world.device))
        self.best = BestCheckpoint(self.config.best_metric or self.setup.task.main_metric)

    def _planned(self, data: MixedDataset) -> tuple[Plan, BatchLoader]:
        """Return how long training runs, and this process's batches in a new random order each epoch."""
        train, seed, begun = self.config, self.setup.recipe.seed, self.resumption
        # A resumed run keeps its global batch, so that it may continue with another number of processes.
        own = train.batch_size * train.gradient_accumulation_steps * self.world.size
        step_size = begun.global_batch or own if begun else own
        mixture = Mixture([len(part) for part in data.parts], step_size)
        plan = Plan.make(train, groups=len(mixture), global_batch=step_size, seed=seed)
        if begun:
            begun.check_data(self.data_digest)
            begun.check_length(plan.total_steps)
        order = TrainingBatches(
            mixture,
            batch_size=train.batch_size,
            epochs=plan.epochs,
            seed=seed,
            shard=self.world.shard,
            after=begun.step if begun else 0,
        )
        return plan, self.setup.batches(data, order, labelled=True)

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
        task, tokenizer = self.setup.task, self.setup.tokenizer
        trained, validated = [example for group in self.groups for example in group.examples], self.val_examples
        kinds = {"training": trained, "validation": validated}
        return [
            *(line for what, examples in kinds.items() for line in cut_texts(examples, tokenizer, what=what)),
            *(line for what, examples in kinds.items() for line in unread_words(examples, tokenizer, what=what)),
            *unknown_answers(validated, task, what="validation"),
            *alike_answers(task.answers if task.needs_answers else ()),
            *shared_media(trained, validated),
            *guessed(trained, validated, task),
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
                folder=self.folder.path / name,
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
