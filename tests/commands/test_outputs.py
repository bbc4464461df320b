"""Where commands write: the endings of files, and files that a command needs or another one is writing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from declared_options import declared_options
from running import Clipbert, contents

from clipbert_cli.commands.output import writing
from clipbert_cli.errors import OutputError

# Commands that write a file, given what cannot be used: a wrong ending is refused before anything is opened.
WRITERS = {
    "report": ("report --run run -o", "new.html"),
    "preview": ("preview store -o", "new.html"),
    "infer": ("infer --run run --split test -o", "new.jsonl"),
    "store show": ("store show store a -o", "new.png"),
    "recipes answers": ("recipes answers nowhere.yaml -o", "new.json"),
    "recipes copy": ("recipes copy nowhere.yaml", "new.yaml"),
    "infer submission": ("infer --run run --split test --format vqa-submission -o", "new.json"),
    "infer scores": ("infer --run run --split test --format scores -o", "new"),
}


@pytest.fixture
def unusable(tmp_path: Path) -> Path:
    """A folder with a run and a store in which nothing can be read."""
    for name in ("run/recipe.yaml", "store/data.mdb"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("{")
    return tmp_path


def test_every_output_is_known() -> None:
    found = {path for path, each in declared_options() if "--output" in each.opts}
    assert found == {name for name in WRITERS if name in found} != set()
    assert set(WRITERS) - found == {"recipes copy", "infer submission", "infer scores"}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("wrong", ["new.pdf", "new.jsonl.gz", "NEW.Mp4"])
def test_another_ending_is_refused_before_any_work(name: str, wrong: str, clipbert: Clipbert, unusable: Path) -> None:
    words, right = WRITERS[name]
    before = contents(unusable)
    done = clipbert(*words.split(), wrong, cwd=unusable)
    assert done.returncode == 2
    assert f" is {wrong}, but " in done.stderr
    assert f"is written as {Path(right).suffix or 'a folder'}" in done.stderr
    assert f"next: name it {Path(wrong).with_suffix(Path(right).suffix)}\n" in done.stderr
    assert contents(unusable) == before


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("right", ["", "plain", "a_0.5"])
def test_the_ending_that_is_written_and_none_are_not_refused(
    name: str, right: str, clipbert: Clipbert, unusable: Path
) -> None:
    words, usual = WRITERS[name]
    done = clipbert(*words.split(), right or usual, cwd=unusable)
    assert "is written as" not in done.stderr


@pytest.fixture
def world(made_data: Path, trained_run: Path, tmp_path: Path) -> Path:
    """A folder of data, with a run."""
    shutil.copytree(made_data, tmp_path, dirs_exist_ok=True)
    shutil.copytree(trained_run, tmp_path / "run", symlinks=True)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            "infer --run run --split test --data-root . -o txt_db/test.jsonl",
            "test.jsonl is read by this command",
        ),
        ("recipes answers own.yaml -o train.json", "train.json is read by this command"),
        ("infer --run run --split test -o run/metrics.jsonl", "run/metrics.jsonl belongs to the run"),
        ("infer --run run --split test -o run/checkpoints/new.jsonl", "run/checkpoints/new.jsonl belongs to the run"),
        ("infer --run run --split test -o run/best/new.jsonl", "run/best/new.jsonl belongs to the run"),
        ("recipes answers own.yaml -o run/answers.json", "run/answers.json belongs to the run"),
        ("recipes copy demo_qa run/recipe.yaml", "run/recipe.yaml belongs to the run"),
        ("report --run run -o run/checkpoints/new.html", "run/checkpoints/new.html belongs to the run"),
        ("report --run run -o run", "run is a folder, but must be a file"),
        ("store show vis_db test0000 -o videos", "videos is a folder"),
        ("store show vis_db test0000 -o - --json", "--json prints there as well"),
    ],
)
def test_what_a_command_reads_and_files_of_a_run_are_not_replaced(
    words: str, says: str, clipbert: Clipbert, world: Path
) -> None:
    (world / "train.json").write_text('[{"video": "test0000", "question": "what is it?", "answer": "a cat"}]')
    (world / "own.yaml").write_text(
        "extends: demo_qa\nname: own\n"
        "data: {root: ., splits: {train: {annotations: train.json, media: videos}, val: null}}"
    )
    before = contents(world)
    done = clipbert(*words.split(), "--overwrite", cwd=world)
    assert done.returncode in (1, 2)
    assert says in done.stderr
    assert contents(world) == before


def test_a_picture_goes_to_stdout(world: Path) -> None:
    command = "store show vis_db test0000 -o -"
    done = subprocess.run(
        [sys.executable, "-m", "clipbert_cli", *command.split()], cwd=world, capture_output=True, check=True
    )
    assert done.stdout.startswith(b"\x89PNG")
    assert done.stderr == b""


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    output = writing(str(tmp_path / "new.yaml"))
    output.__enter__().write("mine")
    (tmp_path / "new.yaml").write_text("theirs")
    with pytest.raises(OutputError, match="exists by now"):
        output.__exit__(None, None, None)
    assert (tmp_path / "new.yaml").read_text() == "theirs"
    assert [each.name for each in tmp_path.iterdir()] == ["new.yaml"]
