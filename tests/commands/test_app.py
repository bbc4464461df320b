"""The command line as a whole: help, options, exit codes."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from running import Clipbert
from typer.main import get_command

from clipbert_cli.commands.app import app

# Scripts and papers hold command lines: an option that is renamed or removed breaks them.
TRAINING = """--data-root --device --dry-run --json --nnodes --nproc-per-node --profile --rdzv-endpoint --rdzv-id
    --recipe --requeue --resume --run --set -r"""
OPTIONS = {
    "": "--debug --install-completion --show-completion --version",
    "ask": "QUESTIONS --checkpoint --device --image --json --option --questions --run --set --video --weights",
    "assets": "",
    "assets check": "ASSETS --catalog --json --only",
    "assets convert": "NAME RAW_DIR OUT_DIR --catalog --json --overwrite",
    "assets ls": "ASSETS --catalog --json --to",
    "demo": "FOLDER --device --force --json --seed --size --task",
    "doctor": "--json --online",
    "download": "ASSETS --catalog --dry-run --json --keep-archives --mirror --only --pack --source --to --workers",
    "eval": """PREDICTIONS --against --allow-partial --data-root --json --leave-out-media-errors --recipe --resamples
        --run --seed --set --split -r""",
    "finetune": TRAINING,
    "infer": """--checkpoint --clip-scores --data-root --device --format --nnodes --nproc-per-node --output --overwrite
        --rdzv-endpoint --rdzv-id --recipe --run --set --split --weights -o -r""",
    "pack": """SOURCES STORE --add --fps --frame-folders --id --json --kind --max-pixels --on-duplicate --strict
        --transcode --workers""",
    "pretrain": TRAINING,
    "preview": "MEDIA --data-root --examples --kind --output --overwrite --recipe --seed --set --split -o -r",
    "recipes": "",
    "recipes answers": "NAME --data-root --output --overwrite --set --top -o",
    "recipes copy": "NAME FILE --overwrite",
    "recipes explain": "KEY --json",
    "recipes ls": "--json",
    "recipes show": "NAME --comments --data-root --set",
    "recipes validate": "NAME --data-root --set",
    "report": """PREDICTIONS --against --allow-partial --blind --data-root --examples --output --overwrite --recipe
        --run --seed --set --split -o -r""",
    "runs": "",
    "runs export": "RUN OUT --checkpoint --weights",
    "runs ls": "FOLDER --json",
    "runs push": "RUN NAME --checkpoint --to --weights --yes",
    "search": "MEDIA TEXTS --checkpoint --device --json --run --set --top --weights",
    "store": "",
    "store ls": "STORE --json",
    "store scan": "STORE --json --workers",
    "store show": "STORE MEDIA_ID --fps --frames --json --num-clips --num-frames --output --overwrite --plain "
    "--sampling --seed -o",
    "store verify": "STORE --json --workers",
}
GROUPS = ("", "assets", "recipes", "runs", "store")


def visit(command: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from visit(inner, f"{path} {name}".strip())


FOUND = dict(visit(get_command(app)))


def test_the_arguments_and_options_of_every_command_are_frozen() -> None:
    found = {}
    for path, command in FOUND.items():
        arguments = [each.name.upper() for each in command.params if each.param_type_name == "argument"]
        options = [flag for each in command.params if each.param_type_name == "option" for flag in each.opts]
        found[path] = " ".join([*arguments, *sorted(options)])
    assert found == {path: " ".join(names.split()) for path, names in OPTIONS.items()}


@pytest.mark.parametrize("path", FOUND)
def test_every_help_text_is_whole_sentences(path: str) -> None:
    command = FOUND[path]
    paragraphs = [" ".join(text.split()) for text in command.help.split("\n\n")]
    texts = {text[:20]: text for text in paragraphs if text and not text.startswith("Example")}
    texts |= {each.name: each.help or "" for each in command.params}
    assert texts
    assert {name: text for name, text in texts.items() if not re.fullmatch(r"[A-Z].*\.", text, flags=re.DOTALL)} == {}


def shorter_than_necessary(lines: list[str], width: int) -> list[str]:
    """Return the lines of a help page whose next line begins with a word that would have fitted."""
    found, in_table = [], False
    for line, following in pairwise(lines):
        in_table = (in_table or line in ("Arguments:", "Options:")) and line != ""
        indent = len(following) - len(following.lstrip())
        # In a table each name begins a new item at column 2, and its text continues at the text's column. A long name
        # has a line of its own.
        in_text = line[indent - 2 : indent] == "  " and line[indent : indent + 1].strip() != ""
        continues = in_text and (indent > 2 or not in_table)
        word = re.split(r"(?<=-)| ", following.strip())[0]
        if continues and word and len(line) + 1 + len(word) <= width:
            found.append(line)
    return found


@pytest.mark.parametrize("path", FOUND)
def test_help_wraps_at_80_columns(clipbert: Clipbert, path: str) -> None:
    lines = clipbert(*path.split(), "--help", COLUMNS="80").stdout.splitlines()
    assert [line for line in lines if len(line) > 80] == []
    # In the list of subcommands each line is a sentence of its own, shown completely.
    commands = lines.index("Commands:") if "Commands:" in lines else len(lines)
    assert [line for line in lines[commands:] if line.endswith("...")] == []
    # A line that ends in a hyphen has an option or a word broken in two, such as `--num-` and `clips`.
    assert [line for line in lines if re.search(r"(?<!-)-$", line)] == []
    assert shorter_than_necessary(lines[:commands], 78) == []


def test_a_line_that_is_too_short_is_found() -> None:
    assert shorter_than_necessary(["  A sentence that breaks", "  in the middle of itself."], 78)
    assert shorter_than_necessary(["Options:", "  --kind KIND  The kind of", "               the files."], 78)
    assert not shorter_than_necessary(["Options:", "  --kind KIND  The kind.", "  --add        Add files."], 78)


@pytest.mark.parametrize("path", [path for path in FOUND if path not in GROUPS])
def test_every_commands_help_has_an_example(clipbert: Clipbert, path: str) -> None:
    done = clipbert(*path.split(), "--help", COLUMNS="200")
    assert done.returncode == 0
    assert re.search(rf"Example[^:]*: clipbert {path}\b", done.stdout), done.stdout


def test_help_lists_the_commands(clipbert: Clipbert) -> None:
    for arguments in (["--help"], ["-h"]):
        done = clipbert(*arguments, COLUMNS="200")
        assert done.returncode == 0
        assert all(path.split()[0] in done.stdout for path in FOUND if path)


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
