"""Names that are not UTF-8 or have line breaks, words that begin with a dash, and standard input that is closed."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from running import Clipbert

from clipbert_cli.errors import UnreadableError
from clipbert_cli.foreign import read_lines, standard_input

NAMES = {"a line break": "new\nline", "not UTF-8": "caf\udce9"}


@pytest.fixture
def world(trained_run: Path, made_data: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained_run, tmp_path / "run", symlinks=True)
    (tmp_path / "data").symlink_to(made_data)
    return tmp_path


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_recipe_and_outputs_may_have_odd_names(name: str, world: Path, clipbert: Clipbert) -> None:
    recipe = f"{name}.yaml"
    for words in (
        ("recipes", "copy", "demo_qa", recipe),
        ("recipes", "validate", recipe, "--data-root", "data"),
        ("recipes", "answers", recipe, "--data-root", "data", "-o", f"{name}.json"),
        ("finetune", "-r", recipe, "--data-root", "data", "--dry-run"),
        ("preview", "-r", recipe, "--data-root", "data", "--split", "val", "-o", f"{name}.html"),
        ("infer", "--run", "run", "-r", recipe, "--split", "test", "--data-root", "data", "-o", f"{name}.jsonl"),
        ("eval", f"{name}.jsonl", "--data-root", "data"),
    ):
        done = clipbert(*words, cwd=world)
        assert done.returncode == 0, done.stderr
        assert name not in done.stderr
    assert (
        "then run: clipbert recipes validate 'my own.yaml'"
        in clipbert("recipes", "copy", "demo_qa", "my own.yaml", cwd=world).stderr
    )


def test_a_run_needs_a_path_that_its_weights_are_read_from(world: Path, clipbert: Clipbert) -> None:
    train = ("finetune", "-r", "demo_qa", "--data-root", "data", "--run")
    done = clipbert(*train, NAMES["not UTF-8"], cwd=world)
    assert done.returncode == 1
    assert "caf\\udce9: a run needs a path that is UTF-8" in done.stderr
    assert not (world / NAMES["not UTF-8"]).exists()
    (world / "run").rename(world / NAMES["not UTF-8"])
    done = clipbert("infer", "--run", NAMES["not UTF-8"], "--split", "test", "--data-root", "data", cwd=world)
    assert done.returncode == 1
    assert "safetensors reads no path that is not UTF-8\nnext: rename the folder or the file" in done.stderr
    assert clipbert("report", "--run", NAMES["not UTF-8"], "-o", "new.html", cwd=world).returncode == 0


@pytest.mark.parametrize("words", ["search data/videos -1 --run run", "pack -1 new --workers 3", "demo -1"])
def test_an_argument_that_begins_with_a_dash_is_answered_with_where_it_stands(
    words: str, world: Path, clipbert: Clipbert
) -> None:
    done = clipbert(*words.split(), cwd=world)
    assert done.returncode == 2
    assert done.stderr == (
        "error: no such option: -1\nnext: a path of this name is ./-1, another word stands after --\n"
    )


def test_an_answer_may_be_a_negative_number(choice_run: Path, made_data: Path, clipbert: Clipbert) -> None:
    video = made_data / "videos/test0000.mp4"
    done = clipbert("ask", "--run", choice_run, "--video", video, "--option", "-1", "--option", "-2", "how many?")
    assert done.returncode == 0, done.stderr
    assert "-1" in done.stdout or "-2" in done.stdout


def test_texts_that_are_not_utf8_are_one_message(world: Path, retrieval_run: Path) -> None:
    words = ["search", "data/videos", "-", "--run", str(retrieval_run)]
    done = subprocess.run(
        [sys.executable, "-m", "clipbert_cli", *words],
        cwd=world,
        input=b"a dog\n\xff\n",
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert b"TEXT is -, but stdin is not UTF-8" in done.stderr


def test_closed_standard_input_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UnreadableError, match="standard input is closed"):
        standard_input()
    with pytest.raises(UnreadableError, match="standard input is closed"):
        next(read_lines(Path("-")))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a")))
    assert list(read_lines(Path("-"))) == [(1, b"a")]


@pytest.mark.parametrize("endpoint", ["-1", "x:y", "http://x:1", "node1:123456", ""])
def test_an_endpoint_is_a_host_and_a_port(endpoint: str, world: Path, clipbert: Clipbert) -> None:
    words = ("infer", "--run", "run", "--split", "test", "--nnodes", "2", f"--rdzv-endpoint={endpoint}")
    done = clipbert(*words, cwd=world)
    assert done.returncode == 2
    assert "--rdzv-endpoint is" in done.stderr
