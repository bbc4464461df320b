"""Every shipped recipe, shrunk by `--set` alone, through train, infer and eval on data in its own format."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from colour_data import NAMES, SMALL, write_colour_data
from made_vision_models import write_vision_model
from running import SIGLIP, Clipbert, as_options, records
from torch._dynamo.backends.debugging import aot_eager

from clipbert_cli.recipe.load import list_recipes

CHANCE = 100 / len(NAMES)
FEW_CLIPS = ("data.num_clips=2",)

# recipe -> more settings, the metric, and what it must beat; chance is one colour of eight unless said otherwise.
RUNS: dict[str, tuple[tuple[str, ...], str, float]] = {
    "msrvtt_retrieval": (("train.epochs=40", *FEW_CLIPS), "recall_at_1", CHANCE),
    "didemo_retrieval": (("train.epochs=40", "train.gradient_accumulation_steps=1", *FEW_CLIPS), "recall_at_1", CHANCE),
    "anet_retrieval": (("train.epochs=60", *FEW_CLIPS), "recall_at_1", CHANCE),
    "tgif_action": (("train.epochs=30",), "accuracy", 20),
    "tgif_transition": (("train.epochs=30",), "accuracy", 20),
    "tgif_frameqa": (("train.epochs=20",), "accuracy", CHANCE),
    "msrvtt_qa": (("train.epochs=20", *FEW_CLIPS), "accuracy", CHANCE),
    "vqa": (("train.epochs=40", f"objective.num_labels={len(NAMES)}"), "accuracy", 2 * CHANCE),
    "pretrain_coco_vg": (
        ("train.epochs=40", "train.gradient_accumulation_steps=1", "model.pixel_random_sampling_size=1"),
        "mlm_accuracy",
        50,
    ),
}
FURTHER = ("msvd_qa", "msvd_retrieval", "next_qa")
TEST_SPLIT = {"anet_retrieval": "val", "vqa": "val", "pretrain_coco_vg": "val_vg"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("colours")
    write_colour_data(folder)
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, clipbert: Clipbert, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The run of a recipe, trained once for all tests of this file."""
    runs: dict[str, Path] = {}

    def run_of(recipe: str) -> Path:
        if recipe not in runs:
            run = tmp_path_factory.mktemp(recipe) / "run"
            settings, _, _ = RUNS[recipe]
            command = "pretrain" if recipe.startswith("pretrain") else "finetune"
            options = as_options([*SMALL, "train.validate_every_steps=1000", *settings])
            done = clipbert(command, "--recipe", recipe, "--data-root", data, "--run", run, "--json", *options)
            assert done.returncode == 0, done.stderr
            runs[recipe] = run
        return runs[recipe]

    return run_of


def scores(clipbert: Clipbert, data: Path, run: Path, recipe: str, split: str, folder: Path) -> dict[str, Any]:
    """Infer, then eval."""
    predictions = folder / f"{recipe}.jsonl"
    common = ["--recipe", recipe, "--split", split, "--data-root", data]
    settings = as_options(["data.workers=0", "infer.num_clips=2"])
    done = clipbert("infer", "--run", run, *common, "-o", predictions, *settings)
    assert done.returncode == 0, done.stderr
    done = clipbert("eval", predictions, *common, "--json")
    assert done.returncode == 0, done.stderr
    metrics: dict[str, Any] = json.loads(done.stdout)
    table = clipbert("eval", predictions, *common)
    assert table.returncode == 0, table.stderr
    assert "%" in table.stdout
    return metrics


