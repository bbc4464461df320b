"""Environment variables in recipes."""

import pytest

from clipbert_cli.errors import RecipeError
from clipbert_cli.recipe.load import load_recipe, preview_recipe
from clipbert_cli.recipe.values import write_yaml

HEAD = "name: mine\ntask: open_ended_qa\n"


@pytest.fixture
def filled(tmp_path):
    def load(text: str, **environment: str) -> str:
        (tmp_path / "a.yaml").write_text(HEAD + f"data:\n  answers: {text}\n")
        return load_recipe(tmp_path / "a.yaml", environment=environment).data.answers

    return load


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${DATA}", "/data"),
        ("${DATA}/x/${NAME}", "/data/x/n"),
        ("$DATA", "$DATA"),
        ("$${DATA}", "${DATA}"),
        ("$$${DATA}", "$${DATA}"),
        ("${NUMBER}", "5e-5"),
    ],
)
def test_variables_are_filled_in_text(filled, text, value):
    assert filled(text, DATA="/data", NAME="n", NUMBER="5e-5") == value


def test_what_a_variable_holds_is_not_filled_again(filled):
    assert filled("${DATA}", DATA="${DATA}") == "${DATA}"


@pytest.mark.parametrize("value", [None, ""])
def test_a_variable_that_is_not_set_is_an_error_with_key_and_name(filled, value):
    with pytest.raises(
        RecipeError, match=r"data\.answers is \$\{DATA\}: the environment variable DATA is not set"
    ) as caught:
        filled("${DATA}", **({} if value is None else {"DATA": value}))
    assert "export" in caught.value.hint


@pytest.mark.parametrize("text", ["${DATA", "${1}", "${A B}", "${}", "${A-x}", "${A:-x}"])
def test_what_is_no_variable_stays_as_it_is(filled, text):
    assert filled(f"'{text}'", DATA="x", A="x") == text


def test_only_the_value_finally_used_is_filled(tmp_path):
    (tmp_path / "base.yaml").write_text("data: {root: '${NOWHERE}', answers: '${NOWHERE}'}\n")
    (tmp_path / "a.yaml").write_text(HEAD + "extends: base.yaml\ndata: {answers: x}\n")
    assert load_recipe(tmp_path / "a.yaml", overrides=["data.root=y"], environment={}).data.root == "y"
    assert load_recipe(tmp_path / "a.yaml", data_root=tmp_path, environment={}).data.root == str(tmp_path)


def test_an_unquoted_variable_has_the_type_the_schema_wants(tmp_path):
    (tmp_path / "a.yaml").write_text(HEAD + "train: {epochs: '${N}'}\nmodel: {visual: {depths: ['${N}', 1, 1, 1]}}\n")
    recipe = load_recipe(tmp_path / "a.yaml", environment={"N": "7"})
    assert recipe.train.epochs == 7
    assert recipe.model.visual.depths == [7, 1, 1, 1]


def test_a_preview_leaves_unset_variables_as_they_were_written(tmp_path):
    (tmp_path / "a.yaml").write_text(HEAD + "data: {root: '/$${X}/${A}/${A}/${SET}', answers: '$${C}'}\n")
    preview = preview_recipe(tmp_path / "a.yaml", environment={"SET": "s"})
    assert len(preview.unset) == 1
    assert "data.root" in preview.unset[0]
    (tmp_path / "b.yaml").write_text(write_yaml(preview.values))
    recipe = load_recipe(tmp_path / "b.yaml", environment={"SET": "s", "A": "a"})
    assert recipe.data.root == "/${X}/a/a/s"
    assert recipe.data.answers == "${C}"


def test_a_preview_tells_every_other_mistake(tmp_path):
    (tmp_path / "a.yaml").write_text(HEAD + "data: {root: '${A}', fps: 0}\n")
    with pytest.raises(RecipeError, match="fps") as caught:
        preview_recipe(tmp_path / "a.yaml", environment={})
    assert "${A}" not in str(caught.value)
