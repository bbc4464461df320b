"""A run's folder: what is where, and which checkpoint a name means.

runs/<name>/
    recipe.yaml             fully resolved
    vocab.txt, answers.json what the model reads and (of some tasks) answers with, so that the folder stands alone
    checkpoints/step_N/     config.json, model.safetensors, state.json
    latest, best            links to checkpoints
    metrics.jsonl           one record a line
    tensorboard/            events, if the recipe asks for them
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clipbert_cli.engine.checkpoint import STATE_FILE, saved_steps
from clipbert_cli.errors import RunError


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The places in one run's folder."""

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def vocabulary(self) -> Path:
        return self.path / "vocab.txt"

    @property
    def answers(self) -> Path:
        return self.path / "answers.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @classmethod
    def absent(cls, path: Path) -> RunFolder:
        """A folder that a new run may take.

        Raises:
            RunError: something is there already.
        """
        if os.path.lexists(path):
            raise RunError(
                f"run folder {path} exists already",
                hint="name another one with --run, or remove it if it is not needed",
            )
        return cls(path)

    @classmethod
    def existing(cls, path: Path) -> RunFolder:
        """The folder of a run that has begun.

        Raises:
            RunError: there is none.
        """
        run = cls(path)
        if not run.recipe.is_file():
            raise RunError(
                f"{path} is not a run folder: it has no recipe.yaml", hint="name a folder that clipbert finetune made"
            )
        return run

    def create(self, *, recipe: str, vocabulary: Path, answers: Mapping[str, int] | None) -> None:
        """Make the folder with what the run stands on; it appears whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_name(f".{self.path.name}.unfinished-{os.getpid()}")
        unfinished.mkdir()
        try:
            fresh = RunFolder(unfinished)
            fresh.recipe.write_text(recipe, encoding="utf-8")
            shutil.copyfile(vocabulary, fresh.vocabulary)
            if answers is not None:
                fresh.answers.write_text(json.dumps(answers, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
            os.rename(unfinished, self.path)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise

    def remove_without_checkpoint(self) -> None:
        """Take the folder away again where training ended before its first checkpoint."""
        if not saved_steps(self.checkpoints):
            shutil.rmtree(self.path, ignore_errors=True)

    def checkpoint(self, name: str) -> Path:
        """The checkpoint that `best`, `latest` or `step_N` means.

        Raises:
            RunError: the run has no such checkpoint.
        """
        folder = self.path / name if name in ("best", "latest") else self.checkpoints / name
        if not (folder / STATE_FILE).is_file():
            there = [f"step_{step}" for step in saved_steps(self.checkpoints)]
            raise RunError(
                f"run {self.path} has no checkpoint {name!r}; it has {', '.join(there) or 'none yet'}",
                hint="give --checkpoint best, latest or step_N",
            )
        return folder.resolve()
