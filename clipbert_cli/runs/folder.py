"""A run's folder: where its files are, which checkpoint a name means, and which process may write to it.

runs/<name>/
    recipe.yaml             the resolved recipe
    vocab.txt, tokenizer_config.json, answers.json
                            the tokenizer and the answers, so that the folder is self-contained
    checkpoints/step_N/     see runs/checkpoint.py
    latest, best            links to checkpoints
    metrics.jsonl           one record per line
    environment.json        one entry per start: versions, devices, command, git commit
    tensorboard/, wandb/, mlflow/
                            what the trackers of `train.trackers` keep
    .lock                   locked by the process that trains
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from clipbert_cli.errors import RunError, UnreadableError
from clipbert_cli.files import (
    LockHeldError,
    atomic_folder,
    is_locked,
    lock,
    lock_owner,
    make_parents,
    refuse_link,
    write_together,
)
from clipbert_cli.foreign import parse_json, read_json, read_lines
from clipbert_cli.hub import is_hub_name, local_folder
from clipbert_cli.path_kinds import A_RUN, RECIPE_FILE, STATE_FILE, unlike
from clipbert_cli.printable import listed
from clipbert_cli.runs.checkpoint import (
    AVERAGE_FILE,
    damage,
    saved_steps,
    step_folder,
)


class RunFolder:
    """The files of the run in folder `path`, which need not exist."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe = path / RECIPE_FILE
        self.vocabulary = path / "vocab.txt"
        self.tokenizer_settings = path / "tokenizer_config.json"
        self.answers = path / "answers.json"
        self.checkpoints = path / "checkpoints"
        self.metrics = path / "metrics.jsonl"
        self.environment = path / "environment.json"
        self.lock = path / ".lock"

    # -------------------------------------------------------------------------------------------- the folder

    @classmethod
    def absent(cls, path: Path) -> RunFolder:
        """Return the folder for a new run.

        Raises:
            RunError: something exists at `path`.
        """
        try:
            str(path.absolute()).encode()
        except UnicodeEncodeError:
            # safetensors writes there and does not read from there.
            raise RunError(f"{path}: a run needs a path that is UTF-8", hint="name another folder with --run") from None
        if not os.path.lexists(path):
            return cls(path)
        if cls(path).recipe.is_file():
            raise RunError(
                f"run folder {path} exists already",
                hint="give --resume to continue that run, or name another folder with --run",
            )
        # It may hold anything, such as the only copy of a data set: nobody should be sent to remove it.
        what = "a folder that is no run" if path.is_dir() else "no folder"
        raise RunError(f"{path} exists already and is {what}", hint="name a new folder with --run")

    @classmethod
    def existing(cls, path: Path) -> RunFolder:
        """Return the folder of a run that has begun.

        Raises:
            PathError: `path` is no run.
        """
        run = cls(path)
        if not run.recipe.is_file():
            raise unlike(path, A_RUN)
        return run

    @classmethod
    def of_model(cls, path: Path) -> tuple[RunFolder, str | None]:
        """Return the folder of recipe and vocabulary that belong to a model, and the checkpoint that `path` names.

        Args:
            path: a run folder, a repository on the Hub (`hf:org/name`), a folder that `clipbert runs export` made, or a
                checkpoint in its run folder.

        Raises:
            PathError: it is none of them.
        """
        if is_hub_name(path):
            path = local_folder(path)
        # `best` and `latest` are links. For a link to itself `Path.resolve` raises a RuntimeError.
        place = Path(os.path.realpath(path))
        if place.parent.name == "checkpoints" and (place / STATE_FILE).is_file():
            return cls.existing(place.parent.parent), place.name
        return cls.existing(path), None

    @classmethod
    def owner_of(cls, path: Path) -> Path | None:
        """Return the folder of the run or exported model that a file is a part of, where it is one of its own files."""
        for parent in path.parents:
            run = cls(parent)
            # Somebody's own recipe may have this name.
            if not (run.recipe.is_file() and (run.environment.is_file() or run.is_exported)):
                continue
            own = (run.recipe, run.vocabulary, run.tokenizer_settings, run.answers, run.metrics, run.environment)
            if path in own or run.checkpoints in path.parents:
                return parent
        return None

    @property
    def is_exported(self) -> bool:
        """True if the folder holds one model, as `clipbert runs export` writes it, and no checkpoints."""
        return (self.path / "config.json").is_file() and not self.checkpoints.exists()

    def create(self, *, recipe: str, tokenizer: Mapping[str, str], answers: Mapping[str, int] | None) -> None:
        """Make the folder with recipe, tokenizer and answers; it appears complete or not at all.

        Args:
            tokenizer: names and contents of the tokenizer's files.

        Raises:
            RunError: another process has made it in the meantime.
        """
        make_parents(self.path)
        try:
            with atomic_folder(self.path) as unfinished:
                fresh = RunFolder(unfinished)
                fresh.recipe.write_text(recipe, encoding="utf-8")
                for name, content in tokenizer.items():
                    (unfinished / name).write_text(content, encoding="utf-8")
                if answers is not None:
                    text = json.dumps(answers, ensure_ascii=False, indent=1) + "\n"
                    fresh.answers.write_text(text, encoding="utf-8")
        except FileExistsError:
            RunFolder.absent(self.path)  # raises the error that says what to do
            raise

    def begin(self, start: Mapping[str, Any], *, recipe: str | None = None, after: int | None = None) -> None:
        """Note that a training begins in the folder; where it cannot be written, nothing in it changes.

        Args:
            start: the new entry of environment.json. What is there and is no list of entries is replaced.
            recipe: the new content of recipe.yaml, for a training that is resumed.
            after: the step that it continues from; the records of later steps are removed from metrics.jsonl.
        """
        try:
            earlier = self.starts()
        except UnreadableError:
            earlier = []
        files = {self.environment: json.dumps([*earlier, start], indent=1) + "\n"}
        if recipe is not None:
            files[self.recipe] = recipe
        if after is not None and self.metrics.exists():
            steps = ((record.get("step"), record) for record in self.records())
            kept = (record for step, record in steps if not (isinstance(step, int | float) and step > after))
            files[self.metrics] = "".join(json.dumps(record) + "\n" for record in kept)
        write_together(files)

    def check_present(self) -> None:
        """Raise RunError if the folder of a training that goes on was removed or moved."""
        if not self.recipe.is_file():
            raise RunError(
                f"{self.path} was removed or moved during the training: nothing more can be saved there",
                hint="start again, or resume what was moved: --run FOLDER --resume",
            )

    def remove_without_checkpoint(self) -> None:
        """Remove the folder unless it has a checkpoint."""
        if not saved_steps(self.checkpoints):
            shutil.rmtree(self.path, ignore_errors=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training in this folder. The system releases the lock however this process ends.

        Raises:
            RunError: another process holds the lock.
            OSError: a folder that is written to is a symbolic link: checkpoints elsewhere would be removed through it.
        """
        from clipbert_cli.recipe.schema import Tracker

        for folder in (self.checkpoints, *(self.path / tracker for tracker in get_args(Tracker))):
            refuse_link(folder)
        try:
            with lock(self.lock):
                yield
        except LockHeldError as exc:
            raise self._in_use(exc.owner) from exc

    def is_locked(self) -> bool:
        """Return whether another process trains in this folder."""
        return is_locked(self.lock)

    def check_unused(self) -> None:
        """Raise RunError if another process trains in this folder."""
        if self.is_locked():
            raise self._in_use(lock_owner(self.lock))

    def _in_use(self, owner: str) -> RunError:
        hint = "wait until it ends, or name another folder with --run"
        return RunError(f"run folder {self.path} is in use by {owner}", hint=hint)

    # -------------------------------------------------------------------------------------------- checkpoints

    def checkpoint(self, name: str) -> Path:
        """Return the folder of the checkpoint `best`, `latest` or `step_N`.

        Raises:
            RunError: the run has no such checkpoint.
        """
        if self.is_exported:
            if name != "best":
                raise RunError(
                    f"{self.path} holds one exported model, not the checkpoint {name!r}", hint="leave --checkpoint out"
                )
            return self.path
        folder = self.path / name if name in ("best", "latest") else self.checkpoints / name
        if not (folder / STATE_FILE).is_file():
            steps = [f"step_{step}" for step in saved_steps(self.checkpoints)]
            if not steps:
                raise RunError(
                    f"run {self.path} has no checkpoint yet",
                    hint=f"train it first: {shlex.join(['clipbert', 'finetune', '--run', str(self.path), '--resume'])}",
                )
            raise RunError(
                f"run {self.path} has no checkpoint {name!r}; it has {', '.join(steps)}",
                hint="give --checkpoint best, latest or step_N",
            )
        # The links move while a run goes on. The caller must read all files of one checkpoint.
        return Path(os.path.realpath(folder))

    def average(self, checkpoint: Path, weights: str) -> Path | None:
        """Return the file of averaged weights that replace a checkpoint's own, or None to keep its own.

        Args:
            checkpoint: a folder that `checkpoint` returned.
            weights: `plain`, `ema`, or `auto` for the ones that validation scored.

        Raises:
            RunError: `ema` is given, but the run kept no average.
        """
        # Where an average is kept, validation scores it.
        file = checkpoint / AVERAGE_FILE
        if weights == "ema" and not file.is_file():
            raise RunError(
                f"checkpoint {checkpoint} has no averaged weights, because train.ema_decay was null",
                hint="give --weights plain",
            )
        return file if weights != "plain" and file.is_file() else None

    def newest_sound_checkpoint(self) -> tuple[Path | None, dict[Path, str]]:
        """Return the last undamaged checkpoint, if any, and what is wrong with each later one.

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
                [
                    "every checkpoint is damaged:",
                    *listed([f"  {folder}: {problem}" for folder, problem in problems.items()]),
                ],
                hint="begin a new run with another --run",
            )
        return None, {}

    # -------------------------------------------------------------------------------------------- records

    def last_start(self) -> dict[str, Any]:
        """Return the last entry of environment.json, {} if there is none. Raises UnreadableError."""
        return next((each for each in reversed(self.starts()) if isinstance(each, dict)), {})

    def starts(self) -> list[Any]:
        """Return the entries of environment.json, one per start of the training; none if it holds no list.

        Raises:
            UnreadableError: it is there and cannot be read.
        """
        try:
            entries = read_json(self.environment)
        except FileNotFoundError:
            return []
        return entries if isinstance(entries, list) else []

    def validations(self) -> list[dict[str, Any]]:
        """Return the records of all validations, in order of steps."""
        return [record for record in self.records() if record.get("event") == "validation"]

    def baselines(self) -> list[dict[str, Any]]:
        """Return the records of what was scored without looking (`runs/baseline.py`), in order of steps."""
        return [record for record in self.records() if record.get("event") == "baseline"]

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield the records of metrics.jsonl.

        Raises:
            UnreadableError, FileNotFoundError: it is there and cannot be read, or is a link to nothing.
        """
        if not os.path.lexists(self.metrics):
            return
        for number, line in read_lines(self.metrics):
            try:
                record = parse_json(line, str(self.metrics), line=number, allow_nan=True)
            except UnreadableError:  # the last line, if the process was killed while it wrote it
                continue
            if isinstance(record, dict):
                yield record
