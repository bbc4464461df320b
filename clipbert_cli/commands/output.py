"""Files that commands write: whole or not at all, and standard output where the path is `-`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from clipbert_cli.errors import OutputError
from clipbert_cli.files import atomic_file


@contextmanager
def writing(path: str, *, overwrite: bool = False) -> Iterator[IO[str]]:
    """A text stream to `path`, which appears only when the block ends well.

    `-` and files that are not regular (a pipe, a device) are written straight away.

    Raises:
        OutputError: a file is there already and `overwrite` is not given, or it cannot be written.
    """
    target = Path(path)
    if path == "-":
        yield sys.stdout
        sys.stdout.flush()
        return
    if target.is_dir():
        raise OutputError(f"{path} is a folder", hint="name a file in it")
    if target.exists() and not target.is_file():
        with target.open("w", encoding="utf-8") as stream:
            yield stream
        return
    if target.exists() and not overwrite:
        raise OutputError(f"{path} exists already", hint="name another file, or give --overwrite")
    try:
        with atomic_file(target) as stream:
            yield stream
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise OutputError(
            f"{path} cannot be written: {exc.strerror}", hint="nothing was kept; name a file in a writable folder"
        ) from exc


@contextmanager
def nowhere() -> Iterator[IO[str]]:
    """A text stream that keeps nothing: of several processes one writes."""
    with open(os.devnull, "w", encoding="utf-8") as stream:
        yield stream
