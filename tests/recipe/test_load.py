"""Finding, extending, changing and writing recipes."""

import os
from pathlib import Path

import pytest

from clipbert_cli.errors import RecipeError
from clipbert_cli.recipe import load
from clipbert_cli.recipe.load import dump_recipe, load_recipe, resolve
from clipbert_cli.recipe.schema import Recipe
from clipbert_cli.recipe.shipped import find_recipe, shipped_folder

HEAD = "name: mine\ntask: open_ended_qa\n"


def write(folder: Path, name: str = "a.yaml", text: str = "") -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


# finding


def test_a_shipped_recipe_is_found_by_name():
    assert find_recipe("msrvtt_qa") == shipped_folder() / "msrvtt_qa.yaml"


def test_a_shipped_name_wins_over_a_file_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "msrvtt_qa", HEAD)
    assert find_recipe("msrvtt_qa") == shipped_folder() / "msrvtt_qa.yaml"
    assert find_recipe("./msrvtt_qa") == Path("msrvtt_qa")


def test_a_file_is_found_by_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path, "a.yaml", HEAD)
    write(tmp_path, "bare", HEAD)
    for given in ("a.yaml", "./a.yaml", str(tmp_path / "a.yaml"), "~/a.yaml", Path("a.yaml"), "bare"):
        assert load_recipe(given).name == "mine"


@pytest.mark.parametrize("name", ["msrvtt_q", "msrvttqa", "MSRVTT_QA"])
def test_an_unknown_name_is_told_with_the_nearest(name):
    with pytest.raises(RecipeError, match=f"no shipped recipe is called '{name}'") as caught:
        find_recipe(name)
    assert "msrvtt_qa" in str(caught.value) or name == "MSRVTT_QA"
    assert "clipbert recipes ls" in caught.value.hint


@pytest.mark.parametrize("given", ["nowhere.yaml", "./nowhere", "/no/where.yaml", ""])
def test_what_is_not_there_is_a_recipe_error(given):
    with pytest.raises(RecipeError):
        load_recipe(given)


# extends


@pytest.mark.parametrize(
    "extends",
    [
        "[one.yaml, one.yaml]",
        "[one.yaml, ./one.yaml, x/../one.yaml]",
        "[one.yaml, two.yaml, one.yaml]",
        "[two.yaml, one.yaml]",
    ],
)
def test_a_base_that_is_named_twice_counts_where_it_is_named_last(tmp_path, extends):
    (tmp_path / "x").mkdir()
    write(tmp_path, "one.yaml", "train: {batch_size: 4}\nseed: 1\n")
    write(tmp_path, "two.yaml", "extends: one.yaml\ntrain: {batch_size: 8, epochs: 3}\nseed: 2\n")
    found = load_recipe(write(tmp_path, text=HEAD + f"extends: {extends}\n"))
    assert (found.seed, found.train.batch_size) == (1, 4)
    assert found.train.epochs == (3 if "two" in extends else load_recipe(write(tmp_path, text=HEAD)).train.epochs)


def test_mappings_merge_and_everything_else_replaces(tmp_path):
    write(
        tmp_path,
        "base.yaml",
        "train: {epochs: 3}\ndata: {train_splits: [a]}\nmodel: {visual: {depths: [1, 1, 1, 1]}}\nseed: 1\n",
    )
    recipe = load_recipe(write(tmp_path, text=HEAD + "extends: base.yaml\ndata: {train_splits: [b, c]}\nseed: 2\n"))
    assert recipe.train.epochs == 3
    assert recipe.data.train_splits == ["b", "c"]
    assert recipe.model.visual.depths == [1, 1, 1, 1]
    assert recipe.seed == 2


