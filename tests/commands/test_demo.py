from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from running import Clipbert

from clipbert_cli.commands import demo


def test_the_demo_is_one_json_document_and_shows_its_commands(
    clipbert: Clipbert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(demo.SIZES, "smallest", demo.DemoSize(train=6, val=2, test=2, epochs=1))
    folder = tmp_path / "my demo"
    done = clipbert("demo", "--size", "smallest", "--json", folder)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert list(result) == ["accuracy", "blind_accuracy", "seconds", "folder"]
    assert result["folder"] == str(folder)
    assert 0 <= result["blind_accuracy"] <= 1
    for command in ("pack", "finetune", "infer", "eval"):
        assert f"$ clipbert {command} " in done.stderr
    assert f"'{folder}/videos'" in done.stderr  # quoted: the line can be pasted
    again = clipbert("demo", "--size", "smallest", folder)
    assert again.returncode == 1
    assert "is not empty" in again.stderr
    made = clipbert("demo", "--size", "smallest", "--force", folder)
    assert made.returncode == 0
    first, second = made.stdout.splitlines()
    assert re.fullmatch(r"accuracy        \d\.\d{3}   on 2 videos that training never saw", first)
    assert re.fullmatch(r"blind baseline  \d\.\d{3}   same model, frames blacked out", second)
    assert "Ask it something:" in made.stderr
    assert "blind baseline" not in made.stderr


@pytest.mark.parametrize(
    ("task", "keys", "commands"),
    [
        ("retrieval", ["recall_at_1", "chance"], ["pack", "finetune", "infer", "eval"]),
        ("mc", ["accuracy", "blind_accuracy"], ["pack", "finetune", "infer", "eval"]),
        ("vqa", ["accuracy", "blind_accuracy"], ["pack", "finetune", "infer", "eval"]),
        ("pretrain", ["recall_at_1", "recall_at_1_from_scratch"], ["pack", "pretrain", "finetune", "infer", "eval"]),
    ],
)
def test_every_task_has_a_demo(
    clipbert: Clipbert,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    keys: list[str],
    commands: list[str],
) -> None:
    monkeypatch.setitem(demo.SIZES, "smallest", demo.DemoSize(train=6, val=2, test=3, epochs=1))
    done = clipbert("demo", "--task", task, "--size", "smallest", "--json", tmp_path / "demo")
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)) == [*keys, "seconds", "folder"]
    for command in commands:
        assert f"$ clipbert {command} " in done.stderr


def test_a_demo_that_was_stopped_goes_on_with_what_is_not_complete(
    clipbert: Clipbert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(demo.SIZES, "smallest", demo.DemoSize(train=6, val=2, test=2, epochs=1))
    words = ["demo", "--size", "smallest", "--json", tmp_path / "demo"]
    whole = clipbert(*words)
    mark = tmp_path / "demo" / demo.MARK
    noted = json.loads(mark.read_text())
    steps = noted["done"]
    names = [step.partition(" ")[0] for step in steps]
    assert names == [
        "media",
        "pack",
        "finetune",
        *2 * ("infer", "eval"),
        "complete",
    ]
    for count in range(len(steps)):
        mark.write_text(json.dumps({**noted, "done": steps[:count]}))
        other = clipbert(*words, "--seed", "1")
        assert other.returncode == 1
        assert "it has an earlier demo" in other.stderr
        done = clipbert(*words)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("this was done before") == max(0, count - 2)
        results = [json.loads(each.stdout) for each in (whole, done)]
        assert [result["accuracy"] for result in results] == [results[0]["accuracy"]] * 2
        assert json.loads(mark.read_text())["done"][-1] == "complete"


def test_the_demo_never_removes_a_folder_that_is_none_of_its_own(clipbert: Clipbert, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("x")
    done = clipbert("demo", "--size", "smallest", "--force", tmp_path)
    assert done.returncode == 1
    assert "is not empty" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]
