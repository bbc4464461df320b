"""Every shipped recipe is a test case."""

import re
from pathlib import Path

import pytest
from running import KINDS, SIGLIP

from clipbert_cli.contradictions import check_any_recipe
from clipbert_cli.recipe.load import (
    dump_recipe,
    load_recipe,
    preview_recipe,
)
from clipbert_cli.recipe.schema import Recipe
from clipbert_cli.recipe.settings import all_settings, flat
from clipbert_cli.recipe.shipped import find_recipe, shipped_folder, shipped_names
from clipbert_cli.task.registry import task_class

NAMES = shipped_names()
# Recipes of data sets that the paper does not use: nothing of them is published.
FURTHER = ("msvd_qa", "msvd_retrieval", "next_qa")
DATA_SETS = [name for name in NAMES if name not in (*KINDS, *FURTHER, *SIGLIP) and not name.startswith("demo_")]


@pytest.mark.parametrize("name", NAMES)
def test_it_loads_and_loads_back_equal(name, tmp_path):
    recipe = load_recipe(name, data_root=tmp_path)
    (tmp_path / "copy.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(tmp_path / "copy.yaml") == recipe


@pytest.mark.parametrize("name", NAMES)
def test_it_is_called_what_its_file_is_called(name, tmp_path):
    assert load_recipe(name, data_root=tmp_path).name == name


@pytest.mark.parametrize("name", NAMES)
def test_its_first_line_says_what_it_is(name):
    first = find_recipe(name).read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    assert 20 <= len(first) <= 120


@pytest.mark.parametrize("name", NAMES)
def test_it_names_files_relative_to_the_data_root(name, tmp_path):
    recipe = load_recipe(name, data_root=tmp_path)
    # msrvtt_mc is answered by a run of msrvtt_retrieval, and a person names the splits of a kind of task.
    trained = name not in ("msrvtt_mc", *KINDS)
    assert {*recipe.data.train_splits, "val"} <= recipe.data.splits.keys() or not trained
    for split in recipe.data.splits.values():
        assert not split.annotations.startswith(("/", "~"))
        assert not split.media.startswith(("/", "~"))


def test_bases_are_not_listed():
    assert not any(name.startswith("_") for name in NAMES)
    assert sorted(path.stem for path in shipped_folder().glob("[!_]*.yaml")) == NAMES


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_task_has_nothing_that_is_true_of_a_published_run_only(kind):
    recipe = load_recipe(kind, environment={})
    values, defaults = (flat(each.model_dump()) for each in (recipe, Recipe(name="a", task="retrieval")))
    published = [key for key, setting in all_settings().items() if setting.published_only]
    assert len(published) == 5
    assert {key: values[key] for key in published} == {key: defaults[key] for key in published}
    assert (recipe.data.splits, recipe.data.answers, recipe.data.root) == ({}, None, ".")
    assert recipe.model.weights.checkpoint is None


@pytest.mark.parametrize("kind", KINDS)
def test_another_bert_brings_its_vocabulary(kind, tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text(f"extends: {kind}\nname: own\nmodel: {{weights: {{bert: pretrained/other}}}}\n")
    assert load_recipe(own).model.vocabulary == "pretrained/other"
    assert load_recipe(kind).model.vocabulary == "pretrained/bert-base-uncased"


@pytest.mark.parametrize("name", DATA_SETS)
def test_a_published_run_repeats_the_original_sampling(name):
    recipe = load_recipe(name, environment={"DATA": "/data"})
    assert (recipe.data.clip_times, recipe.data.rotation) == ("header", "ignore")


@pytest.mark.parametrize("name", DATA_SETS)
def test_what_a_persons_recipe_has_from_a_published_run_is_named(name, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(f"extends: {name}\nname: mine\ndata: {{root: ., clip_times: presentation}}\n")
    named = [sentence.partition(" ")[0] for sentence in preview_recipe(file).published]
    answers = ["objective.num_labels"] if name in ("msrvtt_qa", "vqa", "tgif_frameqa") else []
    masks = ["objective.mlm_average"] if name == "pretrain_coco_vg" else []
    assert named == ["data.rotation", *answers, *masks]
    chosen = preview_recipe(file, overrides=["data.rotation=ignore", "objective.num_labels=7"]).published
    assert [sentence.partition(" ")[0] for sentence in chosen] == [each for each in named if "mlm" in each]


@pytest.mark.parametrize("name", [*KINDS, *NAMES])
def test_a_shipped_recipe_itself_inherits_nothing_by_accident(name, monkeypatch):
    monkeypatch.setenv("DATA", "/data")
    assert preview_recipe(name).published == ()


@pytest.mark.parametrize("name", SIGLIP)
def test_a_recipe_with_siglip_differs_from_the_published_one_in_what_its_encoder_needs(name):
    names = (name, name.removesuffix("_siglip"))
    recipe, published = (load_recipe(each, environment={"DATA": "/data"}) for each in names)
    assert recipe.published == {}
    own, base = (flat(each.model_dump(exclude={"published"})) for each in (recipe, published))
    changed = {key for key in own if own[key] != base.get(key)}
    assert changed <= {
        *("name", "data.frame_size", "data.num_frames", "data.clip_times", "data.rotation", "train.freeze"),
        *("model.weights.checkpoint", "model.weights.bert", "model.visual.kind", "model.visual.weights"),
        *("model.visual.grid_stride", "train.learning_rate", "train.visual_learning_rate", "train.layer_decay"),
        "train.weight_decay",
    }
    assert recipe.data.frame_size == 224
    assert recipe.model.visual.weights == "hf:google/siglip2-base-patch16-224"
    assert recipe.data.num_clips == (1 if name == "vqa_siglip" else 8)
    assert "No published number" in find_recipe(name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_published_scores_are_those_of_the_table_for_readers(name, tmp_path):
    recipe = load_recipe(name, data_root=tmp_path)
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    cells_of = [row.split("|") for row in readme.splitlines() if row.startswith("|")]
    rows = [row for row in cells_of if f"`{name}`" in row[1]]
    named = [each.strip(" `") for each in rows[0][1].split(",")] if rows else []
    cells = re.findall(r"\d+\.\d+", rows[0][4]) if rows else []
    # Two recipes share a row, and each has one of its scores.
    expected = cells if len(named) == 1 or not cells else [cells[named.index(name)]]
    assert [f"{value}" for scores in recipe.published.values() for value in scores.values()] == expected
    assert bool(expected) == (name in DATA_SETS and name != "pretrain_coco_vg")
    check_any_recipe(recipe)
    for split, scores in recipe.published.items():
        assert split in recipe.data.splits
        assert scores.keys() <= set(task_class(recipe.task).metrics)


@pytest.mark.parametrize("name", FURTHER)
def test_a_recipe_of_another_data_set_has_the_settings_of_its_kind(name):
    recipe = load_recipe(name, environment={"DATA": "/data"})
    kind = {"retrieval": "retrieval", "open_ended_qa": "video_qa", "multiple_choice": "multiple_choice"}[recipe.task]
    own, base = (flat(each.model_dump()) for each in (recipe, load_recipe(kind, environment={})))
    changed = {key for key in own if own[key] != base.get(key)}
    assert {key for key in changed if not key.startswith("data.splits")} <= {
        *("name", "data.root", "data.answers", "data.max_text_length", "objective.num_options"),
    }
    assert set(recipe.data.splits) == {"train", "val", "test"}


def test_msrvtt_qa_has_the_published_settings(tmp_path):
    recipe = load_recipe("msrvtt_qa", environment={"DATA": "/data"})
    assert (recipe.task, recipe.seed, recipe.data.root) == ("open_ended_qa", 42, "/data")
    data, train = recipe.data, recipe.train
    assert (data.media, data.frame_size, data.num_clips, data.num_frames, data.fps) == ("video", 448, 8, 2, 2.0)
    assert (data.max_text_length, data.max_examples_per_group) == (100, 1)
    assert (train.batch_size, train.gradient_accumulation_steps, train.epochs) == (16, 1, 10)
    assert (train.learning_rate, train.visual_learning_rate, train.max_grad_norm) == (5e-5, None, 5.0)
    assert (train.eps, train.weight_decay) == (1e-6, 1e-3)
    assert (train.warmup_ratio, train.schedule) == (0.1, "linear")
    assert (recipe.objective.pool, recipe.objective.num_labels, recipe.infer.num_clips) == ("lse", 1500, 16)
    assert recipe.model.weights.checkpoint == "pretrained/clipbert_image_text_pretrained.pt"
    assert (recipe.model.bert.hidden_dropout, recipe.model.bert.attention_dropout) == (0.1, 0.1)
    assert recipe.model.visual.depths == [3, 4, 6, 3]