def test_a_chain_of_bases_is_followed_from_each_files_own_folder(tmp_path):
    write(tmp_path, "x/first.yaml", "seed: 1\ntrain: {epochs: 7}\n")
    write(tmp_path, "x/y/second.yaml", "extends: ../first.yaml\nseed: 2\n")
    recipe = load_recipe(write(tmp_path, text=HEAD + "extends: x/y/second.yaml\n"))
    assert (recipe.seed, recipe.train.epochs) == (2, 7)


def test_a_shipped_recipe_can_be_extended_from_anywhere(tmp_path):
    recipe = load_recipe(write(tmp_path, text="extends: msrvtt_qa\nname: mine\n"), data_root=tmp_path)
    expected = load_recipe("msrvtt_qa", data_root=tmp_path, overrides=["name=mine"])
    assert recipe == expected.model_copy(update={"published": {}})


def test_a_base_may_come_from_a_variable(tmp_path):
    write(tmp_path, "base.yaml", "seed: 5\n")
    file = write(tmp_path, text=HEAD + "extends: ${BASE}/base.yaml\n")
    assert load_recipe(file, environment={"BASE": str(tmp_path)}).seed == 5
    with pytest.raises(RecipeError, match=r"extends is .*: the environment variable BASE is not set"):
        load_recipe(file, environment={})


@pytest.mark.parametrize("other", ["a.yaml", "./a.yaml", "b.yaml"])
def test_a_circle_is_an_error_that_draws_it(tmp_path, other):
    write(tmp_path, "b.yaml", "extends: a.yaml\n")
    file = write(tmp_path, text=HEAD + f"extends: {other}\n")
    with pytest.raises(RecipeError, match=r"a\.yaml extends .*a\.yaml: a recipe cannot extend itself"):
        load_recipe(file)


@pytest.mark.parametrize(
    ("extends", "says"),
    [
        ("nowhere.yaml", r"a\.yaml:3: extends: .*/nowhere\.yaml: no such recipe file"),
        ("msrvtt_q", r"a\.yaml:3: extends: no shipped recipe is called 'msrvtt_q'; did you mean msrvtt_qa"),
        ("bad.yaml", r"bad\.yaml:1:4: not YAML"),
        ("./", "is a folder"),
    ],
)
def test_a_base_that_cannot_be_read_is_named(tmp_path, extends, says):
    write(tmp_path, "bad.yaml", "a: ]\n")
    with pytest.raises(RecipeError, match=says):
        load_recipe(write(tmp_path, text=HEAD + f"extends: {extends}\n"))


def test_later_bases_win_and_the_file_itself_wins_over_all(tmp_path):
    write(tmp_path, "one.yaml", "seed: 1\ntrain: {epochs: 1, batch_size: 1}\ninfer: {top: 1}\n")
    write(tmp_path, "two.yaml", "seed: 2\ntrain: {epochs: 2}\n")
    recipe = load_recipe(write(tmp_path, text=HEAD + "extends: [one.yaml, two.yaml]\nseed: 3\n"))
    assert (recipe.seed, recipe.train.epochs, recipe.train.batch_size, recipe.infer.top) == (3, 2, 1, 1)


@pytest.mark.parametrize(
    ("own", "overrides", "kept"),
    [
        ("extends: msrvtt_retrieval", (), {}),
        ("extends: didemo_retrieval\ndata: {splits: {test: {annotations: mine.jsonl, media: mine}}}", (), {}),
        ("extends: anet_retrieval\npublished: {val: {recall_at_1: 7}}", (), {"val": {"recall_at_1": 7}}),
        ("extends: vqa\npublished: {test_std: {accuracy: 1.5}}", (), {"test_std": {"accuracy": 1.5}}),
        (None, (), {"test": {"accuracy": 37.4}}),
        (None, ("train.epochs=3", "data.splits.val.annotations=mine.jsonl"), {"test": {"accuracy": 37.4}}),
        (None, ("data.splits.test.annotations=mine.jsonl",), {}),
        (None, ("data.splits.test=null",), {}),
        (None, ("task=retrieval",), {}),
        (None, ("data.splits.test={annotations: mine.jsonl, media: mine}",), {}),
        (None, ("data.splits.test.annotations=a", "published.test={accuracy: 2}"), {"test": {"accuracy": 2}}),
        ("published: {test: {accuracy: 3}}", ("data.splits.test={annotations: a, media: b}",), {}),
    ],
)
def test_published_scores_belong_to_the_file_that_states_them_and_to_its_annotations(tmp_path, own, overrides, kept):
    file = "msrvtt_qa" if own is None else write(tmp_path, text=f"name: mine\ntask: retrieval\n{own}\n")
    recipe = load_recipe(file, overrides=overrides, data_root=tmp_path)
    assert {split: scores for split, scores in recipe.published.items() if scores} == kept
    # The copy in a run's folder states all of it.
    assert load_recipe(write(tmp_path, "copy.yaml", dump_recipe(recipe))).published == recipe.published


