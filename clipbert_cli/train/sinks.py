"""Where the training loop's records go: metrics.jsonl, TensorBoard, and whatever a command adds (a progress bar)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TextIO

from clipbert_cli.errors import UsageError


class Sink(Protocol):
    """Receives what the loop reports. `advance` comes after every update, `write` with every record."""

    def advance(self, step: int) -> None: ...

    def write(self, record: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


class JsonLines:
    """Appends records to a JSON lines file, each flushed, so that a reader never sees half a line for long."""

    def __init__(self, path: Path) -> None:
        self._stream: TextIO = path.open("a", encoding="utf-8")

    def advance(self, step: int) -> None:
        pass

    def write(self, record: Mapping[str, Any]) -> None:
        self._stream.write(json.dumps(_finite(record), allow_nan=False) + "\n")
        self._stream.flush()

    def close(self) -> None:
        self._stream.close()


class TensorBoard:
    """Writes every number of a record as a scalar `event/name`.

    Raises:
        UsageError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as exc:
            raise UsageError(
                "train.tensorboard is true, but TensorBoard is not installed",
                hint="pip install 'clipbert[tensorboard]'",
            ) from exc
        self._writer: Any = SummaryWriter(str(folder))

    def advance(self, step: int) -> None:
        pass

    def write(self, record: Mapping[str, Any]) -> None:
        for name, value in _numbers(record):
            if name != "step":
                self._writer.add_scalar(f"{record['event']}/{name}", value, record["step"])

    def close(self) -> None:
        self._writer.close()


def _finite(value: Any) -> Any:
    """JSON has no infinity: the gradient norm of a step that fp16 skips is null."""
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _numbers(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{name}", value
