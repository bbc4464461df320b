"""What a training says about itself where no bar can be drawn."""

from __future__ import annotations

import re

import pytest

from clipbert_cli.commands import progress, terminal
from clipbert_cli.commands.progress import TrainingProgress

VALIDATED = {"event": "validation", "step": 4, "accuracy": 50.0}


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Train four of ten steps; return the lines of stderr."""

    def steps(quiet: float, first: int = 1) -> list[str]:
        monkeypatch.setattr(progress, "QUIET_SECONDS", quiet)
        monkeypatch.setattr(progress, "ENOUGH_STEPS", 2)
        terminal.stderr.cache_clear()
        with TrainingProgress(10, metric="accuracy") as shown:
            for step in range(first, 5):
                if step == 3:
                    shown.write({"event": "train", "loss": 1.5, "data_wait": 0.25})
                shown.advance(step)
            shown.write(VALIDATED)
        return capsys.readouterr().err.splitlines()

    yield steps
    terminal.stderr.cache_clear()


def test_a_long_training_says_where_it_is_and_how_long_it_takes(said) -> None:
    lines = said(0.0)
    assert [re.sub(r"\d+ s left", "N s left", line) for line in lines] == [
        "step 2/10",
        "step 3/10  loss 1.500  25% waiting for data  about N s left",
        "step 4/10  loss 1.500  25% waiting for data  about N s left",
        "step 4/10  loss 1.500  25% waiting for data  accuracy 50.00",
    ]


def test_a_resumed_training_counts_its_own_steps(said) -> None:
    assert len(said(0.0, first=4)) == 1
    assert said(0.0, first=3)[0].startswith("step 4/10  loss 1.500")


def test_nothing_is_said_between_validations_that_follow_soon(said) -> None:
    assert said(3600.0) == ["step 4/10  loss 1.500  25% waiting for data  accuracy 50.00"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (99, "99 s"), (150, "2 min"), (5000, "83 min"), (12600, "3.5 h")]
)
def test_times_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert progress._duration(seconds) == text
