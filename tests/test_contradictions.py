"""What `recipes validate` and every training refuse or warn about before they read any data."""

import re

import pytest
from running import KINDS

from clipbert_cli.contradictions import check_any_recipe, check_training_recipe
from clipbert_cli.errors import RecipeError
from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.model.freezing import PART
from clipbert_cli.model.heads import HeadSpec
from clipbert_cli.recipe.load import load_recipe
from clipbert_cli.recipe.shipped import shipped_names

ROOTS = {"DATA": "/data"}


def recipe(base, *overrides):
    return load_recipe(base, overrides=overrides, environment=ROOTS)


@pytest.mark.parametrize(
    ("base", "overrides", "says"),
    [
        ("demo_qa", ["data.answers=null"], "data.answers is null, but task open_ended_qa chooses from a list"),
        ("demo_vqa", ["data.answers=null"], "data.answers is null, but task image_qa chooses from a list"),
        ("demo_qa", ["task=retrieval"], "data.answers is 'txt_db/answers.json', .*: set data.answers to null"),
        ("demo_qa", ["task=multiple_choice"], "task multiple_choice has no list of answers"),
        ("msrvtt_qa", ["task=pretraining"], "task pretraining has no list of answers"),
        ("demo_qa", ["data.splits.train=null"], "train_splits has 'train', but data.splits has val, test: add"),
        ("demo_qa", ["data.train_splits=[train, more]"], "train_splits has 'more', but data.splits has train, val"),
        ("demo_qa", ["data.train_splits=[train, train]"], "train_splits has 'train' 2 times"),
        ("demo_qa", ["train.best_metric=acuracy"], "best_metric is 'acuracy', .* did you mean accuracy"),
        ("demo_retrieval", ["train.best_metric=accuracy"], "must be one of recall_at_1, recall_at_5, recall_at_10"),
        ("demo_pretrain", ["train.best_metric=-perplexity"], "must be one of mlm_accuracy, itm_accuracy"),
        ("demo_qa", ["published.test={acuracy: 1}"], r"published\.test\.acuracy is no metric .* did you mean accuracy"),
        ("demo_mc", ["published.test={count: 1}"], r"published\.test\.count is no metric .* one of accuracy \("),
        ("demo_pretrain", ["published.val={masked_words: 1}"], r"masked_words is no metric"),
        ("demo_retrieval", ["published.test={count: 1}"], r"published\.test\.count is no metric"),
        ("demo_retrieval", ["train.best_metric=-count"], "must be one of recall_at_1, recall_at_5, recall_at_10"),
        ("demo_retrieval", ["published.test={accuracy: 1}"], "must be one of recall_at_1, recall_at_5, recall_at_10"),
        ("demo_vqa", ["published.tests={accuracy: 1}"], r"published\.tests is no split, .* did you mean test\?"),
        ("demo_qa", ["train.freeze=[visual.stm]"], "'visual.stm', which is no part of a model: name visual, "),
        ("demo_qa", ["train.freeze=[visual, transformer.first]"], "'transformer.first', which is no part"),
        ("demo_qa", ["train.freeze=[head, visual, transformer]"], "nothing is left to train"),
        (
            "msrvtt_qa",
            ["model.visual.kind=hf", "model.weights.checkpoint=null"],
            "weights is null: with kind hf it names the folder",
        ),
        (
            "demo_qa",
            ["model.visual.kind=hf", "model.visual.weights=a/R-50.pth"],
            "'a/R-50.pth': with kind hf it names the folder",
        ),
        (
            "demo_qa",
            ["model.visual.weights=hf:google/siglip"],
            "'hf:google/siglip', but .*kind is resnet: set it to hf",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused(base, overrides, says):
    with pytest.raises(RecipeError, match=says):
        check_training_recipe(recipe(base, *overrides))


def test_a_split_for_validation_is_left_out_only_by_saying_so(tmp_path):
    file = tmp_path / "own.yaml"
    text = "extends: retrieval\nname: own\ndata: {{splits: {{train: {{annotations: a.csv, media: a}}{}}}}}\n"
    file.write_text(text.format(""))
    with pytest.raises(
        RecipeError, match=r"data.splits has train and no val: add it, or set data\.splits\.val to null"
    ):
        check_training_recipe(load_recipe(file))
    file.write_text(text.format(", val: null"))
    assert check_training_recipe(load_recipe(file)) == []


@pytest.mark.parametrize(
    ("own", "overrides", "says"),
    [
        ("train: {best_metric: x}", [], r"train\.best_metric is 'x', .* \(own\.yaml:3\)$"),
        ("task: retrieval", [], r"data\.answers is 'a\.json', .* \(inherited from base\.yaml:4\)$"),
        ("data:\n  answers: null", [], r"data\.answers is null, .* \(own\.yaml:4\)$"),
        ("data:\n  train_splits: [train, train]", [], r"data\.train_splits has 'train' 2 times.* \(own\.yaml:4\)$"),
        ("", ["train.freeze=[visual.x]"], r"train\.freeze has 'visual\.x', .* \(--set\)$"),
        ("data: {splits: {val: {annotations: t.csv, media: v}}}", [], r"data\.splits\.val has .* \(own\.yaml:3\)$"),
        ("objective: {num_negatives: 3}", [], r"objective\.num_negatives is 3, .* \(own\.yaml:3\)$"),
    ],
)
def test_a_contradiction_says_where_the_value_is(own, overrides, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    splits = "splits: {train: {annotations: t.csv, media: v}, val: {annotations: v.csv, media: v}}"
    (tmp_path / "base.yaml").write_text(f"extends: video_qa\nname: base\ndata:\n  answers: a.json\n  {splits}\n")
    (tmp_path / "own.yaml").write_text(f"extends: base.yaml\nname: own\n{own}\n")
    try:
        (sentence,) = check_training_recipe(load_recipe("own.yaml", overrides=overrides))
    except RecipeError as exc:
        sentence = str(exc)
    assert re.search(says, sentence), sentence


def test_recipes_are_equal_wherever_their_values_come_from(tmp_path):
    (tmp_path / "own.yaml").write_text("extends: msvd_qa\nname: msvd_qa\ntrain: {epochs: 3}\n")
    own, other = load_recipe(tmp_path / "own.yaml", environment=ROOTS), recipe("msvd_qa", "train.epochs=3")
    assert own == other
    assert own.origin("train.epochs") != other.origin("train.epochs") == "--set"


def test_all_contradictions_are_reported_together():
    with pytest.raises(RecipeError) as caught:
        check_training_recipe(recipe("demo_qa", "task=retrieval", "train.best_metric=x", "train.freeze=[y]"))
    assert [line.partition(" ")[0] for line in str(caught.value).splitlines()] == [
        *("data.answers", "train.best_metric", "train.freeze"),
    ]


@pytest.mark.parametrize(
    ("base", "overrides", "says"),
    [
        ("msrvtt_qa", ["task=retrieval", "data.answers=null"], "objective.num_labels is 1500, but task retrieval"),
        ("demo_qa", ["objective.num_options=4"], "objective.num_options is 4, but task open_ended_qa does not read it"),
        ("demo_mc", ["objective.num_negatives=3"], "objective.num_negatives is 3, but task multiple_choice"),
        ("demo_retrieval", ["objective.mlm_average=all"], "objective.mlm_average is 'all', but task retrieval"),
        ("demo_qa", ["data.splits.val.annotations=txt_db/train.jsonl"], "data.splits.val has the files of data.splits"),
        ("demo_qa", ["data.splits.test.annotations=txt_db/train.jsonl"], "data.splits.test has the files of"),
    ],
)
def test_what_is_probably_not_meant_is_a_warning(base, overrides, says):
    (warning,) = check_training_recipe(recipe(base, *overrides))
    assert warning.startswith(says)


@pytest.mark.parametrize("name", shipped_names())
def test_no_shipped_recipe_is_refused(name):
    warnings = check_any_recipe(recipe(name))
    assert all("data.splits" in warning for warning in warnings)
    assert bool(warnings) == (name in ("msrvtt_mc", *KINDS))


@pytest.mark.parametrize(
    "override",
    [
        "train.freeze=[visual, transformer.0-1]",
        "train.freeze=[visual.stem, visual.0-3, visual.grid, transformer.embeddings]",
        "train.freeze=[transformer, visual]",
        "train.best_metric=-loss",
        "data.splits.test=null",
        "model.visual={kind: hf, weights: models/siglip}",
        "model.visual.weights=models/R-50.pth",
    ],
)
def test_what_can_be_trained_is_accepted(override):
    start = ["model.weights.checkpoint=whole.pt"] if "freeze" in override else []
    assert check_training_recipe(recipe("demo_qa", *start, override)) == []


@pytest.mark.parametrize(
    ("freeze", "weights", "said"),
    [
        ("[visual.stem, visual.0]", [], "train.freeze has visual.stem, visual.0, but model.visual.weights is null"),
        ("[transformer.0]", [], "train.freeze has transformer.0, but model.weights.bert is null"),
        ("[transformer.0]", ["model.weights.bert=folder"], None),
        ("[visual]", ["model.visual.weights=R-50.pth"], None),
        ("[visual, transformer.0]", ["model.weights.checkpoint=whole.pt"], None),
        ("[head]", [], None),
    ],
)
def test_frozen_parts_that_start_at_random_are_warned_of(freeze, weights, said):
    found = check_training_recipe(recipe("demo_qa", f"train.freeze={freeze}", *weights))
    assert len(found) == (said is not None)
    assert said is None or found[0].startswith(said)


def test_the_parts_of_every_model_have_names_of_parts():
    own = recipe("demo_qa")
    model = ClipBert(own.model, HeadSpec("classifier", 2))
    assert all(map(PART.fullmatch, model.freezable_parts()))
