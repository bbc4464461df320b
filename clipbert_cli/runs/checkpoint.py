"""Checkpoints of a run: folders that are complete or absent, and links to the latest and the best of them.

checkpoints/step_N/
    config.json, model.safetensors   the model, as `from_pretrained` reads it
    average.safetensors              the moving average of the trained weights, if one is kept
    training.pt                      optimiser, loss scale and counters: the rest of what resuming needs
    state.json                       step, plan, digests of recipe and data, and every other file's size and CRC-32
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from clipbert_cli.errors import UnreadableError
from clipbert_cli.files import atomic_folder, point_link, remove, write_json
from clipbert_cli.foreign import read_json
from clipbert_cli.path_kinds import STATE_FILE

TRAINING_FILE = "training.pt"
AVERAGE_FILE = "average.safetensors"
_SET_ASIDE = re.compile(r"\.damaged[0-9]+$")


def step_folder(checkpoints: Path, step: int) -> Path:
    """Return the folder of the checkpoint of `step`."""
    return checkpoints / f"step_{step}"


def save_checkpoint(checkpoints: Path, *, step: int, write: Callable[[Path], None], state: Mapping[str, Any]) -> Path:
    """Write one checkpoint, complete or not at all, and point the `latest` link to it.

    Args:
        write: writes the files into the folder it is given.
        state: plain values, written as JSON beside them.

    Raises:
        OSError: the checkpoint cannot be written, for example for lack of space; nothing of it is left.
    """
    checkpoints.mkdir(parents=True, exist_ok=True)
    final = step_folder(checkpoints, step)
    # Durable: `remove_old_checkpoints` runs next, and a power failure must not leave only what was not yet on disk.
    with atomic_folder(final, replace=True, durable=True) as folder:
        write(folder)
        files = {file.name: content_of(file) for file in sorted(folder.iterdir())}
        description = {"step": step, **state, "files": files}
        write_json(folder / STATE_FILE, description)
    point_link(checkpoints.parent / "latest", final)
    return final


def read_state(folder: Path) -> dict[str, Any]:
    """Return the content of a checkpoint's state.json.

    Raises:
        UnreadableError: the file is missing or is not a JSON object.
    """
    try:
        state = read_json(folder / STATE_FILE, allow_nan=True)
    except (OSError, UnreadableError) as exc:
        raise UnreadableError(f"{STATE_FILE} cannot be read: {exc}") from exc
    if not isinstance(state, dict):
        raise UnreadableError(f"{folder}: {STATE_FILE} is not a JSON object")
    return state


def damage(folder: Path) -> str | None:
    """Return what is wrong with a checkpoint's files, in a few words, or None if each is as it was written."""
    try:
        files = read_state(folder).get("files")
    except UnreadableError as exc:
        return str(exc)
    if not isinstance(files, dict) or not files:
        return f"{STATE_FILE} lists no files"
    changes = (change(folder / name, stated) for name, stated in files.items())
    return next((each for each in changes if each is not None), None)


def content_of(file: Path) -> dict[str, int]:
    """Return the size of a file and the CRC-32 of its bytes, by which `change` recognises it."""
    return {"bytes": file.stat().st_size, "crc32": _crc32(file)}


def change(file: Path, stated: Any) -> str | None:
    """Return how a file differs from what `content_of` returned when it was written, in a few words, or None.

    Only a file of the right size is read.
    """
    if not isinstance(stated, dict) or not stated.keys() >= {"bytes", "crc32"}:
        return f"the size and the CRC-32 of {file.name} are not stated"
    try:
        if not file.is_file():
            return f"{file.name} is missing"
        if (size := file.stat().st_size) != stated["bytes"]:
            return f"{file.name} has {size} bytes, {stated['bytes']} were written"
        if _crc32(file) != stated["crc32"]:
            return f"{file.name} has changed since it was written: its CRC-32 differs"
    except (OSError, ValueError) as exc:
        return f"{file.name} cannot be read: {exc}"
    return None


def mark_best(checkpoints: Path, *, step: int) -> None:
    """Point the `best` link to the checkpoint of `step`."""
    point_link(checkpoints.parent / "best", step_folder(checkpoints, step))


def saved_steps(checkpoints: Path) -> list[int]:
    """Return the steps that have a checkpoint, in ascending order. What is no such folder is ignored."""
    return sorted(step for each in checkpoints.glob("step_*") if (step := _step_of(each)) is not None)


def strangers(checkpoints: Path) -> list[str]:
    """Return the names of what is called like a checkpoint and is none, such as a file, or a folder `step_007`."""
    names = {each.name for each in checkpoints.glob("step_*") if _step_of(each) is None}
    return sorted(name for name in names if not _SET_ASIDE.search(name))


def _step_of(folder: Path) -> int | None:
    # `step_folder` finds no other way to write the number.
    name = re.fullmatch(r"step_(0|[1-9][0-9]{0,17})", folder.name)
    return int(name[1]) if name and folder.is_dir() else None


def remove_old_checkpoints(checkpoints: Path, *, keep_last: int) -> None:
    """Remove all checkpoints but the last `keep_last` and the best one."""
    # Before the first validation there is no link, and this is a path that no checkpoint has.
    best = os.path.realpath(checkpoints.parent / "best")
    for step in saved_steps(checkpoints)[:-keep_last]:
        folder = step_folder(checkpoints, step)
        if os.path.realpath(folder) != best:
            remove(folder)


def set_aside(folder: Path) -> Path:
    """Rename a damaged checkpoint, so that it is kept but not used, and return its new name."""
    number = 1
    # Another damaged checkpoint of this step may have been renamed before.
    while (aside := folder.with_name(f"{folder.name}.damaged{number}")).exists():
        number += 1
    os.replace(folder, aside)
    return aside


def _crc32(file: Path) -> int:
    value = 0
    # In pieces of 1 MiB: a checkpoint's files may be larger than the memory that is left beside the model.
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            value = zlib.crc32(block, value)
    return value
