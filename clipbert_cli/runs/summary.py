"""What there is to say of a run from its folder alone; no model is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipbert_cli.runs.checkpoint import read_state, saved_steps, step_folder
from clipbert_cli.runs.folder import RunFolder


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One run: its last checkpoint's step of how many, its best validation, and its state.

    `state` is `running`, `finished`, or `stopped`. What is not known yet is None.
    """

    run: str
    state: str
    step: int
    total_steps: int | None
    metric: str | None
    best: float | None
    best_step: int | None


def summarise(folder: RunFolder) -> RunSummary:
    """The run in `folder`."""
    state = _last_state(folder)
    step, total, metric = state.get("step", 0), state.get("total_steps"), state.get("metric")
    best = _best(folder, str(metric).removeprefix("-")) if metric else {}
    return RunSummary(
        run=str(folder.path),
        state="running" if folder.is_held() else "finished" if step == total else "stopped",
        step=step,
        total_steps=total,
        metric=metric,
        best=best.get(str(metric).removeprefix("-")),
        best_step=best.get("step"),
    )


def find_runs(parent: Path) -> list[RunSummary]:
    """Every run directly below `parent`, by name."""
    return [summarise(RunFolder(file.parent)) for file in sorted(parent.glob("*/recipe.yaml"))]


def _last_state(folder: RunFolder) -> Mapping[str, Any]:
    for step in reversed(saved_steps(folder.checkpoints)):
        try:
            return read_state(step_folder(folder.checkpoints, step))
        except ValueError:
            continue
    return {}


def _best(folder: RunFolder, metric: str) -> Mapping[str, Any]:
    """The validation record of the checkpoint that `best` points to."""
    name = (folder.path / "best").resolve().name
    records = [record for record in folder.validations() if f"step_{record['step']}" == name and metric in record]
    return records[-1] if records else {}
