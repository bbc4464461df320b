"""A run's folder: what is where, which checkpoint a name means, and who may write.

runs/<name>/
    recipe.yaml             fully resolved
    vocab.txt, answers.json what the model reads and answers with, so that the folder stands alone
    checkpoints/step_N/     see runs/checkpoint.py
    latest, best            links to checkpoints
    metrics.jsonl           one record a line
    environment.json        one entry a start: versions, devices, command, git commit
    tensorboard/            events, if the recipe asks for them
    .lock                   held by the process that trains
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipbert_cli.errors import RunError
from clipbert_cli.files import LockHeldError, atomic_file, atomic_folder, is_locked, lock, write_json
from clipbert_cli.runs.checkpoint import (
    AVERAGE_FILE,
    STATE_FILE,
    damage,
    read_state,
    saved_steps,
    step_folder,
)


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
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def lock(self) -> Path:
        return self.path / ".lock"

    @classmethod
    def absent(cls, path: Path) -> RunFolder:
        """A folder that a new run may take.

        Raises:
            RunError: something is there already.
        """
        if os.path.lexists(path):
            raise RunError(
                f"run folder {path} exists already",
                hint="give --resume to go on with it, name another one with --run, or remove it if it is not needed",
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
        """Make the folder with what the run stands on; it appears whole or not at all.

        Raises:
            RunError: another process has made it meanwhile.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with atomic_folder(self.path) as unfinished:
                fresh = RunFolder(unfinished)
                fresh.recipe.write_text(recipe, encoding="utf-8")
                shutil.copyfile(vocabulary, fresh.vocabulary)
                if answers is not None:
                    text = json.dumps(answers, ensure_ascii=False, indent=1) + "\n"
                    fresh.answers.write_text(text, encoding="utf-8")
        except FileExistsError:
            RunFolder.absent(self.path)  # raises the error that names what to do
            raise

    def remove_without_checkpoint(self) -> None:
        """Take the folder away again where training ended before its first checkpoint."""
        if not saved_steps(self.checkpoints):
            shutil.rmtree(self.path, ignore_errors=True)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within it no other process may train in this folder. The system lets go of it whatever ends this process.

        Raises:
            RunError: another process holds it.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(lock(self.lock, remove_file=False))
            except LockHeldError as exc:
                raise RunError(
                    f"run folder {self.path} is in use by {exc.owner}",
                    hint="wait until it ends, or name another folder with --run",
                ) from exc
            yield

    def is_held(self) -> bool:
        """Whether another process trains in this folder."""
        return is_locked(self.lock)

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

    def average(self, checkpoint: Path, weights: str) -> Path | None:
        """The file of averaged weights to put over a checkpoint's own, None for its own.

        Args:
            checkpoint: from `checkpoint`.
            weights: `plain`, `ema`, or `auto` for those that validation scored.

        Raises:
            RunError: `ema` is asked for, and no average was kept.
        """
        file = checkpoint / AVERAGE_FILE
        if weights == "ema" and not file.is_file():
            raise RunError(
                f"checkpoint {checkpoint} has no averaged weights: train.ema_decay was null",
                hint="give --weights plain",
            )
        if weights == "plain" or (weights == "auto" and read_state(checkpoint).get("validated_with") != "ema"):
            return None
        return file

    def newest_sound_checkpoint(self) -> tuple[Path | None, dict[Path, str]]:
        """The last checkpoint that is whole, and what is wrong with later ones.

        Raises:
            RunError: there are checkpoints, and all are damaged.
        """
        problems: dict[Path, str] = {}
        for step in reversed(saved_steps(self.checkpoints)):
            folder = step_folder(self.checkpoints, step)
            if (problem := damage(folder)) is None:
                return folder, problems
            problems[folder] = problem
        if problems:
            raise RunError(
                "every checkpoint is damaged:\n"
                + "\n".join(f"  {folder}: {what}" for folder, what in problems.items()),
                hint="begin a new run with another --run",
            )
        return None, {}

    def validations(self) -> list[dict[str, Any]]:
        """The records of every validation, in order of steps."""
        return [record for record in self.records() if record.get("event") == "validation"]

    def records(self) -> Iterator[dict[str, Any]]:
        """The records of metrics.jsonl; a last line that was cut short is left out."""
        try:
            lines = self.metrics.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                yield record

    def forget_after(self, step: int) -> None:
        """Take the records of later steps out of metrics.jsonl: they will be written again."""
        if not self.metrics.exists():
            return
        kept = [record for record in self.records() if record.get("step", 0) <= step]
        with atomic_file(self.metrics, durable=True) as stream:
            stream.writelines(json.dumps(record) + "\n" for record in kept)

    def add_environment(self, entry: Mapping[str, Any]) -> None:
        """Append one start to environment.json."""
        try:
            entries = json.loads(self.environment.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            entries = []
        write_json(self.environment, [*entries, entry])
