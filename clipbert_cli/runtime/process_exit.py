"""A process's failure, told to the launcher that started it: the launcher says it to the person, once.

The file is torchrun's own error file (`TORCHELASTIC_ERROR_FILE`), so that a plain `torchrun` shows the message as well.
"""

from __future__ import annotations

import json
import os
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

LAUNCHED = "CLIPBERT_LAUNCHED"
"""Set by our own launcher: it speaks for the processes it started."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong in one process; `trace` is the traceback of an error that no one foresaw."""

    message: str
    hint: str | None
    code: int
    rank: int
    time: float
    trace: str | None = None


def report(message: str, *, hint: str | None, code: int, unforeseen: bool = False) -> bool:
    """Tell the launcher why this process ends; whether it is ours, so that nothing more is to be said here."""
    file, rank = os.environ.get("TORCHELASTIC_ERROR_FILE"), os.environ.get("RANK", "0")
    if not file or not rank.isdecimal():  # no launcher writes such a rank
        return False
    trace = traceback.format_exc() if unforeseen else None
    failure = Failure(message, hint, code, int(rank), time.time(), trace)
    extra = {"py_callstack": trace or message, "timestamp": str(int(failure.time))}
    content = {"message": {"message": message, "extraInfo": extra}, "clipbert": asdict(failure)}
    unfinished = Path(f"{file}.unfinished")
    try:
        unfinished.write_text(json.dumps(content), encoding="utf-8")
        os.replace(unfinished, file)
    except OSError:
        return False
    return LAUNCHED in os.environ


def first_failure(folder: Path) -> Failure | None:
    """The earliest failure that processes reported in the error files below `folder`."""
    failures = []
    for file in folder.rglob("error.json"):
        try:
            failures.append(Failure(**json.loads(file.read_text(encoding="utf-8"))["clipbert"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return min(failures, key=lambda failure: failure.time, default=None)
