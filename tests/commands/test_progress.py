"""What a training says where no bar can be drawn, and what a terminal shows while a command loads."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

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


COMMANDS = {
    "a dry run": ("finetune --recipe demo_qa --data-root DATA --run new --dry-run", ["loading the data and the model"]),
    "infer": ("infer --run RUN --data-root DATA --split test -o /dev/null", ["loading RUN"]),
    "ask": ("ask --run RUN --video DATA/videos/test0000.mp4 what?", ["loading RUN"]),
}


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("processes", ["1", "several"])
def test_a_terminal_shows_that_a_command_loads(
    name: str, processes: str, trained_run: Path, made_data: Path, tmp_path: Path
) -> None:
    words, shown = COMMANDS[name]
    command = [sys.executable, "-m", "clipbert_cli", *words.split()]
    command = [word.replace("RUN", str(trained_run)).replace("DATA", str(made_data)) for word in command]
    # Wide: a long path is one line.
    here = {"PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "400", "TERM": "xterm"}
    several = {"TORCHELASTIC_ERROR_FILE": str(tmp_path / "error")} if processes == "several" else {}
    main, terminal_end = pty.openpty()
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=terminal_end, env={**os.environ, **here, **several}
    ) as process:
        os.close(terminal_end)
        said = b""
        # Reading the end of a terminal whose other side is closed is an error.
        with contextlib.suppress(OSError):
            while part := os.read(main, 4096):
                said += part
        os.close(main)
    assert process.returncode == 0, said
    for each in ["loading torch", *shown]:
        assert (each.replace("RUN", str(trained_run)) in said.decode()) == (processes == "1")
