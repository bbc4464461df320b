"""Progress bars on stderr. Nothing is drawn where stderr is no terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from clipbert_cli.commands.terminal import note, stderr, warn
from clipbert_cli.runs.baseline import blindness, sentences

QUIET_SECONDS = 30.0
"""The time after which a training says where it is, if stderr is no terminal and so shows no bar."""
ENOUGH_STEPS = 10
"""The number of steps after the first one from which the remaining time is estimated."""


class RateColumn(ProgressColumn):
    """The number of finished units per second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        # Slow steps take minutes each: 0.0 step/s would say nothing.
        rate = f"{speed:.1f} {self.unit}/s" if speed >= 1 else f"{1 / speed:.1f} s/{self.unit}"
        return Text(rate, style="progress.data.speed")


def progress_bar(unit: str) -> Progress:
    """Return a bar with count, rate and remaining time that disappears when it ends."""
    return bar_with(MofNCompleteColumn(), RateColumn(unit))


def bar_with(*measures: ProgressColumn) -> Progress:
    """Return a bar with a description, these measures and the remaining time that disappears when it ends."""
    console = stderr()
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        *measures,
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )


@contextmanager
def counting(description: str, unit: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show a bar while the block runs; yield a function of (finished, total) units that moves it."""
    with progress_bar(unit) as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class TrainingProgress:
    """The training loop's sink for the terminal: a bar with loss, rate and remaining time, one line per validation.

    Without a terminal a line in place of the bar says the same, once in `QUIET_SECONDS`.
    """

    def __init__(self, total_steps: int, *, metric: str) -> None:
        self.metric = metric
        self.total = total_steps
        self._bar = progress_bar("step")
        self._task = self._bar.add_task("loss    -", total=total_steps)
        self._last = ""
        self._first: tuple[int, float] | None = None
        self._said = 0.0
        self._scores: Mapping[str, Any] = {}
        self._events = {
            "first_step": self._first_step,
            "train": self._trained,
            "validation": self._validated,
            "baseline": self._scored_blind,
        }

    def __enter__(self) -> TrainingProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, step: int) -> None:
        self._bar.update(self._task, completed=step)
        now = time.monotonic()
        if self._first is None:
            # The first step takes longer than the others; it is followed by a line of its own.
            self._first, self._said = (step, now), now
        elif not self._bar.console.is_terminal and now - self._said >= QUIET_SECONDS:
            first, begin = self._first
            left = _duration((now - begin) / (step - first) * (self.total - step))
            # The next steps take longer, too, while media are decoded for the first time.
            self._note_step(step, self._last, f"about {left} left" if step - first >= ENOUGH_STEPS else "")

    def _note_step(self, step: int, *facts: str) -> None:
        note("  ".join([f"step {step}/{self.total}", *filter(None, facts)]))
        self._said = time.monotonic()

    def write(self, record: Mapping[str, Any]) -> None:
        self._events[record["event"]](record)

    def _first_step(self, record: Mapping[str, Any]) -> None:
        note(f"step {record['step']} done after {record['seconds']:.1f} seconds")

    def _trained(self, record: Mapping[str, Any]) -> None:
        loss = "-" if record["loss"] is None else f"{record['loss']:.3f}"
        self._bar.update(self._task, description=f"loss {loss}")
        self._last = f"loss {loss}  {record['data_wait']:.0%} waiting for data"

    def _validated(self, record: Mapping[str, Any]) -> None:
        self._scores = record
        loss = f"validation loss {record['loss']:.3f}" if "loss" in record and self.metric != "loss" else ""
        self._note_step(record["step"], self._last, loss, f"{self.metric} {record[self.metric]:.2f}")

    def _scored_blind(self, record: Mapping[str, Any]) -> None:
        for sentence in sentences(record):
            note(f"without looking: {sentence}")
        if warning := blindness(record, self._scores):
            warn(warning)

    def close(self) -> None:
        pass


def _duration(seconds: float) -> str:
    """Return a time as a person says it: `90 s`, `25 min`, `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
