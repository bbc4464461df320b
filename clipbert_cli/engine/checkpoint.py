"""Checkpoints of a run: a folder that is complete or absent, and links to the latest and the best."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

STATE_FILE = "state.json"


def step_folder(checkpoints: Path, step: int) -> Path:
    """Where the checkpoint of update `step` is."""
    return checkpoints / f"step_{step}"


def save_checkpoint(
    checkpoints: Path, *, step: int, write_model: Callable[[Path], None], state: Mapping[str, Any]
) -> Path:
    """Write one checkpoint under a temporary name, flush it to disk, give it its name, then move the `latest` link.

    Args:
        write_model: writes the model's files into the folder it is given.
        state: plain values, written as JSON beside the model.
    """
    checkpoints.mkdir(parents=True, exist_ok=True)
    final = step_folder(checkpoints, step)
    unfinished = checkpoints / f".{final.name}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        write_model(unfinished)
        (unfinished / STATE_FILE).write_text(json.dumps({"step": step, **state}, indent=1) + "\n", encoding="utf-8")
        for file in unfinished.iterdir():
            _flush(file)
        _flush(unfinished)
        os.replace(unfinished, final)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    _flush(checkpoints)
    _point(checkpoints.parent / "latest", final)
    return final


def mark_best(checkpoints: Path, *, step: int) -> None:
    """Move the `best` link to the checkpoint of update `step`."""
    _point(checkpoints.parent / "best", step_folder(checkpoints, step))


def saved_steps(checkpoints: Path) -> list[int]:
    """The steps that have a checkpoint, ascending; folders of other names are not ours."""
    names = (re.fullmatch(r"step_(\d+)", folder.name) for folder in checkpoints.glob("step_*"))
    return sorted(int(name[1]) for name in names if name)


def remove_old_checkpoints(checkpoints: Path, *, keep_last: int) -> None:
    """Remove all but the last `keep_last` checkpoints and the best."""
    best = (checkpoints.parent / "best").resolve()
    for step in saved_steps(checkpoints)[:-keep_last]:
        folder = step_folder(checkpoints, step)
        if folder.resolve() != best:
            # Rename first: a removal that is cut short must not leave half a checkpoint under a checkpoint's name.
            doomed = folder.with_name(f".{folder.name}.removed")
            os.replace(folder, doomed)
            shutil.rmtree(doomed)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _point(link: Path, target: Path) -> None:
    """Make `link` point to `target` in one step."""
    fresh = link.with_name(f".{link.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(os.path.relpath(target, link.parent), target_is_directory=True)
    os.replace(fresh, link)
