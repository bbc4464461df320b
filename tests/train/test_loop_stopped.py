"""Training stops between steps, saves first, and a resumed training is bitwise equal."""

from __future__ import annotations

import copy
import os
import pickle
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import Recorder, batch, config, run, trainer, weight

from clipbert_cli.errors import InterruptionError, RunError
from clipbert_cli.recipe.schema import TrainConfig
from clipbert_cli.runtime.interrupts import Interrupts
from clipbert_cli.train.loop import Trainer
from clipbert_cli.types import Batch

# ------------------------------------------------------------------------------------------------ resuming


class StopAfter(Recorder):
    """Notes a signal after a step, and writes the state when the loop asks for it."""

    def __init__(self, trainer: Trainer, interrupts: Interrupts, *, step: int, folder: Path) -> None:
        super().__init__(trainer)
        self.interrupts, self.step, self.folder = interrupts, step, folder

    def advance(self, step: int) -> None:
        if step == self.step:
            self.interrupts.noted = signal.SIGTERM

    def save(self) -> None:
        self.trainer.write(self.folder)


def resumed(
    settings: TrainConfig, batches: Sequence[Batch], folder: Path, *, stop_after: int
) -> tuple[Trainer, Recorder]:
    """Train to `stop_after`, write the state, read it with a new trainer, and train to the end."""
    first, second = (trainer(settings, groups=len(batches), dropout=0.5) for _ in range(2))
    interrupts = Interrupts()
    with pytest.raises(InterruptionError):
        first.train(batches, StopAfter(first, interrupts, step=stop_after, folder=folder), interrupts=interrupts)
    assert first.step == stop_after
    second.model.load_state_dict(copy.deepcopy(first.model.state_dict()))
    second.read(folder)
    return second, run(second, *batches[stop_after:])


@pytest.mark.parametrize(
    "settings",
    [
        {"ema_decay": 0.9},
        {"precision": "fp16"},
        {"schedule": "linear", "warmup_ratio": 0.5},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_a_resumed_trainer_is_bitwise_equal_to_an_uninterrupted_one(settings: dict[str, Any], tmp_path: Path) -> None:
    made = config(learning_rate=0.05, **settings)
    batches = [batch(float(number), 2.0, 0.5, 1.5) for number in range(1, 9)]
    whole = trainer(made, groups=len(batches), dropout=0.5)
    run(whole, *batches)
    second, _ = resumed(made, batches, tmp_path, stop_after=3)
    assert weight(second) == weight(whole)
    assert second.scaler.state_dict() == whole.scaler.state_dict()
    assert second.skipped == whole.skipped
    if whole.average and second.average:
        with whole.average.applied(), second.average.applied():
            assert weight(second) == weight(whole)


def test_means_of_a_log_record_span_an_interruption(tmp_path: Path) -> None:
    settings = config(log_every_steps=4)
    batches = [batch(float(number)) for number in range(1, 5)]
    recorder = run(trainer(settings, groups=4, dropout=0.5), *batches)
    _, again = resumed(settings, batches, tmp_path, stop_after=2)
    assert [record["step"] for record in again.records] == [4]
    for name in ("loss", "grad_norm", "learning_rate"):
        assert again.records[-1][name] == recorder.records[-1][name]


def test_dropout_depends_on_seed_and_step_alone() -> None:
    def norms(*, seed: int, disturb: bool) -> list[float]:
        training = trainer(config(learning_rate=1e-9), groups=9, dropout=0.5, seed=seed)
        found = []
        for number in range(6):
            if disturb:
                torch.manual_seed(number)
            training.step = number
            found.append(training.update([batch(1.0, 2.0, 4.0, 8.0)], examples=4).norm.item())
        return found

    plain = norms(seed=1, disturb=False)
    assert plain == norms(seed=1, disturb=True)
    assert len(set(plain)) > 1
    assert plain != norms(seed=2, disturb=False)


class Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("it-ran",)


def _truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-500])


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda file: file.write_bytes(b""), "the file is empty"),
        (lambda file: file.write_bytes(b"not a checkpoint"), "holds more than tensors"),
        (lambda file: file.write_bytes(b"PK" + bytes(300)), "holds more than tensors"),
        (_truncated, "cannot be read as a torch file"),
        (_folder, "Is a directory"),
        (lambda file: file.unlink(), "No such file"),
        (lambda file: file.write_bytes(pickle.dumps(Runs())), "holds more than tensors"),
        (lambda file: torch.save({"step": Runs()}, file), "holds more than tensors"),
        (lambda file: torch.save([1, 2], file), "holds a list"),
        (lambda file: torch.save({"model": {}, "epoch": 3}, file), "does not fit this training: KeyError: 'precision'"),
    ],
)
def test_a_state_that_is_none_is_named(
    damage: Callable[[Path], Any], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trainer(config(), groups=1).write(tmp_path)
    damage(tmp_path / "training.pt")
    with pytest.raises(RunError, match=says) as caught:
        trainer(config(), groups=1).read(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "training.pt"))
    assert "goes on from the checkpoint before it" in (caught.value.hint or "")
    assert not Path("it-ran").exists()


def test_the_state_of_another_model_is_refused(tmp_path: Path) -> None:
    training = trainer(config(), groups=1)
    state = training.state_dict()
    torch.save({**state, "optimizer": {"state": {}, "param_groups": []}}, tmp_path / "training.pt")
    with pytest.raises(RunError, match=r"training\.pt does not fit this training: .+"):
        training.read(tmp_path)


# ------------------------------------------------------------------------------------------------ stopping


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 143)])
def test_a_signal_stops_between_steps_and_saves_first(number: signal.Signals, code: int) -> None:
    training = trainer(config(), groups=5)
    interrupts = Interrupts([number])

    def batches() -> Any:
        for step in range(1, 6):
            if step == 3:
                signal.raise_signal(number)
            yield batch(float(step))

    recorder = Recorder(training)
    with interrupts, pytest.raises(InterruptionError) as stopped:
        training.train(batches(), recorder, interrupts=interrupts)
    assert stopped.value.exit_code == code
    assert recorder.saved == [2]
    assert training.step == 2


def test_a_second_ctrl_c_stops_at_once_and_a_second_sigterm_does_not() -> None:
    with Interrupts([signal.SIGINT, signal.SIGTERM]) as interrupts:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert interrupts.noted is signal.SIGTERM
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
