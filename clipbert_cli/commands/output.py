"""Files that commands write: whole or not at all, and standard output where the path is `-`."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from clipbert_cli.errors import OutputError


@contextmanager
def writing(path: str, *, overwrite: bool = False) -> Iterator[TextIO]:
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
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as exc:
        raise OutputError(f"{path} cannot be written: {exc.strerror}", hint="name a file in a writable folder") from exc
    try:
        with open(handle, "w", encoding="utf-8") as stream:
            yield stream
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, target)
    except BaseException as exc:
        Path(name).unlink(missing_ok=True)
        if isinstance(exc, OSError) and not isinstance(exc, BrokenPipeError):
            raise OutputError(f"{path} cannot be written: {exc.strerror}", hint="nothing was kept") from exc
        raise


@contextmanager
def nowhere() -> Iterator[TextIO]:
    """A text stream that keeps nothing: of several processes one writes."""
    with open(os.devnull, "w", encoding="utf-8") as stream:
        yield stream


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
