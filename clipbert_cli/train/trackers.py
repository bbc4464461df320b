"""Experiment trackers (`train.trackers`): programs outside this one that receive the records of a training.

    Session ─► InBackground ─(queue)─► a thread with one Tracker ─► a folder or a server

A tracker may be slow, unreachable or broken, so it works in a thread of its own: whatever happens there, the training
goes on, and the first failure is one warning.
"""

from __future__ import annotations

import importlib
import logging
import math
import os
import queue
import re
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from clipbert_cli.errors import UnreadableError, UsageError
from clipbert_cli.files import write_json
from clipbert_cli.foreign import excerpt, read_json
from clipbert_cli.recipe.settings import flat
from clipbert_cli.train.logs import Sink

logger = logging.getLogger("clipbert")

# How long the end of a training waits for a tracker. A job that was asked to stop has about half a minute.
SECONDS_TO_FINISH = 25.0

# The name of the project (wandb) or of the experiment (mlflow), unless the tracker's own variable names another.
PROJECT = "clipbert"


@dataclass(frozen=True)
class TrackedRun:
    """The run of a tracker: its name, its recipe, the step after which it begins, and a folder of its own."""

    name: str
    recipe: Mapping[str, Any]
    step: int
    folder: Path

    def earlier(self) -> str | None:
        """Return the id under which the tracker knows this run from an earlier start."""
        try:
            known = str(read_json(self.folder / "run.json")["id"])
        except (FileNotFoundError, UnreadableError, LookupError, TypeError):
            return None
        # It becomes part of paths and addresses.
        return known if re.fullmatch(r"[0-9A-Za-z_-]{1,64}", known) else None

    def remember(self, run_id: str) -> None:
        """Keep the id, so that a resumed training goes on in the same run of the tracker."""
        write_json(self.folder / "run.json", {"id": run_id})


class Tracker(Protocol):
    """A run that has begun in a tracker. Any method may raise any error."""

    def write(self, step: int, numbers: Mapping[str, float]) -> None: ...

    def close(self, *, failed: bool) -> None: ...


class TensorBoard:
    """Events in the run's folder."""

    def __init__(self, run: TrackedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # Steps after the checkpoint are done again: TensorBoard forgets what it has of them.
        self._writer: Any = SummaryWriter(str(run.folder), purge_step=run.step + 1)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self, *, failed: bool) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases; `WANDB_PROJECT`, `WANDB_MODE` and its other variables are used."""

    def __init__(self, run: TrackedRun) -> None:
        import wandb

        settings = wandb.Settings(console="off", silent=True)
        # It would wait for a person to type a key.
        if wandb.setup(settings).settings.mode == "online" and not wandb.login(prompt=False):
            raise ValueError("it has no API key: run `wandb login`, or set WANDB_MODE=offline")
        known = run.earlier() or uuid.uuid4().hex
        run.folder.mkdir(exist_ok=True)
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.name,
            id=known,
            resume="allow",
            dir=run.folder,
            config=dict(run.recipe),
            allow_val_change=True,
            settings=settings,
        )
        run.remember(known)
        # Its own counter only rises, but a resumed run does some steps again.
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log({"step": step, **numbers})

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class MLflow:
    """A run of MLflow, where `MLFLOW_TRACKING_URI` says."""

    def __init__(self, run: TrackedRun) -> None:
        from mlflow.tracking import MlflowClient, get_tracking_uri

        # Its default since MLflow 3.7, for which mlflow-skinny lacks the package.
        if get_tracking_uri().startswith("sqlite:") and find_spec("sqlalchemy") is None:
            raise ValueError("set MLFLOW_TRACKING_URI to the address of a server; a local database needs all of mlflow")
        self._client: Any = MlflowClient()
        known = run.earlier()
        if known is None:
            known = self._create(run)
            run.remember(known)
        self._id = known
        self._client.set_terminated(known, status="RUNNING")

    def _create(self, run: TrackedRun) -> str:
        from mlflow.entities import Param

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        place = experiment.experiment_id if experiment else self._client.create_experiment(name)
        created = str(self._client.create_run(place, run_name=run.name).info.run_id)
        # A server takes at most 100 parameters at a time, and 6,000 characters of each. A parameter never changes.
        params = [Param(name, excerpt(str(value), 6000)) for name, value in flat(run.recipe).items()]
        for begin in range(0, len(params), 100):
            self._client.log_batch(created, params=params[begin : begin + 100])
        return created

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        # Names of answer types may hold any character.
        names = {name: re.sub(r"[^\w\-. /]", "_", name) for name in numbers}
        self._client.log_batch(self._id, [Metric(names[name], value, now, step) for name, value in numbers.items()])

    def close(self, *, failed: bool) -> None:
        self._client.set_terminated(self._id, status="FAILED" if failed else "FINISHED")


KINDS: dict[str, tuple[str, Callable[[TrackedRun], Tracker]]] = {
    "tensorboard": ("torch.utils.tensorboard", TensorBoard),
    "wandb": ("wandb", WeightsAndBiases),
    "mlflow": ("mlflow.tracking", MLflow),
}
"""Tracker, and package that it needs -> the module to import first, and how a run begins."""


def check_installed(names: Sequence[str]) -> None:
    """Raise UsageError for a tracker whose package is not installed."""
    for name in names:
        if find_spec(name) is None:
            raise UsageError(
                f"train.trackers has {name}, which is not installed", hint=f"pip install 'clipbert[{name}]'"
            )


class InBackground(Sink):
    """A sink that passes the numbers of records to a tracker in a thread. It begins with `with` and ends with it."""

    def __init__(self, name: str, run: TrackedRun) -> None:
        self._name, self._run = name, run
        self._module, self._begin = KINDS[name]
        self._jobs: queue.SimpleQueue[Callable[[Tracker], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)

    def __enter__(self) -> InBackground:
        try:
            # Loading processes are forked later: a fork in the middle of an import would copy its locks.
            importlib.import_module(self._module)
        except Exception as exc:  # noqa: BLE001 - a tracker may fail in any way
            self._warn(exc)
        else:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if not self._thread.is_alive():
            return
        self._jobs.put(lambda tracker: tracker.close(failed=kind is not None))
        self._jobs.put(None)
        self._thread.join(SECONDS_TO_FINISH)
        if self._thread.is_alive():
            logger.warning("train.trackers: %s does not answer; it may lack the last records", self._name)

    def write(self, record: Mapping[str, Any]) -> None:
        """Pass the numbers of a record as `event/name`."""
        event, step = record["event"], record["step"]
        numbers = {
            f"{event}/{name}": value
            for name, value in flat(record, "/").items()
            if name != "step" and type(value) in (int, float) and math.isfinite(value)
        }
        if self._thread.is_alive():
            self._jobs.put(lambda tracker: tracker.write(step, numbers))

    def _work(self) -> None:
        try:
            tracker = self._begin(self._run)
            while job := self._jobs.get():
                job(tracker)
        except Exception as exc:  # noqa: BLE001 - a tracker may fail in any way
            self._warn(exc)

    def _warn(self, exc: Exception) -> None:
        reason = excerpt(" ".join(str(exc).split()) or type(exc).__name__, 300)
        logger.warning("train.trackers: %s fails, so it gets no more records; training goes on: %s", self._name, reason)
