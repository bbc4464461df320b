"""The state of a run, read from its folder without loading a model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipbert_cli.errors import UnreadableError
from clipbert_cli.foreign import excerpt
from clipbert_cli.runs.checkpoint import read_state, saved_steps, step_folder
from clipbert_cli.runs.folder import RunFolder

DAMAGED = (UnreadableError, OSError, LookupError, ValueError)
"""The errors of reading a damaged run."""


def stated_versions(start: Mapping[str, Any]) -> dict[str, str]:
    """Return the versions that an entry of environment.json, or a meta file of predictions, states by name."""
    libraries = start.get("libraries")
    found = {"clipbert": start.get("clipbert"), "python": start.get("python")}
    found |= libraries if isinstance(libraries, dict) else {}
    return {str(name): str(version) for name, version in found.items() if version}


def stated_devices(start: Mapping[str, Any]) -> list[str]:
    """Return the device of each process of a start, from its entry in environment.json."""
    processes = start.get("processes")
    listed = processes if isinstance(processes, list) else []
    return [str(each.get("device")) for each in listed if isinstance(each, dict)]


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One run: its state, its last checkpoint's step, and its best validation.

    `state` is `running`, `finished`, `stopped` or `damaged`, for which `problem` is the reason. `best` is the value of
    `metric` at `best_step`. What is not known yet is None.
    """

    run: str
    state: str
    step: int
    total_steps: int | None
    metric: str | None
    best: float | None
    best_step: int | None
    problem: str | None = None


def summarise(folder: RunFolder) -> RunSummary:
    """Return the summary of the run in `folder`.

    Raises:
        UnreadableError, OSError: a file of the run is damaged.
    """
    state = _last_state(folder)
    step, total, metric = state.get("step", 0), state.get("total_steps"), state.get("metric")
    name = str(metric).removeprefix("-")
    # The scores of `best` are in the validation's record, the last one if the step was done twice.
    checkpoint = _best_checkpoint(folder.path / "best")
    scores = [each for each in folder.validations() if f"step_{each.get('step')}" == checkpoint and name in each]
    best = scores[-1] if scores else {}
    stated = (("step", step, int), ("total_steps", total, int | None), ("metric", metric, str | None))
    for what, value, kind in (*stated, (name, best.get(name), int | float | None)):
        if isinstance(value, bool) or not isinstance(value, kind):
            raise UnreadableError(f"{folder.path}: {what} of its records is {excerpt(repr(value))}")
    return RunSummary(
        run=str(folder.path),
        state="running" if folder.is_locked() else "finished" if step == total else "stopped",
        step=step,
        total_steps=total,
        metric=metric,
        best=best.get(name),
        best_step=best.get("step"),
    )


def _best_checkpoint(link: Path) -> str:
    """Return the name of the checkpoint to which the link of a run leads, empty if it leads nowhere."""
    try:
        return Path(os.path.realpath(link, strict=True)).name
    except FileNotFoundError:
        return ""


def find_runs(parent: Path) -> list[RunSummary]:
    """Return the summary of every run directly below `parent`, sorted by name, or of `parent` if it is a run."""
    if (run := RunFolder(parent)).recipe.is_file():
        return [summarised(run)]
    return [summarised(RunFolder(file.parent)) for file in sorted(parent.glob("*/recipe.yaml"))]


def summarised(folder: RunFolder) -> RunSummary:
    """Return the summary of a run, or the reason why it cannot be read: a bad run must not hide the others."""
    try:
        return summarise(folder)
    except DAMAGED as exc:
        return RunSummary(str(folder.path), "damaged", 0, None, None, None, None, problem=str(exc))


def _last_state(folder: RunFolder) -> Mapping[str, Any]:
    for step in reversed(saved_steps(folder.checkpoints)):
        try:
            return read_state(step_folder(folder.checkpoints, step))
        except UnreadableError:  # damaged; an earlier checkpoint says almost as much
            continue
    return {}
