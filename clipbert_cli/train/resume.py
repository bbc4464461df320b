"""Going on with a run: where it stands, and whether what goes on is what was begun."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipbert_cli.errors import RunError
from clipbert_cli.recipe.schema import Recipe
from clipbert_cli.runs.checkpoint import read_state
from clipbert_cli.runs.folder import RunFolder
from clipbert_cli.types import Group

CHANGEABLE = frozenset(
    {
        "data.root",
        "data.workers",
        "data.max_bad_fraction",
        "train.batch_size",  # the global batch stays what it was
        "train.gradient_accumulation_steps",
        "train.activation_checkpointing",
        "train.compile",
        "train.max_bad_steps",
        "train.log_every_steps",
        "train.save_every_steps",
        "train.keep_last",
        "train.tensorboard",
        "infer.batch_size",
        "infer.compile",
        "infer.max_examples_per_group",
    }
)
"""Settings that change nothing of what is learned but rounding (and, cut otherwise, a batch's draw of dropout)."""


@dataclass(frozen=True)
class Resumption:
    """Where a run goes on.

    `checkpoint` is None where the run was interrupted before its first one; it begins again then. `damaged` names
    later checkpoints that cannot be used, and why.
    """

    checkpoint: Path | None
    state: Mapping[str, Any]
    damaged: Mapping[Path, str]

    @property
    def step(self) -> int:
        """The last step that is done."""
        step: int = self.state.get("step", 0)
        return step

    @property
    def global_batch(self) -> int | None:
        """Groups of a step, as the run's start decided it."""
        return self.state.get("global_batch")

    def describe(self) -> str:
        return (
            f", going on after step {self.step}" if self.checkpoint else ", beginning again: it has no checkpoint yet"
        )

    def check_data(self, digest: str) -> None:
        """Raises RunError where the training groups are not those that the run began with."""
        if self.state.get("data", digest) != digest:
            raise RunError(
                f"the training records are not those that {self.checkpoint} has learned from",
                hint="restore them, or begin a new run with model.weights.checkpoint set to that checkpoint",
            )


def find_resumption(folder: RunFolder, *, own: Recipe, given: Recipe) -> Resumption:
    """Where the run in `folder` goes on; nothing is changed.

    Args:
        own: the recipe in the folder.
        given: the recipe to go on with.

    Raises:
        RunError: another process trains in the folder; the recipes differ in more than `CHANGEABLE`; no checkpoint is
            whole; or the newest is of another recipe.
    """
    if folder.is_held():
        raise RunError(f"run folder {folder.path} is in use by another process", hint="wait until it ends")
    if changes := differences(own, given):
        raise RunError(
            f"run {folder.path} was begun with other settings than those given now:\n"
            + "\n".join(f"  {change}" for change in changes),
            hint="leave --recipe and --set out to go on as begun, or begin a new run with another --run",
        )
    checkpoint, damaged = folder.newest_sound_checkpoint()
    state = read_state(checkpoint) if checkpoint else {}
    if checkpoint and state.get("recipe") != recipe_digest(own):
        raise RunError(
            f"{checkpoint} was not made with this run's recipe.yaml",
            hint="restore recipe.yaml, or remove the checkpoint if it is another run's",
        )
    return Resumption(checkpoint, state, damaged)


def differences(own: Recipe, given: Recipe) -> list[str]:
    """Settings that decide what is learned and have another value, with both."""
    before, now = dict(_settings(own.model_dump())), dict(_settings(given.model_dump()))
    names = [*before, *(name for name in now if name not in before)]
    return [
        f"{name} was {json.dumps(before.get(name))}, now {json.dumps(now.get(name))}"
        for name in names
        if name not in CHANGEABLE and before.get(name) != now.get(name)
    ]


def recipe_digest(recipe: Recipe) -> str:
    """SHA-256 of the settings that decide what is learned; a setting at its default counts as not there."""
    settings = dict(_settings(recipe.model_dump(exclude_defaults=True)))
    text = json.dumps({name: value for name, value in settings.items() if name not in CHANGEABLE}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def groups_digest(groups: Sequence[Group]) -> str:
    """SHA-256 of the ids of groups and their examples, in order."""
    digest = hashlib.sha256()
    for group in groups:
        digest.update(json.dumps([group.media_id, *(example.example_id for example in group.examples)]).encode())
    return digest.hexdigest()


def _settings(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting by its dotted name."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _settings(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
