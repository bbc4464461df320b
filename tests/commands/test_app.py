from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from running import Clipbert

COMMANDS = ["pack", "store", "finetune", "infer", "eval", "ask", "search", "demo", "download", "assets", "recipes"]
LEAVES: list[list[str]] = [[name] for name in COMMANDS if name not in ("recipes", "store", "assets")]
LEAVES += [["store", name] for name in ("verify", "scan", "ls", "show")]
LEAVES += [["recipes", name] for name in ("ls", "show", "copy", "validate")]
LEAVES += [["assets", name] for name in ("ls", "check", "convert")]


@pytest.mark.parametrize("command", LEAVES, ids=" ".join)
def test_every_commands_help_has_an_example(clipbert: Clipbert, command: list[str]) -> None:
    done = clipbert(*command, "--help", COLUMNS="200")
    assert done.returncode == 0
    assert re.search(rf"Example[^:]*: clipbert {' '.join(command)}\b", done.stdout), done.stdout


def test_help_lists_the_commands(clipbert: Clipbert) -> None:
    for arguments in (["--help"], ["-h"]):
        done = clipbert(*arguments, COLUMNS="200")
        assert done.returncode == 0
        assert all(command in done.stdout for command in COMMANDS)


def test_version_agrees_with_the_changelog(clipbert: Clipbert) -> None:
    from clipbert_cli import __version__

    done = clipbert("--version")
    assert done.stdout == f"clipbert {__version__}\n"
    changelog = (Path(__file__).parents[2] / "CHANGELOG.md").read_text()
    assert re.search(rf"^## {re.escape(__version__)}\b", changelog, flags=re.MULTILINE)


def test_an_unknown_command_is_wrong_usage(clipbert: Clipbert) -> None:
    done = clipbert("fintune")
    assert done.returncode == 2
    assert "fintune" in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_offered_and_loads_no_torch(shell: str) -> None:
    script = (
        "import sys\n"
        "from clipbert_cli.commands.app import main\n"
        "try:\n    main()\n"
        "finally:\n    assert 'torch' not in sys.modules"
    )
    environment = {
        "_CLIPBERT_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": "clipbert f",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "COMP_WORDS": "clipbert f",
        "COMP_CWORD": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv = ['clipbert']\n{script}"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "finetune" in done.stdout
    assert "AssertionError" not in done.stderr


def test_a_closed_pipe_is_no_error(trained_run: Path) -> None:
    command = f"{sys.executable} -m clipbert_cli infer --run {trained_run} --split test | head -n 1 >/dev/null"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
