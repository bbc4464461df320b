"""Errors of the system: which disk or limit stopped a command, whichever library met it, and what to do about it."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

from clipbert_cli.errors import OutputError, with_causes

OUT_OF_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Values of `OSError.errno` that mean: the disk or the quota is full."""

OUT_OF_FILES = frozenset({errno.EMFILE, errno.ENFILE})
"""Values that mean: too many files are open."""

_OF_WRITING = OUT_OF_SPACE | {errno.EFBIG, errno.EROFS}

_REMEDIES = {
    **dict.fromkeys(OUT_OF_SPACE, "free some space"),
    errno.EFBIG: "use a file system for larger files",
    errno.EBADF: "leave it open",
    errno.EROFS: "make that disk writable",
    **dict.fromkeys((errno.EACCES, errno.EPERM), "change the permissions there"),
    **dict.fromkeys(OUT_OF_FILES, "raise the limit (ulimit -n 4096)"),
}

# Limits of this process, what each means, and how it is raised. A shell may not undo what it has lowered.
_LIMITS = {
    errno.EFBIG: (resource.RLIMIT_FSIZE, "a file may have up to {:,} bytes", "-f unlimited, in a new shell"),
    errno.ENOMEM: (
        resource.RLIMIT_AS,
        "a process may have addresses for up to {:,} bytes",
        "-v unlimited, in a new shell",
    ),
    errno.EMFILE: (resource.RLIMIT_NOFILE, "a process may have up to {:,} of them", "-n 4096"),
}


def system_error(exc: BaseException) -> OSError | None:
    """Return the system's error that made a library fail, None where there is none.

    Libraries raise errors of their own when a disk is full: torch while it handles the system's error, safetensors with
    the system's words in its text.
    """
    for link in with_causes(exc):
        if isinstance(link, OSError) and link.errno is not None:
            return link
        for number in (*_OF_WRITING, *OUT_OF_FILES, errno.ENOMEM):
            if os.strerror(number) in str(link):
                return OSError(number, os.strerror(number))
    return None


def stops_writing(error: OSError) -> bool:
    """Return whether a disk or a limit refuses what is written."""
    return error.errno in _OF_WRITING


def _limit(number: int | None) -> tuple[str, str] | None:
    """Return the limit of this process that an error number can mean, and how to raise it; None where none is set."""
    if number not in _LIMITS:
        return None
    kind, meaning, ulimit = _LIMITS[number]
    most, _ = resource.getrlimit(kind)
    if most == resource.RLIM_INFINITY:
        return None
    return f"{meaning.format(most)} (ulimit {ulimit[:2]})", f"raise the limit (ulimit {ulimit})"


def reason(error: OSError) -> str:
    """Return why the system refused something, with the limit of this process if there is one."""
    said, limit = error.strerror or str(error), _limit(error.errno)
    return f"{said}: {limit[0]}" if limit else said


def remedy(error: OSError) -> str | None:
    """Return what ends the reason of an error, None where nothing is known to do so."""
    limit = _limit(error.errno)
    return limit[1] if limit else _REMEDIES.get(error.errno or 0)


def advice(error: OSError, *, then: str | None = None) -> str:
    """Return what to do about something that could not be written.

    Args:
        then: what to do after the reason has ended.
    """
    known = remedy(error)
    if known is None:
        return "write elsewhere"
    return f"{known}, then {then}; or write elsewhere" if then else f"{known}, or write elsewhere"


def unwritable(path: Path | str, error: OSError, *, then: str | None = None) -> OutputError:
    """Return the error for a person about a file or folder that could not be written.

    Args:
        then: as in `advice`.
    """
    return OutputError(f"{path} cannot be written: {reason(error)}", hint=advice(error, then=then))
