"""Standard streams that are closed or full, and a working folder that is gone: what is lost is one error or none."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from forking import variables

COMMANDS = [
    "--help",
    "--version",
    "finetune --help",
    "recipes ls",
    "recipes explain data.fps --json",
    "recipes copy demo_qa -",
]


def run(words: str, redirections: str, stderr: Path) -> tuple[int, str]:
    """Return the exit code of a command and what it wrote to stderr, which is a file unless it is redirected."""
    command = f"{shlex.quote(sys.executable)} -m clipbert_cli {words} 2>{shlex.quote(str(stderr))} {redirections}"
    done = subprocess.run(command, shell=True, stdout=subprocess.DEVNULL, env=variables(), check=False)
    return done.returncode, stderr.read_text()


@pytest.mark.parametrize("is_buffered", [True, False])
@pytest.mark.parametrize("words", COMMANDS)
@pytest.mark.parametrize(
    ("redirections", "reason"), [(">&-", "Bad file descriptor"), (">/dev/full", "No space left on device")]
)
def test_a_result_that_cannot_be_written_is_one_error(
    words: str, redirections: str, reason: str, is_buffered: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", "" if is_buffered else "1")
    code, stderr = run(words, redirections, tmp_path / "stderr")
    assert code == 1
    error, hint = stderr.splitlines()
    assert error == f"error: standard output: {reason}"
    assert hint.startswith("next: ")


@pytest.mark.parametrize("redirections", ["2>&-", "2>/dev/full", "<&-"])
def test_a_message_that_cannot_be_written_is_no_error(redirections: str, tmp_path: Path) -> None:
    assert run(f"recipes copy demo_qa {tmp_path / 'new.yaml'}", redirections, tmp_path / "stderr")[0] == 0
    assert "task: open_ended_qa" in (tmp_path / "new.yaml").read_text()
    assert run("recipes copy demo_qa new.pdf", redirections, tmp_path / "stderr")[0] == 2


def test_a_working_folder_that_was_removed_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    command = f"cd gone; rmdir ../gone; {shlex.quote(sys.executable)} -m clipbert_cli recipes ls"
    done = subprocess.run(
        command, shell=True, cwd=tmp_path, env=variables(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == "error: the working folder was removed\nnext: cd to another folder\n"


def test_a_command_without_a_result_needs_no_stdout(tmp_path: Path) -> None:
    code, stderr = run(f"recipes copy demo_qa {tmp_path / 'new.yaml'}", ">&-", tmp_path / "stderr")
    assert (code, stderr.partition(" ")[0]) == (0, "wrote")
