"""`clipbert runs`: lists, pictures, exports."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from running import TINY, Clipbert, ClipbertProcess, records
from safetensors.torch import load_file

from clipbert_cli.infer.trained import RunSelection, open_run
from clipbert_cli.model.pretrained import from_pretrained
from clipbert_cli.recipe.load import load_recipe
from clipbert_cli.runs.folder import RunFolder
from clipbert_cli.train.training import Training


@pytest.fixture(scope="module")
def averaged(made_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that kept a moving average. Not to be changed."""
    run = tmp_path_factory.mktemp("runs") / "averaged"
    overrides = [*TINY, "train.ema_decay=0.9", "train.learning_rate=0.01"]
    Training(load_recipe("demo_qa", overrides=overrides, data_root=made_data), run).run()
    return run


def test_runs_are_listed_with_state_step_and_best(clipbert: Clipbert, averaged: Path, tmp_path: Path) -> None:
    shutil.copytree(averaged, tmp_path / "done", symlinks=True)
    shutil.copytree(averaged, tmp_path / "half", symlinks=True)
    shutil.rmtree(tmp_path / "half" / "checkpoints" / "step_4")
    (tmp_path / "notes").mkdir()
    found = json.loads(clipbert("runs", "ls", tmp_path, "--json").stdout)
    assert [(Path(run["run"]).name, run["state"], run["step"]) for run in found] == [
        ("done", "finished", 4),
        ("half", "stopped", 2),
    ]
    assert {run["metric"] for run in found} == {"accuracy"}
    best = max(record["accuracy"] for record in records(averaged, "validation"))
    assert found[0]["best"] == best
    shown = clipbert("runs", "ls", tmp_path)
    assert "finished" in shown.stdout
    assert "4/4" in shown.stdout
    assert f"accuracy {best:.2f} at step {found[0]['best_step']}" in shown.stdout
    with RunFolder(tmp_path / "half").locked():
        pass  # a lock that is let go of leaves the run stopped
    assert json.loads(clipbert("runs", "ls", tmp_path, "--json").stdout)[1]["state"] == "stopped"