def test_two_bases_may_extend_the_same_file(tmp_path):
    write(tmp_path, "root.yaml", "seed: 1\ntrain: {epochs: 5}\n")
    write(tmp_path, "one.yaml", "extends: root.yaml\ntrain: {batch_size: 4}\n")
    write(tmp_path, "two.yaml", "extends: root.yaml\ninfer: {top: 2}\n")
    recipe = load_recipe(write(tmp_path, text=HEAD + "extends: [one.yaml, two.yaml]\n"))
    assert (recipe.seed, recipe.train.epochs, recipe.train.batch_size, recipe.infer.top) == (1, 5, 4, 2)


def test_a_mistake_of_a_base_that_is_read_twice_is_reported_once(tmp_path):
    write(tmp_path, "root.yaml", "seed: 1\nseed: 2\ntrain: {oops: 5}\n")
    write(tmp_path, "one.yaml", "extends: root.yaml\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(tmp_path, text=HEAD + "extends: [root.yaml, one.yaml]\n"))
    assert len(str(caught.value).splitlines()) == 2


def test_a_circle_through_a_list_is_an_error_that_draws_it(tmp_path):
    write(tmp_path, "one.yaml", "seed: 1\n")
    write(tmp_path, "two.yaml", "extends: [one.yaml, a.yaml]\n")
    file = write(tmp_path, text=HEAD + "extends: [one.yaml, two.yaml]\n")
    with pytest.raises(
        RecipeError, match=r"a\.yaml extends .*two\.yaml extends .*a\.yaml: a recipe cannot extend itself"
    ):
        load_recipe(file)


@pytest.mark.parametrize("extends", ["5", "[one.yaml, 5]", "[[one.yaml]]", "{a: one.yaml}", "[one.yaml, '']", "true"])
def test_a_base_that_is_no_name_is_an_error(tmp_path, extends):
    write(tmp_path, "one.yaml", "seed: 1\n")
    says = r"a\.yaml:3: extends: it must be the name or file of a recipe, or a list of them$"
    with pytest.raises(RecipeError, match=says):
        load_recipe(write(tmp_path, text=HEAD + f"extends: {extends}\n"))


# --set and --data-root


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("train.batch_size=8", lambda r: r.train.batch_size == 8),
        ("train.learning_rate=5e-5", lambda r: r.train.learning_rate == 5e-5),
        ("train.learning_rate=1", lambda r: r.train.learning_rate == 1.0),
        ("train.max_grad_norm=null", lambda r: r.train.max_grad_norm is None),
        ("train.tf32=true", lambda r: r.train.tf32 is True),
        ("train.precision=fp32", lambda r: r.train.precision == "fp32"),
        ("data.train_splits=[a, b]", lambda r: r.data.train_splits == ["a", "b"]),
        ("model.visual.depths=[1,1,2,1]", lambda r: r.model.visual.depths == [1, 1, 2, 1]),
        ("data.splits.train.annotations=x=y.jsonl", lambda r: r.data.splits["train"].annotations == "x=y.jsonl"),
        ("data.splits.new={annotations: a, media: b}", lambda r: r.data.splits["new"].media == "b"),
        ("infer={top: 3}", lambda r: r.infer.top == 3 and r.infer.num_clips == 4),
        ("name=5e-5", lambda r: r.name == "5e-5"),
        ("name=null", lambda r: r.name == "null"),
        ("name=007", lambda r: r.name == "007"),
        ("data.answers=null", lambda r: r.data.answers is None),
        ("data.answers=2024", lambda r: r.data.answers == "2024"),
        ("data.answers={a: b", lambda r: r.data.answers == "{a: b"),
        ("data.root=C: # [x]", lambda r: r.data.root == "C: # [x]"),
        (" train.epochs =2", lambda r: r.train.epochs == 2),
    ],
)
def test_an_override_is_typed_by_the_schema(tmp_path, override, read):
    splits = "data: {answers: a.json, splits: {train: {annotations: a, media: b}}}\ninfer: {num_clips: 4}\n"
    assert read(load_recipe(write(tmp_path, text=HEAD + splits), overrides=[override]))


