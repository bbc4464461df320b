"""Experiment trackers: what they receive, that a resumed run goes on in them, and that none can stop a training."""

from __future__ import annotations

import logging
import struct
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
from running import TINY, Clipbert, ClipbertProcess, as_options

from clipbert_cli.recipe.load import load_recipe
from clipbert_cli.recipe.schema import Recipe, Tracker
from clipbert_cli.runs.folder import RunFolder
from clipbert_cli.train import trackers
from clipbert_cli.train.training import Training

SETTINGS = (*TINY, "train.save_every_steps=1", "train.max_steps=2")

# By tracker and run: {name: [(step, value)]}.
Found = dict[str, dict[str, list[tuple[int, float]]]]


def recipe(made_data: Path, *more: str) -> Recipe:
    return load_recipe("demo_qa", overrides=[*SETTINGS, *more], data_root=made_data)


def tensorboard_runs(run: Path) -> Found:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    names = events.Tags()["scalars"]
    return {"one": {name: [(each.step, each.value) for each in events.Scalars(name)] for name in names}}


def wandb_runs(run: Path) -> Found:
    import wandb
    from wandb.proto.wandb_internal_pb2 import Record

    wandb.teardown()  # its process writes the files
    found: Found = {}
    for file in sorted(run.glob("wandb/wandb/offline-run-*/*.wandb")):
        numbers = found.setdefault(file.stem, {})
        for record in logged(file.read_bytes()):
            items = Record.FromString(record).history.item
            row = {item.key or "/".join(item.nested_key): float(item.value_json) for item in items}
            for name in row.keys() - {"step"} if "step" in row else ():
                if not name.startswith("_"):
                    numbers.setdefault(name, []).append((int(row["step"]), row[name]))
    return found


def logged(content: bytes) -> list[bytes]:
    """The records of a file in LevelDB's log format after a header of 7 bytes: blocks of 32 KiB with pieces."""
    records, record, at = [], b"", 7
    while at + 7 <= len(content):
        if (left := 2**15 - at % 2**15) < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or its last piece
            records.append(record)
            record = b""
    return records


def mlflow_runs(run: Path) -> Found:
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    found = {}
    for experiment in client.search_experiments():
        for each in client.search_runs([experiment.experiment_id]):
            assert each.info.status == "FINISHED"
            history = {name: client.get_metric_history(each.info.run_id, name) for name in each.data.metrics}
            found[each.info.run_id] = {
                name: [(entry.step, entry.value) for entry in entries] for name, entries in history.items()
            }
            assert each.data.params["train.max_steps"] == "2"
    return found


FOUND: dict[str, Callable[[Path], Found]] = {
    "tensorboard": tensorboard_runs,
    "wandb": wandb_runs,
    "mlflow": mlflow_runs,
}


@pytest.fixture
def nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trackers write into the test's folder, without a server."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlflow").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")


