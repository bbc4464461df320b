"""Files that commands write: complete or absent, never over what a command reads; standard output for the path `-`."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from clipbert_cli.errors import OutputError, UsageError
from clipbert_cli.files import atomic_file, naming
from clipbert_cli.memory import is_out_of_memory
from clipbert_cli.runs.folder import RunFolder
from clipbert_cli.system_errors import advice, reason

PAGE = (".html", ".htm")


def refuse_other_ending(path: str, endings: Sequence[str], *, what: str, name: str = "--output") -> None:
    """Raise UsageError for an output whose ending promises another format than those that are written.

    A name without an ending promises nothing; it gets the first format. Without any format a folder is written.
    """
    ending = Path(path).suffix.lower()
    if ending in endings or not re.fullmatch(r"\.[a-z]\w*", ending):
        return
    raise UsageError(
        f"{name} is {path}, but {what} is written as {' or '.join(endings) or 'a folder'}",
        hint=f"name it {shlex.quote(str(Path(path).with_suffix(endings[0] if endings else '')))}",
    )


@contextmanager
def writing(path: str, *, overwrite: bool = False, mode: str = "w", inputs: Iterable[Path] = ()) -> Iterator[IO[Any]]:
    """Yield a stream to `path`, which appears only when the block ends without an error.

    `-` and files that are not regular (a pipe, a device) are written at once.

    Args:
        mode: "w" for UTF-8 text, "wb" for bytes.
        inputs: files that the command reads, which are not replaced.

    Raises:
        OutputError: the file exists and `overwrite` is not given, it is needed, or it cannot be written.
    """
    target = Path(path)
    if path == "-":
        yield sys.stdout.buffer if "b" in mode else sys.stdout
        sys.stdout.flush()
        return
    if target.is_dir() or path.endswith("/"):
        raise OutputError(f"{path} is a folder, but must be a file", hint="name a file in it")
    if target.exists() and not target.is_file():
        with naming(target), target.open(mode, encoding=None if "b" in mode else "utf-8") as stream:
            yield stream
        return
    _refuse_needed(target, inputs)
    if os.path.lexists(target) and not overwrite:
        raise OutputError(f"{path} exists already", hint="name another file, or give --overwrite")
    if not target.parent.is_dir():
        raise OutputError(
            f"{path} cannot be written: {target.parent} is no folder",
            hint=f"make it first: mkdir -p {shlex.quote(str(target.parent))}",
        )
    try:
        with atomic_file(target, mode=mode, replace=overwrite) as stream:
            yield stream
    except FileExistsError as exc:
        raise OutputError(
            f"{path} exists by now: another command has written it meanwhile", hint="name another file"
        ) from exc
    except OSError as exc:
        # What the command reads, and the reader of stdout who has left, are not about this file.
        if exc.filename not in (None, str(target)) or isinstance(exc, BrokenPipeError) or is_out_of_memory(exc):
            raise
        raise OutputError(f"{path} cannot be written: {reason(exc)}", hint=f"nothing was kept; {advice(exc)}") from exc


def _refuse_needed(target: Path, inputs: Iterable[Path]) -> None:
    """Raise OutputError for a file that the command reads, or that belongs to a run."""
    real = Path(os.path.realpath(target))
    if str(real) in map(os.path.realpath, inputs):
        raise OutputError(f"{target} is read by this command", hint="name another file")
    if run := RunFolder.owner_of(real):
        raise OutputError(f"{target} belongs to the run {run}", hint="name a file outside of its folder")


@contextmanager
def nowhere() -> Iterator[IO[str]]:
    """Yield a text stream that keeps nothing, for all but one of several processes."""
    with open(os.devnull, "w", encoding="utf-8") as stream:
        yield stream