def test_the_last_override_wins(tmp_path):
    recipe = load_recipe(
        write(tmp_path, text=HEAD), overrides=["train.epochs=0", "train={epochs: 2}", "train.epochs=3"]
    )
    assert recipe.train.epochs == 3


def test_an_override_mends_a_mistake_of_the_file(tmp_path):
    file = write(tmp_path, text=HEAD + "train: {epochs: 0}\n")
    assert load_recipe(file, overrides=["train.epochs=1"]).train.epochs == 1


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("train.bacth_size=8", "--set: train.bacth_size: unknown key; did you mean train.batch_size?"),
        ("trian.batch_size=8", "--set: trian.batch_size: unknown key; did you mean train.batch_size?"),
        ("batch_size=8", "--set: batch_size: unknown key; did you mean train.batch_size or infer.batch_size?"),
        (
            "data.splits.val.anotations=8",
            "--set: data.splits.val.anotations: unknown key; did you mean data.splits.val.annotations?",
        ),
        (
            "model.visual.depths.0=8",
            "--set: model.visual.depths.0: unknown key; model.visual.depths has no keys of its own",
        ),
        ("train..epochs=8", "--set: train..epochs: unknown key; "),
        ("=8", "--set: : unknown key; a recipe has name, task, "),
        ("extends=msrvtt_qa", "--set: extends: unknown key; "),
        ("train.epochs", "--set train.epochs: expected KEY=VALUE, such as train.batch_size=8"),
        ("train.epochs=[", "--set: train.epochs is [: "),
        (
            "train.epochs=",
            "--set: train.epochs is empty: give a value after =, or null for none",
        ),
        (
            "data.answers=",
            "--set: data.answers is empty: give a value after =, or null for none",
        ),
        ("name= ", "--set: name is empty: give a value after =, or null for none"),
        ("train.epochs='3'", '--set: train.epochs is "3": it must be a whole number'),
        ("train=5", "--set: train is 5: it must be a section of `key: value` lines"),
        ("train={epochs: 0}", "--set: train.epochs is 0: it must be a whole number from 1 to 1,000,000,000"),
        ("data.root=${NOWHERE}", "--set: data.root is ${NOWHERE}: the environment variable NOWHERE is not set"),
    ],
)
def test_a_wrong_override_says_so(tmp_path, override, says):
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(tmp_path, text=HEAD), overrides=[override], environment={})
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


def test_the_data_root_option_wins_and_is_taken_literally(tmp_path):
    file = write(tmp_path, text=HEAD + "data: {root: '${NOWHERE}'}\n")
    recipe = load_recipe(file, overrides=["data.root=x"], data_root=Path("a ${B}"), environment={})
    assert recipe.data.root == "a ${B}"


# writing and resolving