def test_no_runs_are_no_error(clipbert: Clipbert, tmp_path: Path) -> None:
    done = clipbert("runs", "ls", tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert "no runs in" in done.stderr
    assert "clipbert runs ls" not in done.stderr


@pytest.mark.parametrize("folders", [["runs/qa"], ["my runs/one", "my runs/two"], ["a/first", "b/second", "none"]])
def test_runs_one_folder_further_down_are_named(clipbert: Clipbert, tmp_path: Path, folders: list[str]) -> None:
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
        if folder != "none":
            (tmp_path / folder / "recipe.yaml").touch()
    done = clipbert("runs", "ls", ".", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    parent = folders[0].partition("/")[0]
    assert f"there are some in {parent}: {shlex.join(['clipbert', 'runs', 'ls', parent])}" in " ".join(
        done.stderr.split()
    )


@pytest.mark.parametrize("weights", ["plain", "ema", "auto"])
def test_an_export_is_what_from_pretrained_reads(
    clipbert: Clipbert, averaged: Path, tmp_path: Path, weights: str
) -> None:
    out = tmp_path / "model"
    done = clipbert("runs", "export", averaged, out, "--checkpoint", "latest", "--weights", weights)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in out.iterdir()} == {
        *("config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json", "answers.json", "recipe.yaml"),
    }
    found = dict(from_pretrained(out).named_parameters())
    plain = dict(from_pretrained(averaged / "latest").named_parameters())
    average = load_file(averaged / "latest" / "average.safetensors")
    assert average.keys() == plain.keys()
    assert any(not torch.equal(average[name], plain[name]) for name in plain)
    expected = plain if weights == "plain" else average  # validation scored the average
    assert all(torch.equal(found[name], expected[name]) for name in plain)


@pytest.mark.parametrize("weights", ["plain", "ema", "auto"])
def test_inference_takes_either_set_of_weights(averaged: Path, weights: str) -> None:
    found = dict(open_run(RunSelection(averaged, "latest", weights)).model.named_parameters())
    plain = dict(from_pretrained(averaged / "latest").named_parameters())
    average = load_file(averaged / "latest" / "average.safetensors")
    expected = plain if weights == "plain" else average
    assert all(torch.equal(found[name], expected[name]) for name in plain)


def test_what_cannot_be_exported_is_refused(clipbert: Clipbert, trained_run: Path, tmp_path: Path) -> None:
    done = clipbert("runs", "export", trained_run, tmp_path)
    assert (done.returncode, "exists already" in done.stderr) == (1, True)
    done = clipbert("runs", "export", trained_run, tmp_path / "out", "--weights", "ema")
    assert done.returncode == 1
    assert "has no averaged weights" in done.stderr
    done = clipbert("runs", "export", trained_run, tmp_path / "out", "--checkpoint", "step_99")
    assert "it has step_2, step_4" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("count", [2, 4])
def test_several_questions_at_once_on_an_exported_run_do_not_meet(
    clipbert: Clipbert,
    clipbert_process: ClipbertProcess,
    trained_run: Path,
    made_data: Path,
    tmp_path: Path,
    count: int,
) -> None:
    model = tmp_path / "model"
    assert clipbert("runs", "export", trained_run, model).returncode == 0
    before = {path: path.read_bytes() for path in model.iterdir()}
    asked = [
        ["ask", "--run", model, "--video", made_data / f"videos/test{number:04}.mp4", "what?", "--json"]
        for number in range(count)
    ]
    processes = [clipbert_process(*words) for words in asked]
    answers = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * count, answers
    assert [stderr for _, stderr in answers] == [""] * count
    for words, (stdout, _) in zip(asked, answers, strict=True):
        (alone,), (together,) = json.loads(clipbert(*words).stdout), json.loads(stdout)
        assert together["answer"] == alone["answer"]
        assert together["score"] == pytest.approx(alone["score"], abs=1e-5)
    assert {path: path.read_bytes() for path in model.iterdir()} == before


def overwrite_state(run: Path, content: str) -> None:
    for state in (run / "checkpoints").glob("*/state.json"):
        state.write_text(content, encoding="utf-8")


def loop(link: Path) -> None:
    link.unlink(missing_ok=True)
    link.symlink_to(link.name)


def validated(run: Path, **values: object) -> None:
    """Add a record of a validation at the best step, with some of its values replaced."""
    step = int((run / "best").resolve().name.removeprefix("step_"))
    record = {"event": "validation", "step": step, "accuracy": 50.0, **values}
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda run: overwrite_state(run, '{"step": "one", "total_steps": 3}'), "bad: step of its records is 'one'"),
        (lambda run: overwrite_state(run, '{"step": 1, "total_steps": [3]}'), "bad: total_steps of its records is [3]"),
        (lambda run: overwrite_state(run, '{"step": 1, "metric": {}}'), "bad: metric of its records is {}"),
        (lambda run: loop(run / "best"), "[Errno 40] Too many levels of symbolic links: "),
        (
            lambda run: loop(run / "metrics.jsonl"),
            "bad/metrics.jsonl cannot be read: Too many levels of symbolic links",
        ),
        *[
            (lambda run, score=score: validated(run, accuracy=score), f"bad: accuracy of its records is {score!r}")
            for score in ("50", [], {}, True)
        ],
    ],
)
def test_one_damaged_run_does_not_hide_the_others(
    damage: Callable[[Path], object], reason: str, clipbert: Clipbert, trained_run: Path, tmp_path: Path
) -> None:
    for name in ("bad", "good"):
        shutil.copytree(trained_run, tmp_path / name, symlinks=True)
    damage(tmp_path / "bad")
    done = clipbert("runs", "ls", ".", cwd=tmp_path)
    assert "good" in done.stdout
    assert "finished" in done.stdout
    listed = {Path(run["run"]).name: run for run in json.loads(clipbert("runs", "ls", tmp_path, "--json").stdout)}
    assert listed["good"]["state"] == "finished"
    assert (done.returncode, listed["bad"]["state"]) == (1, "damaged")
    assert f"warning: damaged: bad: {reason}" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        "infer --run loop --split test -o new.jsonl",
        "eval preds.jsonl --run loop --split test",
        "ask --run loop --video a.mp4 what?",
        "report --run loop -o new.html",
        "finetune --run loop --resume",
        "runs export loop new",
        "search . what --run loop",
    ],
)
def test_a_link_to_itself_is_no_run(words: str, clipbert: Clipbert, tmp_path: Path) -> None:
    loop(tmp_path / "loop")
    (tmp_path / "a.mp4").touch()
    (tmp_path / "preds.jsonl").write_text('{"media_id": "a", "text_digest": "b"}\n')
    done = clipbert(*words.split(), cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert done.stderr.count("error: ") == 1
    assert "loop" in done.stderr


def unreadable(metrics: Path, kind: str) -> None:
    metrics.unlink()
    if kind == "a folder":
        metrics.mkdir()
    elif kind == "a loop":
        metrics.symlink_to(metrics.name)
    elif kind == "a pipe":
        os.mkfifo(metrics)
    elif kind == "a device":
        metrics.symlink_to("/dev/zero")
    else:
        metrics.write_bytes(b"x" * (2**25 + 10))


@pytest.mark.parametrize("kind", ["a folder", "a loop", "a pipe", "a device", "a line without end"])
def test_a_run_that_cannot_be_read_does_not_keep_others_from_being_reported(
    kind: str, clipbert: Clipbert, trained_run: Path, tmp_path: Path
) -> None:
    for name in ("bad", "good"):
        shutil.copytree(trained_run, tmp_path / name, symlinks=True)
    unreadable(tmp_path / "bad" / "metrics.jsonl", kind)
    done = clipbert("report", "--run", "bad", "--run", "good", "-o", "report.html", cwd=tmp_path)
    assert done.returncode == 1
    assert "warning: damaged: bad: " in done.stderr
    page = (tmp_path / "report.html").read_text()
    assert "damaged: " in page
    assert "finished" in page
