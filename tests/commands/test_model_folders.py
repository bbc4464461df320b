"""What `--run` may name, and what a pretrained model answers without finetuning."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from running import TINY, Clipbert, train

from clipbert_cli.infer.trained import RunSelection, open_run


@pytest.fixture(scope="module")
def exported(trained_run: Path, clipbert: Clipbert, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "model"
    done = clipbert("runs", "export", trained_run, out, "--checkpoint", "latest")
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def places(trained_run: Path, exported: Path) -> dict[str, Path]:
    latest = os.readlink(trained_run / "latest")
    return {"run": trained_run, "link": trained_run / "latest", "step": trained_run / latest, "exported": exported}


@pytest.mark.parametrize("place", ["link", "step", "exported"])
def test_a_run_a_checkpoint_and_an_exported_folder_answer_alike(
    clipbert: Clipbert, places: dict[str, Path], made_data: Path, tmp_path: Path, place: str
) -> None:
    own = clipbert("infer", "--run", places["run"], "--checkpoint", "latest", "--split", "test")
    done = clipbert("infer", "--run", places[place], "--split", "test", "-o", tmp_path / "preds.jsonl")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "preds.jsonl").read_text() == own.stdout
    scored = clipbert("eval", tmp_path / "preds.jsonl", "--run", places[place], "--split", "test", "--json")
    assert scored.returncode == 0, scored.stderr
    question = ["--video", made_data / "videos" / "test0000.mp4", "where is the red square?", "--json"]
    asked = clipbert("ask", "--run", places[place], *question)
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout == clipbert("ask", "--run", places["run"], "--checkpoint", "latest", *question).stdout


@pytest.mark.parametrize(
    ("place", "options", "says"),
    [
        ("link", ["--checkpoint", "step_2"], "--checkpoint is step_2"),
        ("exported", ["--checkpoint", "latest"], "holds one exported model, not the checkpoint 'latest'"),
        ("exported", ["--weights", "ema"], "has no averaged weights"),
    ],
)
def test_options_that_do_not_go_with_a_folder_are_refused(
    clipbert: Clipbert, places: dict[str, Path], place: str, options: list[str], says: str
) -> None:
    done = clipbert("infer", "--run", places[place], "--split", "test", *options)
    assert done.returncode in (1, 2)
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_checkpoint_without_its_run_is_refused(clipbert: Clipbert, trained_run: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step_4").symlink_to((trained_run / "latest").resolve())
    for path in (trained_run / "checkpoints", tmp_path / "checkpoints", tmp_path):
        done = clipbert("infer", "--run", path, "--split", "test")
        assert done.returncode == 2
        assert "a run is expected" in done.stderr


# ---------------------------------------------------------------------------------------------- pretraining alone


@pytest.fixture(scope="module")
def pretrained(made_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = (*TINY, "train.max_steps=2", "model.bert.initializer_range=0.3")
    return train("demo_pretrain", settings, made_data, tmp_path_factory.mktemp("runs") / "pretrained")


@pytest.mark.parametrize(
    ("recipe", "metric"),
    [("demo_retrieval", "recall_at_1"), ("demo_mc", "accuracy"), ("demo_pretrain", "itm_accuracy")],
)
def test_a_pretraining_run_answers_tasks_that_compare_texts(
    clipbert: Clipbert, pretrained: Path, made_data: Path, tmp_path: Path, recipe: str, metric: str
) -> None:
    data, predictions = ["--recipe", recipe, "--data-root", made_data, "--split", "val"], tmp_path / "preds.jsonl"
    done = clipbert("infer", "--run", pretrained, *data, "-o", predictions)
    assert done.returncode == 0, done.stderr
    scored = clipbert("eval", predictions, *data, "--json")
    assert scored.returncode == 0, scored.stderr
    assert 0 <= json.loads(scored.stdout)[metric] <= 100


def test_its_matching_head_scores_pairs(pretrained: Path, made_data: Path) -> None:
    """The score of a text with a video is the probability of `match`, as the whole model gives it."""
    run = open_run(RunSelection(pretrained)).for_ranking("a test")
    split = run.setup.split("val")
    evaluation = run.setup.evaluation(split)
    scores = {each.media_id: each.fields["scores"] for each in run.predict(evaluation)}
    batch = next(iter(run.setup.evaluation(split).batches))
    assert evaluation.shared is not None
    texts = evaluation.shared.texts
    with torch.no_grad():
        visual = run.model.encode_visual(batch.frames)  # (B, K, V, D)
        for item, media_id in enumerate(batch.media_ids):
            rows = visual[item : item + 1].expand(len(texts.ids), *visual.shape[1:])
            outputs = run.model.score(run.model.embed_text(texts.ids), texts.mask, rows)
            expected = outputs.logits.logsumexp(dim=1).softmax(dim=-1)[:, 1]
            torch.testing.assert_close(torch.as_tensor(scores[media_id]), expected, rtol=1e-4, atol=1e-5)


def test_a_pretraining_run_finds_videos_by_text(clipbert: Clipbert, pretrained: Path, made_data: Path) -> None:
    done = clipbert("search", made_data / "vis_db", "a red circle", "--run", pretrained, "--top", 3, "--json")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)
    assert len(found["top"]) == 3


@pytest.mark.parametrize("recipe", ["demo_qa", "demo_vqa"])
def test_a_pretraining_run_has_no_answers(clipbert: Clipbert, pretrained: Path, made_data: Path, recipe: str) -> None:
    done = clipbert("infer", "--run", pretrained, "--recipe", recipe, "--data-root", made_data, "--split", "val")
    assert done.returncode == 2
    assert "the run was trained for 'pretraining'" in done.stderr


def test_a_run_of_questions_finds_nothing_by_text(clipbert: Clipbert, trained_run: Path, made_data: Path) -> None:
    done = clipbert("search", made_data / "vis_db", "a red circle", "--run", trained_run)
    assert done.returncode == 2
    assert "a run of task retrieval is expected" in done.stderr
