"""Checkpoints of a run: a folder that is complete or absent, and links to the latest and the best.

checkpoints/step_N/
    config.json, model.safetensors   the model, as `from_pretrained` reads it
    average.safetensors              the moving average of the trained weights, where one is kept
    training.pt                      optimiser, loss scale and counters: what going on needs besides
    state.json                       step and plan for people and programs, and every other file's size and CRC-32
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from clipbert_cli.files import atomic_folder, point_link, remove

STATE_FILE = "state.json"
TRAINING_FILE = "training.pt"
AVERAGE_FILE = "average.safetensors"


def step_folder(checkpoints: Path, step: int) -> Path:
    """Where the checkpoint of update `step` is."""
    return checkpoints / f"step_{step}"


def save_checkpoint(checkpoints: Path, *, step: int, write: Callable[[Path], None], state: Mapping[str, Any]) -> Path:
    """Write one checkpoint under a temporary name, flush it to disk, give it its name, then move the `latest` link.

    Args:
        write: writes the files into the folder it is given.
        state: plain values, written as JSON beside them.

    Raises:
        OSError: for lack of space, say; then there is nothing of this checkpoint.
    """
    checkpoints.mkdir(parents=True, exist_ok=True)
    final = step_folder(checkpoints, step)
    with atomic_folder(final, replace=True, durable=True) as folder:
        write(folder)
        files = {file.name: {"bytes": file.stat().st_size, "crc32": _crc32(file)} for file in sorted(folder.iterdir())}
        description = {"step": step, **state, "files": files}
        (folder / STATE_FILE).write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
    point_link(checkpoints.parent / "latest", final)
    return final


def read_state(folder: Path) -> dict[str, Any]:
    """What `save_checkpoint` wrote as JSON.

    Raises:
        ValueError: the file is missing or is no JSON object.
    """
    try:
        state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise ValueError(f"{STATE_FILE} cannot be read: {exc}") from exc
    if not isinstance(state, dict):
        raise ValueError(f"{STATE_FILE} is not a JSON object")
    return state


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint's files, in a few words; None if each is there as it was written."""
    try:
        files = read_state(folder)["files"].items()
    except (ValueError, KeyError, AttributeError) as exc:
        return str(exc) if isinstance(exc, ValueError) else f"{STATE_FILE} lists no files"
    for name, expected in files:
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if (size := file.stat().st_size) != expected["bytes"]:
            return f"{name} has {size} bytes, {expected['bytes']} were written"
        if _crc32(file) != expected["crc32"]:
            return f"{name} is not what was written: its CRC-32 differs"
    return None


def mark_best(checkpoints: Path, *, step: int) -> None:
    """Move the `best` link to the checkpoint of update `step`."""
    point_link(checkpoints.parent / "best", step_folder(checkpoints, step))


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
            remove(folder)


def set_aside(folder: Path) -> Path:
    """Give a damaged checkpoint a name that no checkpoint has, and return it."""
    number = 1
    while (aside := folder.with_name(f"{folder.name}.damaged{number}")).exists():
        number += 1
    os.replace(folder, aside)
    return aside


def _crc32(file: Path) -> int:
    value = 0
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            value = zlib.crc32(block, value)
    return value