@pytest.mark.parametrize("recipe", sorted(RUNS))
def test_a_recipe_learns(
    recipe: str, data: Path, trained: Callable[[str], Path], clipbert: Clipbert, tmp_path: Path
) -> None:
    run = trained(recipe)
    losses = [record.get("mlm", record["loss"]) for record in records(run, "train")]
    # Of pretraining the masked words: that few steps do not teach what matches.
    tenth = max(1, len(losses) // 10)
    assert sum(losses[-tenth:]) < 0.7 * sum(losses[:tenth])
    _, metric, chance = RUNS[recipe]
    metrics = scores(clipbert, data, run, recipe, TEST_SPLIT.get(recipe, "test"), tmp_path)
    assert metrics[metric] > 2 * chance if chance < 50 else metrics[metric] > chance
    assert metrics[metric] == pytest.approx(records(run, "validation")[-1][metric], abs=40)


def test_multiple_choice_is_answered_by_a_retrieval_run(
    data: Path, trained: Callable[[str], Path], clipbert: Clipbert, tmp_path: Path
) -> None:
    metrics = scores(clipbert, data, trained("msrvtt_retrieval"), "msrvtt_mc", "test", tmp_path)
    assert metrics["accuracy"] > 40
    assert metrics["count"] == len(NAMES)


@pytest.mark.parametrize("recipe", ["msrvtt_retrieval", "tgif_action", "msrvtt_qa", "vqa", "pretrain_coco_vg"])
def test_a_compiled_model_takes_the_same_steps(
    recipe: str, data: Path, clipbert: Clipbert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recipe of every task, its model in one graph; making machine code of the graphs would take too long."""
    graphs: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        graphs.append(len(graph.graph.nodes))
        return aot_eager(graph, inputs)

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend, fullgraph=True))
    losses = {}
    for compiled in (False, True):
        run = tmp_path / f"compiled_{compiled}"
        settings = [*SMALL, *FEW_CLIPS, "model.bert.num_hidden_layers=1", "train.max_steps=4"]
        settings += ["train.validate_every_steps=4", f"train.compile={compiled}"]
        command = "pretrain" if recipe.startswith("pretrain") else "finetune"
        more = ["model.pixel_random_sampling_size=1"] if command == "pretrain" else []
        done = clipbert(command, "--recipe", recipe, "--data-root", data, "--run", run, *as_options(settings + more))
        assert done.returncode == 0, done.stderr
        losses[compiled] = [record["loss"] for record in records(run, "train")]
    assert len(losses[True]) == 4
    assert losses[True][0] == pytest.approx(losses[False][0], rel=1e-6)
    assert losses[True] == pytest.approx(losses[False], rel=1e-4)  # Adam's first updates have the size of the rate
    assert graphs


# recipe of a kind of task -> its splits `train` and `val`, and more of the `data` section.
OWN_DATA = {
    "video_qa": ("msrvtt_qa/{}", "msrvtt", "answers: txt_db/msrvtt_qa/train_ans2label.json"),
    "image_qa": ("vqa/vqa_k_{}", "coco_train2014_val2014", "answers: txt_db/vqa/trainval_ans2label.json"),
    "multiple_choice": ("msrvtt_mc/{}", "msrvtt", "answers: null"),
    "retrieval": ("msrvtt_retrieval/{}", "msrvtt", "answers: null"),
    "pretraining": ("pretrain/coco_{}_captions", "coco_train2014_val2014", "answers: null"),
}


@pytest.mark.parametrize("kind", OWN_DATA)
def test_a_recipe_for_own_data_names_files_alone(kind: str, data: Path, clipbert: Clipbert, tmp_path: Path) -> None:
    annotations, media, answers = OWN_DATA[kind]
    names = ("trainval", "test") if kind == "image_qa" else ("train", "val")
    own = tmp_path / "own.yaml"
    own.write_text(
        f"extends: {kind}\nname: own\ndata:\n  root: {data}\n  {answers}\n  splits:\n"
        + "".join(
            f"    {split}: {{annotations: txt_db/{annotations.format(name)}.jsonl, media: vis_db/{media}}}\n"
            for split, name in zip(("train", "val"), names, strict=True)
        )
    )
    small = as_options([*SMALL, *FEW_CLIPS, "train.max_steps=1", "model.pixel_random_sampling_size=1"])
    command = "pretrain" if kind == "pretraining" else "finetune"
    checked = clipbert(command, "--recipe", own, "--run", tmp_path / "dry", "--dry-run", *small)
    assert checked.returncode == 0, checked.stderr
    assert "inherited" not in checked.stderr
    done = clipbert(command, "--recipe", own, "--run", tmp_path / "run", "--json", *small)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["best"]["step"] == 1


def test_a_dry_run_lists_what_is_inherited_of_a_published_run(data: Path, clipbert: Clipbert, tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("extends: msrvtt_qa\nname: own\ndata: {rotation: apply}\n")
    common = ["--run", tmp_path / "run", "--data-root", data, "--dry-run", *as_options([*SMALL, *FEW_CLIPS])]
    listed = clipbert("finetune", "--recipe", own, *common).stderr
    assert 'inherited  data.clip_times is "header", as a published run has it (' in listed
    assert "inherited  objective.num_labels is 1500, as a published run has it (" in listed
    assert "inherited  data.rotation" not in listed
    assert "inherited" not in clipbert("finetune", "--recipe", "msrvtt_qa", *common).stderr


def test_every_shipped_recipe_is_tested_here() -> None:
    shipped = {recipe.name for recipe in list_recipes() if not recipe.name.startswith("demo_")}
    assert shipped == {*RUNS, *FURTHER, *OWN_DATA, *SIGLIP, "msrvtt_mc"}


@pytest.mark.parametrize("recipe", SIGLIP)
def test_a_recipe_with_a_vision_model_runs(recipe: str, data: Path, clipbert: Clipbert, tmp_path: Path) -> None:
    write_vision_model("siglip", tmp_path / "siglip")
    settings = [*SMALL, *FEW_CLIPS, "train.max_steps=2", f"model.visual.weights={tmp_path / 'siglip'}"]
    settings += ["model.visual.pixel_mean=null", "model.visual.pixel_std=null"]
    settings += [f"objective.num_labels={len(NAMES)}", "data.num_clips=1"] if recipe == "vqa_siglip" else []
    run = tmp_path / "run"
    done = clipbert("finetune", "--recipe", recipe, "--data-root", data, "--run", run, *as_options(settings))
    assert done.returncode == 0, done.stderr
    assert "siglip, 64 pixels, grid 4 x 4, averaged 2 x 2" in done.stderr
    assert "learning rate 1e-05 times 0.316 to 1" in done.stderr  # three blocks and the stem
    split = "val" if recipe == "vqa_siglip" else "test"
    metrics = scores(clipbert, data, run, recipe, split, tmp_path)
    assert metrics["texts" if "texts" in metrics else "count"] == len(NAMES)


@pytest.mark.parametrize("recipe", FURTHER)
def test_a_recipe_of_a_data_set_that_the_paper_does_not_use_runs(
    recipe: str, data: Path, clipbert: Clipbert, tmp_path: Path
) -> None:
    small = as_options([*SMALL, *FEW_CLIPS, "train.max_steps=2"])
    done = clipbert("finetune", "--recipe", recipe, "--data-root", data, "--run", tmp_path / "run", *small)
    assert done.returncode == 0, done.stderr
    assert "inherited" not in done.stderr
    metrics = scores(clipbert, data, tmp_path / "run", recipe, "test", tmp_path)
    assert metrics["count" if "count" in metrics else "texts"] == len(NAMES)


def test_a_submission_has_a_number_and_an_answer_for_every_question(
    data: Path, trained: Callable[[str], Path], clipbert: Clipbert
) -> None:
    done = clipbert("infer", "--run", trained("vqa"), "--split", "test_std", "--format", "vqa-submission")
    assert done.returncode == 0, done.stderr
    submission = json.loads(done.stdout)
    assert [row["question_id"] for row in submission] == list(range(len(NAMES)))
    assert all(set(row) == {"question_id", "answer"} and row["answer"] in NAMES for row in submission)
    wrong = clipbert("infer", "--run", trained("msrvtt_qa"), "--split", "test", "--format", "vqa-submission")
    assert wrong.returncode == 2
    assert "--format is vqa-submission, but the run's task is not image_qa" in wrong.stderr


def test_a_search_lists_the_best_videos_of_a_folder(
    data: Path, trained: Callable[[str], Path], clipbert: Clipbert
) -> None:
    """No annotations, no store: a folder of files, and any text."""
    texts = [f"the {colour} thing" for colour in NAMES]
    folder = data / "vis_db" / "msrvtt"
    run = trained("msrvtt_retrieval")
    done = clipbert("search", folder, *texts, "--run", run, "--top", 3, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [row["text"] for row in found] == texts
    for row in found:
        ranked = [item["score"] for item in row["top"]]
        assert len(ranked) == 3
        assert ranked == sorted(ranked, reverse=True)
    right = [row["top"][0]["media_id"].endswith(colour) for row, colour in zip(found, NAMES, strict=True)]
    assert sum(right) > len(NAMES) / 4
    table = clipbert("search", folder, texts[0], "--run", run, "--top", 1)
    assert len(table.stdout.splitlines()) == 1
    assert "the red thing" in table.stdout


def test_one_question_with_options_about_one_file(
    data: Path, trained: Callable[[str], Path], clipbert: Clipbert
) -> None:
    file = data / "vis_db" / "tgif" / "test_0_red.gif"
    options = [word for colour in ("green", "red", "blue") for word in ("--option", colour)]
    asked = ["what color is it ?", "--video", file, *options, "--set", "infer.num_clips=1", "--json"]
    done = clipbert("ask", "--run", trained("tgif_action"), *asked)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert row["option"] == ("green", "red", "blue")[row["answer"]]
    assert sorted(each["option"] for each in row["top"]) == ["blue", "green", "red"]
    assert sum(each["score"] for each in row["top"]) == pytest.approx(1, abs=1e-5)
    wrong = clipbert("ask", "--run", trained("msrvtt_qa"), *asked)
    assert (wrong.returncode, "--option" in wrong.stderr) == (2, True)
