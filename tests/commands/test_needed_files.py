"""A command needs the files of its purpose and no others; it names one that is missing by its absolute path."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

import pytest
from running import TINY, Clipbert, as_options

# A command on a trained run and its data, and what it must work without.
WORKS_WITHOUT = [
    ("infer --run run --split test -o new.jsonl", ["txt_db/train.jsonl", "txt_db/val.jsonl"]),
    ("infer --run run --split test -o new.jsonl", ["txt_db/answers.json", "vocab.txt"]),
    ("infer --run run --split val -o new.jsonl", ["run/metrics.jsonl", "run/environment.json"]),
    ("eval preds.jsonl --run run", ["run/checkpoints", "vis_db"]),
    ("eval preds.jsonl --recipe demo_qa --split test", ["run", "vis_db", "vocab.txt", "txt_db/answers.json"]),
    ("eval preds.jsonl", ["run", "txt_db/train.jsonl", "txt_db/val.jsonl"]),
    ("ask --run run --video videos/test0000.mp4 'what is it ?'", ["txt_db", "vis_db", "vocab.txt"]),
    ("runs export run new", ["txt_db", "vis_db", "videos", "vocab.txt"]),
    ("report --run run -o new.html", ["txt_db", "vis_db", "vocab.txt", "run/checkpoints"]),
    ("preview --recipe demo_qa --split val -o new.html", ["txt_db/train.jsonl", "txt_db/test.jsonl", "run"]),
    ("preview --recipe demo_qa --split val --set model.weights.bert=b -o new.html", ["txt_db/train.jsonl"]),
    ("recipes answers demo_qa -o new.json", ["txt_db/answers.json", "txt_db/val.jsonl", "vis_db", "vocab.txt"]),
]


@pytest.fixture(scope="module")
def predicted(made_data: Path, trained_run: Path, tmp_path_factory: pytest.TempPathFactory, clipbert: Clipbert) -> Path:
    """A folder with data, a run that was trained on them, and its predictions. Not to be changed."""
    folder = tmp_path_factory.mktemp("predicted") / "data"
    shutil.copytree(made_data, folder)
    shutil.copytree(trained_run, folder / "run", symlinks=True)
    options = ["--run", "run", "--split", "test", "--data-root", "."]
    done = clipbert("infer", *options, "-o", "preds.jsonl", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(("command", "absent"), WORKS_WITHOUT, ids=[f"{c} - {' '.join(a)}" for c, a in WORKS_WITHOUT])
def test_a_command_works_without_the_files_of_other_purposes(
    predicted: Path, tmp_path: Path, clipbert: Clipbert, command: str, absent: list[str]
) -> None:
    folder = shutil.copytree(predicted, tmp_path / "data", symlinks=True)
    for name in absent:
        (shutil.rmtree if (folder / name).is_dir() else Path.unlink)(folder / name)
    root = ["--data-root", "."] if command.split()[0] in ("infer", "eval", "preview") else []
    done = clipbert(*shlex.split(command), *root, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout + done.stderr


# What a recipe names, and the setting that names it.
NAMED = {
    "data.splits.train.annotations": "absent.jsonl",
    "data.splits.val.annotations": "tables/absent.csv",
    "data.splits.train.media": "absent_media",
    "data.answers": "absent.json",
    "model.tokenizer": "absent_bert",
    "model.weights.bert": "pretrained/absent",
    "model.weights.checkpoint": "runs/absent/best",
    "model.visual.weights": "absent.pth",
}


@pytest.mark.parametrize("setting", NAMED)
def test_a_missing_file_is_named_by_the_absolute_path_that_was_looked_at(
    made_data: Path, tmp_path: Path, clipbert: Clipbert, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    """The recipe's root is relative to its own file, and the command runs in another folder."""
    (tmp_path / "recipes").mkdir()
    (tmp_path / "elsewhere").mkdir()
    root = os.path.relpath(made_data, tmp_path / "recipes")
    (tmp_path / "recipes" / "own.yaml").write_text(f"extends: demo_qa\nname: own\ndata: {{root: {root}}}\n")
    monkeypatch.chdir(tmp_path / "elsewhere")
    common = ["finetune", "--recipe", "../recipes/own.yaml", "--dry-run", *as_options(TINY)]
    if setting == "data.splits.train.annotations":
        sound = clipbert(*common)
        assert sound.returncode == 0, sound.stderr
    done = clipbert(*common, "--set", f"{setting}={NAMED[setting]}")
    assert done.returncode in (1, 2)
    said = " ".join(done.stderr.split())
    assert f"{made_data}/{NAMED[setting]}" in said
    # What a model starts with may be left out, and then its setting is null.
    assert ("at random" in said) == setting.startswith("model.")
