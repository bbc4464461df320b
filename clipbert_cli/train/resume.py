"""Resuming a run: which checkpoint to continue from, and whether recipe and data are those that the run began with."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from clipbert_cli.cores import available_cores
from clipbert_cli.errors import RunError
from clipbert_cli.printable import shortened
from clipbert_cli.recipe.schema import Recipe
from clipbert_cli.recipe.settings import learned_settings
from clipbert_cli.runs.checkpoint import read_state, strangers
from clipbert_cli.runs.folder import RunFolder
from clipbert_cli.runtime.distributed import World
from clipbert_cli.types import Group

logger = logging.getLogger("clipbert")

# The number comes from a file: more threads than any machine has cores would only take its memory.
_MAX_THREADS = 1024


@dataclass(frozen=True)
class Resumption:
    """The state that a run resumes from.

    `checkpoint` is None if the run was interrupted before its first one; then it starts again. `state` is the content
    of the checkpoint's state.json. `damaged` has later checkpoints that cannot be used, each with the reason. `recipe`
    is the run's own recipe, with the length of training that was given now.
    """

    checkpoint: Path | None
    state: Mapping[str, Any]
    damaged: Mapping[Path, str]
    recipe: Recipe

    @property
    def step(self) -> int:
        """The last step that is done, 0 without a checkpoint."""
        step: int = self.state.get("step", 0)
        return step

    @property
    def global_batch(self) -> int | None:
        """Groups per step, as decided when the run began."""
        return self.state.get("global_batch")

    def describe(self, total_steps: int) -> str:
        """Return what to append to the run folder's name in the description of a training of so many steps."""
        if not self.checkpoint:
            return ", started again: it has no checkpoint yet"
        before = self.state.get("total_steps", total_steps)
        longer = f"; {total_steps} steps in place of {before}, whose learning rates hold from step {self.step + 1} on"
        return f", resumed after step {self.step}{longer if before != total_steps else ''}"

    def check_length(self, total_steps: int) -> None:
        """Raise RunError if more steps are done than the training has now."""
        if total_steps < self.step:
            raise RunError(
                f"{self.checkpoint} has {self.step} steps done, but train.epochs and train.max_steps now give "
                f"{total_steps}",
                hint="a resumed run can be made longer, not shorter: raise train.epochs, or leave it out",
            )

    def check_data(self, digest: str) -> None:
        """Raise RunError if the training groups are not those that the run began with."""
        # A resumed run continues in the middle of an epoch's permutation, which is of these groups in this order.
        if self.state.get("data", digest) != digest:
            raise RunError(
                f"the training records are not those that {self.checkpoint} was trained on",
                hint="restore them, or begin a new run with model.weights.checkpoint set to that checkpoint",
            )


def computing(world: World) -> dict[str, int]:
    """Return what the last bits of a sum depend on: the number of processes, and of threads in each of them."""
    return {"processes": world.size, "threads": torch.get_num_threads()}


@contextmanager
def same_threads(resumption: Resumption | None, world: World) -> Iterator[None]:
    """Compute on the CPU with as many threads as the run did before, so that its results are equal bit by bit.

    With another number of processes they are not equal in any case, and the threads stay as they are.
    """
    now = torch.get_num_threads()
    threads = _recorded_threads(resumption.state.get("computing"), world) if resumption else None
    if world.device.type != "cpu" or threads in (None, now):
        yield
        return
    assert threads is not None
    cores = available_cores() // world.processes_here
    if threads > cores and world.is_main:
        logger.warning(
            "the run has used %d threads per process and goes on with them, so that its results stay the same; there "
            "are %d cores for each process here, so it is slower",
            threads,
            cores,
        )
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(now)


def _recorded_threads(recorded: object, world: World) -> int | None:
    """Return the threads of each process before, None if they are not known or the number of processes was another."""
    if not isinstance(recorded, dict) or recorded.get("processes") != world.size:
        return None
    threads = recorded.get("threads")
    return threads if isinstance(threads, int) and 1 <= threads <= _MAX_THREADS else None


def find_resumption(folder: RunFolder, *, own: Recipe, given: Recipe) -> Resumption:
    """Return the state that the run in `folder` resumes from; nothing is changed.

    Args:
        own: the recipe in the folder.
        given: the recipe to resume with.

    Raises:
        RunError: another process trains in the folder; the recipes differ in a setting that must not change; all
            checkpoints are damaged; or the newest was made with another recipe.
    """
    folder.check_unused()
    if changes := differences(own, given):
        raise RunError(
            [
                f"run {folder.path} was begun with other settings than those given now:",
                *(f"  {change}" for change in changes),
            ],
            hint="leave --recipe and --set out to resume with the run's own settings, or begin a new run with "
            "another --run",
        )
    # Only sizes and checksums are compared here; the files are loaded once the model is built.
    checkpoint, damaged = folder.newest_sound_checkpoint()
    if names := strangers(folder.checkpoints):
        logger.warning("%s: ignored, because they are no checkpoints: %s", folder.checkpoints, shortened(names))
    state = read_state(checkpoint) if checkpoint else {}
    if checkpoint and state.get("recipe") != recipe_digest(own):
        raise RunError(
            f"{checkpoint} was not made with this run's recipe.yaml",
            hint="restore recipe.yaml, or remove the checkpoint if it is another run's",
        )
    length = {"epochs": given.train.epochs, "max_steps": given.train.max_steps}
    recipe = own.model_copy(update={"train": own.train.model_copy(update=length)})
    return Resumption(checkpoint, state, damaged, recipe)


def differences(own: Recipe, given: Recipe) -> list[str]:
    """Return the settings that must not change and have another value, each with both values."""
    before, now = learned_settings(own), learned_settings(given)
    return [
        f"{name} was {json.dumps(before.get(name))}, now {json.dumps(now.get(name))}"
        for name in before | now
        if before.get(name) != now.get(name)
    ]


def recipe_digest(recipe: Recipe) -> str:
    """Return the SHA-256 of the settings that must not change on resume."""
    # Defaults are left out, so that a release with a new setting can resume the runs of an older one.
    text = json.dumps(learned_settings(recipe, exclude_defaults=True), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def groups_digest(groups: Sequence[Group]) -> str:
    """Return the SHA-256 of the groups' media items, texts and targets, in order."""
    digest = hashlib.sha256()
    for group in groups:
        content = [[each.context, each.texts, each.target] for each in group.examples]
        digest.update(json.dumps([group.media_id, *content]).encode())
    return digest.hexdigest()
