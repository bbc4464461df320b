"""Files that commands write: complete or absent, and standard output for the path `-`."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from clipbert_cli.errors import OutputError
from clipbert_cli.files import atomic_file


@contextmanager
def writing(path: str, *, overwrite: bool = False, mode: str = "w") -> Iterator[IO[Any]]:
    """Yield a stream to `path`, which appears only when the block ends without an error.

    `-` and files that are not regular (a pipe, a device) are written at once.

    Args:
        mode: "w" for UTF-8 text, "wb" for bytes.

    Raises:
        OutputError: the file exists and `overwrite` is not given, or it cannot be written.
    """
    target = Path(path)
    if path == "-":
        yield sys.stdout.buffer if "b" in mode else sys.stdout
        sys.stdout.flush()
        return
    if target.is_dir() or path.endswith("/"):
        raise OutputError(f"{path} is a folder, but must be a file", hint="name a file in it")
    if target.exists() and not target.is_file():
        with target.open(mode, encoding=None if "b" in mode else "utf-8") as stream:
            yield stream
        return
    if target.exists() and not overwrite:
        raise OutputError(f"{path} exists already", hint="name another file, or give --overwrite")
    if not target.parent.is_dir():
        raise OutputError(
            f"{path} cannot be written: {target.parent} is no folder",
            hint=f"make it first: mkdir -p {shlex.quote(str(target.parent))}",
        )
    try:
        with atomic_file(target, mode=mode) as stream:
            yield stream
    except BrokenPipeError:
        # Not about this file: whoever reads stdout has left, which `app.py` handles.
        raise
    except OSError as exc:
        raise OutputError(
            f"{path} cannot be written: {exc.strerror}", hint="nothing was kept; name a file in a writable folder"
        ) from exc


@contextmanager
def nowhere() -> Iterator[IO[str]]:
    """Yield a text stream that keeps nothing, for all but one of several processes."""
    with open(os.devnull, "w", encoding="utf-8") as stream:
        yield stream