@pytest.mark.trackers
@pytest.mark.filterwarnings("ignore")  # of their own code
@pytest.mark.parametrize("name", trackers.KINDS)
@pytest.mark.usefixtures("nowhere_else")
def test_a_tracker_has_the_numbers_of_metrics_jsonl_and_a_resumed_run_goes_on_in_it(
    name: str, made_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    Training(recipe(made_data, f"train.trackers=[{name}]"), run).run()
    first = FOUND[name](run)
    Training(recipe(made_data, f"train.trackers=[{name}]", "train.max_steps=3"), run, resume=True).run()
    found = FOUND[name](run)
    assert found.keys() == first.keys()
    assert len(found) == 1
    (numbers,) = found.values()
    records = list(RunFolder(run).records())
    losses = [(each["step"], each["loss"]) for each in records if each["event"] == "train"]
    scores = [(each["step"], each["accuracy"]) for each in records if each["event"] == "validation"]
    assert [step for step, _ in losses] == [1, 2, 3]
    assert dict(numbers["train/loss"]) == pytest.approx(dict(losses))
    assert dict(numbers["validation/accuracy"]) == pytest.approx(dict(scores))
    assert "train.trackers" not in caplog.text


@pytest.mark.trackers
def test_only_the_main_process_has_trackers(clipbert_process: ClipbertProcess, made_data: Path, tmp_path: Path) -> None:
    options = as_options([*SETTINGS, "train.batch_size=2", "train.trackers=[tensorboard]"])
    where = ["--run", tmp_path / "run", "--data-root", made_data, "--nproc-per-node", 2]
    process = clipbert_process("finetune", "-r", "demo_qa", *where, *options)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 1


# ------------------------------------------------------------------------------------------ trackers that fail


class Broken:
    """A tracker that fails, or never answers, in one of its methods."""

    def __init__(self, where: str, does: Callable[[], None]) -> None:
        self._where, self._does = where, does
        self._do("begin")

    def _do(self, what: str) -> None:
        if what == self._where:
            self._does()

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        self._do("write")

    def close(self, *, failed: bool) -> None:
        self._do("close")


def fail() -> None:
    raise ConnectionError("the server said:\n\n  no\x1b[31m")


def use(monkeypatch: pytest.MonkeyPatch, begin: Callable[[Any], Any], *, module: str = "json") -> None:
    monkeypatch.setitem(trackers.KINDS, "wandb", (module, begin))
    monkeypatch.setattr(trackers, "find_spec", lambda package: package)


@pytest.mark.parametrize("where", ["begin", "write", "close"])
def test_a_tracker_that_fails_is_one_warning(
    where: str, made_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    use(monkeypatch, lambda run: Broken(where, fail))
    check_training(made_data, tmp_path / "run", caplog, "wandb fails, so it gets no more records; training goes on:")
    assert "the server said: no" in caplog.text


def test_a_tracker_that_cannot_be_imported_is_one_warning(
    made_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "broken_tracker.py").write_text("raise TypeError('of another version')")
    monkeypatch.syspath_prepend(tmp_path)
    use(monkeypatch, lambda run: Broken("", fail), module="broken_tracker")
    check_training(made_data, tmp_path / "run", caplog, "training goes on: of another version")


@pytest.mark.parametrize("where", ["begin", "write", "close"])
def test_training_does_not_wait_for_a_tracker_that_does_not_answer(
    where: str, made_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answer = threading.Event()
    use(monkeypatch, lambda run: Broken(where, lambda: answer.wait(120) and None))
    monkeypatch.setattr(trackers, "SECONDS_TO_FINISH", 0.2)
    begin = time.monotonic()
    check_training(made_data, tmp_path / "run", caplog, "wandb does not answer; it may lack the last records")
    assert time.monotonic() - begin < 60
    answer.set()


def check_training(made_data: Path, run: Path, caplog: pytest.LogCaptureFixture, message: str) -> None:
    """Train with the tracker `wandb`: all is done and recorded, with one warning."""
    with caplog.at_level(logging.WARNING, logger="clipbert"):
        result = Training(recipe(made_data, "train.trackers=[wandb]"), run).run()
    assert result["steps"] == 2
    events = [record["event"] for record in RunFolder(run).records()]
    assert events == ["train", "first_step", "train", "validation"]
    assert (run / "best").exists()
    said = [record.getMessage() for record in caplog.records if "train.trackers" in record.getMessage()]
    assert len(said) == 1
    assert message in said[0]


class Heard:
    """A tracker that keeps what it receives."""

    failed: bool | None = None

    def __init__(self) -> None:
        self.names: list[str] = []

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        self.names += numbers

    def close(self, *, failed: bool) -> None:
        self.failed = failed


@pytest.mark.parametrize("failed", [False, True])
def test_a_tracker_hears_of_nested_numbers_and_whether_the_training_failed(
    failed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Heard()
    use(monkeypatch, lambda run: heard)
    values = {"loss": float("nan"), "by_type": {"what's": 3.0, "text": "x"}, "is": True, "count": 2}
    try:
        with trackers.InBackground("wandb", trackers.TrackedRun("a", {}, 0, tmp_path)) as sink:
            sink.write({"event": "validation", "step": 4, **values})
            if failed:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert failed
    assert heard.names == ["validation/by_type/what's", "validation/count"]
    assert heard.failed is failed


# ------------------------------------------------------------------------------------------ before it begins


@pytest.mark.parametrize("name", trackers.KINDS)
@pytest.mark.parametrize("more", [[], ["--dry-run"]], ids=["training", "dry run"])
def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_written(
    name: str, more: list[str], clipbert: Clipbert, made_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda package: None)
    options = as_options([*SETTINGS, f"train.trackers=[{name}]"])
    done = clipbert("finetune", "-r", "demo_qa", "--run", tmp_path / "run", "--data-root", made_data, *options, *more)
    assert done.returncode == 2
    assert f"train.trackers has {name}, which is not installed" in done.stderr
    assert f"pip install 'clipbert[{name}]'" in done.stderr
    assert not (tmp_path / "run").exists()


def test_every_tracker_of_the_schema_can_be_begun() -> None:
    assert get_args(Tracker) == tuple(trackers.KINDS)


@pytest.mark.parametrize(
    ("known", "is_taken"),
    [("0a1b", True), ("a-b_C", True), ("../../a", False), ("a b", False), ("", False), (5, True), ("a" * 65, False)],
)
def test_an_id_from_a_run_folder_cannot_be_a_path(known: Any, is_taken: bool, tmp_path: Path) -> None:
    run = trackers.TrackedRun("a", {}, 0, tmp_path)
    run.remember(known)
    assert run.earlier() == (str(known) if is_taken else None)
