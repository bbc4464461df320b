"""`infer --clip-scores`, and the meta file beside predictions."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import Clipbert

from clipbert_cli.build import evaluation_sampling
from clipbert_cli.media.sampling import select
from clipbert_cli.recipe.load import load_recipe
from clipbert_cli.runs.checkpoint import content_of
from clipbert_cli.store.lmdb_store import open_store


def infer(clipbert: Clipbert, run: Path, out: Path, *arguments: object) -> list[dict[str, Any]]:
    done = clipbert("infer", "--run", run, "--split", "test", "-o", out, *arguments)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_clips_have_the_frames_that_sampling_chooses_and_their_times(
    clipbert: Clipbert, trained_run: Path, made_data: Path, tmp_path: Path
) -> None:
    settings = ("infer.num_clips=3", "data.num_frames=2", "data.fps=4")
    words = [word for each in settings for word in ("--set", each)]
    lines = infer(clipbert, trained_run, tmp_path / "p.jsonl", "--clip-scores", *words)
    plain = infer(clipbert, trained_run, tmp_path / "q.jsonl", *words)
    sampling = evaluation_sampling(load_recipe(trained_run / "recipe.yaml", overrides=settings))
    store = open_store(made_data / "vis_db")
    for line, other in zip(lines, plain, strict=True):
        info = store.info(line["media_id"])
        assert info
        clips = line.pop("clips")
        assert [tuple(clip["frames"]) for clip in clips] == list(select(info, sampling))
        for clip in clips:
            expected = [float(info.pts[index] * info.time_base) for index in clip["frames"]]
            assert clip["seconds"] == pytest.approx(expected, abs=1e-6)
            assert clip["answer"] == clip["top"][0]["answer"]
        # The pooled prediction is what it was.
        assert line.items() >= {name: other[name] for name in ("media_id", "answer", "correct")}.items()
        assert line["score"] == pytest.approx(other["score"], abs=1e-6)


def test_a_single_clip_says_what_the_prediction_is(
    clipbert: Clipbert, trained_run: Path, choice_run: Path, retrieval_run: Path, tmp_path: Path
) -> None:
    for number, run in enumerate((trained_run, choice_run, retrieval_run)):
        lines = infer(clipbert, run, tmp_path / f"{number}.jsonl", "--clip-scores", "--set", "infer.num_clips=1")
        for line in lines:
            if "texts" in line:
                continue
            (clip,) = line["clips"]
            for name in {"answer", "option", "top", "score", "scores"} & line.keys():
                assert clip[name] == line[name]


def test_clips_of_a_retrieval_model_differ_and_are_still_scored(
    clipbert: Clipbert, retrieval_run: Path, tmp_path: Path
) -> None:
    preds = tmp_path / "p.jsonl"
    _, *lines = infer(clipbert, retrieval_run, preds, "--clip-scores", "--set", "infer.num_clips=4")
    for line in lines:
        scores = np.array([clip["scores"] for clip in line["clips"]])
        assert scores.shape == (4, len(line["scores"]))
        assert np.ptp(scores, axis=0).max() > 0
    done = clipbert("eval", preds, "--run", retrieval_run, "--split", "test")
    assert done.returncode == 0, done.stderr
    page = tmp_path / "r.html"
    assert clipbert("report", preds, "-o", page).returncode == 0
    assert len(re.findall(r"<br>0\.\d\d<", page.read_text())) >= 4 * len(lines)


def test_the_meta_file_says_what_made_the_predictions(
    clipbert: Clipbert, trained_run: Path, made_data: Path, tmp_path: Path
) -> None:
    preds = tmp_path / "p.jsonl"
    infer(clipbert, trained_run, preds, "--set", "infer.num_clips=3", "--checkpoint", "latest")
    meta = json.loads((tmp_path / "p.jsonl.meta.json").read_text())
    assert meta["run"] == str(trained_run)
    assert meta["checkpoint"] == "step_4"
    assert (meta["split"], meta["sampling"]["num_clips"]) == ("test", 3)
    assert meta["recipe"]["infer"]["num_clips"] == 3
    assert meta["predictions"] == content_of(preds)
    assert meta["libraries"]["torch"]
    # It replaces that of other predictions, and its weights are those of the checkpoint.
    infer(clipbert, trained_run, preds, "--checkpoint", "step_2", "--overwrite")
    other = json.loads((tmp_path / "p.jsonl.meta.json").read_text())
    assert other["checkpoint"] == "step_2"
    assert other["weights_crc32"] != meta["weights_crc32"]
    done = clipbert("infer", "--run", trained_run, "--split", "test", cwd=tmp_path)
    assert done.returncode == 0
    assert sorted(each.name for each in tmp_path.iterdir()) == ["p.jsonl", "p.jsonl.meta.json"]


def test_a_report_takes_recipe_split_and_sampling_from_it(
    clipbert: Clipbert, trained_run: Path, tmp_path: Path
) -> None:
    preds = tmp_path / "p.jsonl"
    infer(clipbert, trained_run, preds, "--set", "infer.num_clips=3", "--clip-scores")
    done = clipbert("report", preds, "-o", tmp_path / "r.html")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "r.html").read_text()
    for text in (str(trained_run), "checkpoint</dt><dd><bdi>step_", "3 clips of", "torch", "1 x cpu"):
        assert text in page
    lines = [json.loads(line) for line in preds.read_text().splitlines()]
    for clip in lines[0]["clips"]:
        assert f"<br>{clip['answer']} {clip['score']:.2f}<" in page
    # Predictions that were changed are not what the file speaks of.
    preds.write_text(preds.read_text() + "\n")
    done = clipbert("report", preds, "-o", tmp_path / "s.html")
    assert done.returncode == 2
    assert "--recipe or --run is missing" in done.stderr
    done = clipbert("report", preds, "--run", trained_run, "--split", "test", "-o", tmp_path / "s.html")
    assert done.returncode == 0, done.stderr
    assert "unknown: p.jsonl.meta.json belongs to other predictions" in (tmp_path / "s.html").read_text()


@pytest.mark.parametrize("clips", ["x", [1], [{"answer": 3}], [{"scores": "no"}], {"a": 1}, [None, {"score": "x"}]])
def test_clips_of_a_strange_file_are_left_out(
    clipbert: Clipbert, trained_run: Path, tmp_path: Path, clips: object
) -> None:
    preds = tmp_path / "p.jsonl"
    lines = infer(clipbert, trained_run, preds)
    preds.write_text("".join(json.dumps({**line, "clips": clips}) + "\n" for line in lines))
    selected = ("--run", trained_run, "--split", "test", "--examples", "5")
    done = clipbert("report", preds, *selected, "-o", tmp_path / "r.html")
    assert done.returncode == 0, done.stderr


def test_what_has_no_clips_is_refused(clipbert: Clipbert, retrieval_run: Path, tmp_path: Path) -> None:
    arguments = ("--run", retrieval_run, "--split", "test", "--clip-scores", "--format", "scores", "-o", "out")
    done = clipbert("infer", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert "--clip-scores is given with" in done.stderr
    assert not list(tmp_path.iterdir())