def test_a_written_recipe_loads_back_equal(tmp_path):
    recipe = Recipe.model_validate(
        {
            "name": "5e-5",
            "task": "null",
            "data": {"root": "/$${A} ${B:-c} é", "splits": {"yes": {"annotations": "1:30", "media": " x: y #"}}},
            "train": {"learning_rate": 1e-5, "weight_decay": 0, "max_grad_norm": None},
        }
    )
    assert load_recipe(write(tmp_path, text=dump_recipe(recipe)), environment={"B": "wrong"}) == recipe


def test_a_written_recipe_says_every_setting():
    text = dump_recipe(Recipe(name="a", task="b"))
    assert "num_clips: 16" in text
    assert "depths: [3, 4, 6, 3]" in text


def test_paths_start_from_the_data_root(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    recipe = Recipe.model_validate({"name": "a", "task": "b", "data": {"root": "~/data"}})
    assert resolve(recipe, "txt/a.jsonl") == Path("/home/me/data/txt/a.jsonl")
    assert resolve(recipe, "/abs/a.jsonl") == Path("/abs/a.jsonl")
    assert resolve(recipe, "~/a.jsonl") == Path("/home/me/a.jsonl")


# ---------------------------------------------------------------------------------------------- where paths start


@pytest.mark.parametrize("cwd", [".", "elsewhere", "recipes"])
@pytest.mark.parametrize(
    ("root", "expected"),
    [(".", "recipes"), ("data", "recipes/data"), ("..", "."), ("../data", "data"), ("${PLACE}", "recipes/place")],
)
def test_a_relative_root_starts_at_the_file_that_states_it(tmp_path, monkeypatch, cwd, root, expected):
    (tmp_path / "elsewhere").mkdir()
    file = write(tmp_path, "recipes/a.yaml", HEAD + f"data: {{root: '{root}'}}\n")
    monkeypatch.chdir(tmp_path / cwd)
    recipe = load_recipe(os.path.relpath(file), environment={"PLACE": "place"})
    assert recipe.data.root == str(tmp_path / expected)
    assert load.resolve(recipe, "train.csv") == (tmp_path / expected / "train.csv").absolute()


def test_a_root_starts_at_the_base_that_states_it(tmp_path):
    write(tmp_path, "x/base.yaml", "data: {root: data}\n")
    file = write(tmp_path, "y/a.yaml", HEAD + "extends: ../x/base.yaml\n")
    assert load_recipe(file).data.root == str(tmp_path / "x" / "data")
    own = write(tmp_path, "y/b.yaml", HEAD + "extends: ../x/base.yaml\ndata: {root: .}\n")
    assert load_recipe(own).data.root == str(tmp_path / "y")


def test_the_root_of_a_shipped_recipe_and_of_an_option_starts_at_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, "x/a.yaml", HEAD + "extends: demo_qa\n")
    assert load_recipe("demo_qa").data.root == load_recipe(file).data.root == "."
    assert load.resolve(load_recipe(file), "a") == tmp_path / "a"
    assert load_recipe(file, overrides=["data.root=y"]).data.root == "y"
    assert load_recipe(file, data_root=Path("z")).data.root == "z"
    assert load_recipe(write(tmp_path, "x/b.yaml", HEAD)).data.root == "."


@pytest.mark.parametrize("root", ["/data", "~/data"])
def test_an_absolute_root_stays(tmp_path, root, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    recipe = load_recipe(write(tmp_path, "a.yaml", HEAD + f"data: {{root: {root}}}\n"))
    assert load.resolve(recipe, "a") == Path(root.replace("~", "/home/somebody"), "a")


def test_a_preview_of_a_root_that_is_not_known_keeps_the_variable(tmp_path):
    file = write(tmp_path, "a.yaml", HEAD + "data: {root: '${NOWHERE}/x'}\n")
    assert load.preview_recipe(file, environment={}).values["data"]["root"] == "${NOWHERE}/x"
