"""Every mistake of a recipe in one report, in plain words."""

import re
from pathlib import Path

import pytest

from clipbert_cli.errors import RecipeError
from clipbert_cli.recipe.load import load_recipe

HEAD = "name: mine\ntask: open_ended_qa\n"


def report(folder: Path, text: str, **options) -> list[str]:
    """The mistakes of a recipe file, without its name and line where they start with them."""
    file = folder / "a.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(file, **options)
    return [re.sub(rf"^{re.escape(str(file))}:\d+: ", "", line) for line in str(caught.value).splitlines()]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("train: {bacth_size: 8}", "train.bacth_size: unknown key; did you mean train.batch_size?"),
        (
            "data: {splits: {val: {anotations: x, media: y, annotations: z}}}",
            "data.splits.val.anotations: unknown key; did you mean data.splits.val.annotations?",
        ),
        ("tarin: {}", "tarin: unknown key; did you mean train?"),
        ("batch_size: 8", "batch_size: unknown key; did you mean train.batch_size or infer.batch_size?"),
        ("bacth_size: 8", "bacth_size: unknown key; did you mean train.batch_size or infer.batch_size?"),
        ("model: {weights: {zzz: 1}}", "model.weights.zzz: unknown key; model.weights has checkpoint, bert"),
        ("train: {batch_size: 0}", "train.batch_size is 0: it must be a whole number from 1 to 65,536"),
        (
            "data: {max_text_length: 1000}",
            "data.max_text_length is 1000: it must be a whole number from 3 to 512",
        ),
        ("data: {fps: 0}", "data.fps is 0: it must be a number greater than 0 and at most 10,000"),
        (
            "train: {ema_decay: 1.0}",
            "train.ema_decay is 1.0: it must be a number of at least 0 and less than 1 or null",
        ),
        (
            "model: {visual: {depths: [1, 1, 1, 0]}}",
            "model.visual.depths[3] is 0: it must be a whole number from 1 to 1,000",
        ),
        ("seed: -1", "seed is -1: it must be a whole number of at least 0 and less than 4,294,967,296"),
        ("train: {epochs: 2.5}", "train.epochs is 2.5: it must be a whole number from 1 to 1,000,000,000"),
        ("train: {epochs: '2'}", 'train.epochs is "2": it must be a whole number from 1 to 1,000,000,000'),
        ("train: {epochs: true}", "train.epochs is true: it must be a whole number from 1 to 1,000,000,000"),
        ("train: {epochs: null}", "train.epochs is null: it must be a whole number from 1 to 1,000,000,000"),
        (
            "train: {learning_rate: fast}",
            'train.learning_rate is "fast": it must be a number greater than 0 and at most 1,000,000,000',
        ),
        ("train: {learning_rate: .nan}", "train.learning_rate is NaN: it must be a finite number"),
        ("train: {learning_rate: 1e999}", "train.learning_rate is Infinity: it must be a finite number"),
        ("train: {tf32: yes}", 'train.tf32 is "yes": it must be true or false'),
        ("data: {media: vidoe}", 'data.media is "vidoe": it must be video or image; did you mean video?'),
        ("data: {media: 5}", "data.media is 5: it must be video or image"),
        ("data: {answers: 5}", "data.answers is 5: it must be text or null; quotes make text of it"),
        ("data: {root: ~}", "data.root is null: it must be text"),
        (
            "model: {visual: {depths: 3}}",
            "model.visual.depths is 3: it must be a list of 4 values, each a whole number from 1 to 1,000",
        ),
        (
            "model: {visual: {depths: [3, 4]}}",
            "model.visual.depths is [3, 4]: it must be a list of 4 values, each a whole number from 1 to 1,000",
        ),
        (
            "model: {visual: {pixel_std: [1, 1, 1, 1]}}",
            (
                "model.visual.pixel_std is [1, 1, 1, 1]: it must be null or a list of 3 values, each a number "
                "greater than 0 and at most 1,000,000"
            ),
        ),
        ("train:", "train is null: it must be a section of `key: value` lines"),
        ("data: {splits: [train]}", 'data.splits is ["train"]: it must be a section of `key: value` lines'),
        (
            "data: {splits: {val: {media: x}}}",
            (
                "data.splits.val.annotations: missing. File of records: JSON lines, a JSON list, or a table "
                "(.csv, .tsv). Relative to data.root."
            ),
        ),
        (
            "model: {bert: {num_attention_heads: 5}}",
            "model.bert: num_attention_heads is 5: it must divide hidden_size (768)",
        ),
        ("extends: []", "extends: it must be the name or file of a recipe, or a list of them"),
        ("extends:", "extends: it must be the name or file of a recipe, or a list of them"),
        ("extends: ''", "extends: it must be the name or file of a recipe, or a list of them"),
    ],
)
def test_each_mistake_is_one_plain_sentence(tmp_path, text, says):
    assert report(tmp_path, HEAD + text) == [says]


@pytest.mark.parametrize("name", ["a b", "../up", ".hidden", "", "a/b", "é"])
def test_a_name_that_is_no_folder_name_is_refused(tmp_path, name):
    (line,) = report(tmp_path, f"name: '{name}'\ntask: x\n")
    assert line.startswith(f'name is "{name}": it must be made of letters')


def test_a_missing_key_is_told_with_its_meaning(tmp_path):
    assert report(tmp_path, "seed: 1\n") == [
        "name: missing. Name of the recipe. Without --run, the run is kept in runs/NAME.",
        "task: missing. What is learned: open_ended_qa, multiple_choice, image_qa, retrieval or pretraining.",
    ]


def test_all_mistakes_are_told_at_once(tmp_path):
    lines = report(
        tmp_path,
        "name: a b\n"
        "train: {bacth_size: 8, batch_size: 0, learning_rate: 'x', epochs: 1, epochs: 2}\n"
        "data: {root: '${NOWHERE}', 5: x}\n",
        overrides=["infer.top=0", "trian.epochs=3", "nothing"],
        environment={},
    )
    assert len(lines) == 11
    assert [line for line in lines if line.startswith("--set")] == [
        "--set: trian.epochs: unknown key; did you mean train.epochs?",
        "--set nothing: expected KEY=VALUE, such as train.batch_size=8",
        "--set: infer.top is 0: it must be a whole number from 1 to 1,000,000",
    ]


def test_a_key_given_twice_is_told_once(tmp_path):
    lines = report(tmp_path, HEAD + "train:\n  epochs: 0\n  epochs: 1\n")
    assert lines == ["train.epochs: given twice, in line 4 and in line 5"]


def test_each_mistake_names_the_file_it_came_from(tmp_path):
    (tmp_path / "base.yaml").write_text("train: {epochs: 0, batch_size: 0, oops: 1}\ninfer: {top: 0}\n")
    lines = report(tmp_path, HEAD + "extends: base.yaml\ntrain: {batch_size: -1}\n", overrides=["infer.top=-2"])
    base = f"{tmp_path}/base.yaml:1: "
    assert [line.partition("; ")[0] for line in lines] == [
        "train.batch_size is -1: it must be a whole number from 1 to 65,536",
        f"{base}train.epochs is 0: it must be a whole number from 1 to 1,000,000,000",
        f"{base}train.oops: unknown key",
        "--set: infer.top is -2: it must be a whole number from 1 to 1,000,000",
    ]


def test_keys_that_do_not_go_together_name_every_place_they_came_from(tmp_path):
    text = HEAD + "model: {bert: {hidden_size: 100, vocab_size: 9}}\n"
    (tmp_path / "base.yaml").write_text("model: {bert: {num_hidden_layers: 1}}\n")
    lines = report(tmp_path, text + "extends: base.yaml\n", overrides=["model.bert.num_attention_heads=3"])
    says = "model.bert: num_attention_heads is 3: it must divide hidden_size (100)"
    assert lines == [f"--set and {tmp_path}/a.yaml:3: {says}"]


def test_the_missing_half_of_a_section_belongs_to_the_file_that_wrote_the_other(tmp_path):
    lines = report(tmp_path, HEAD + "data: {splits: {val: {media: x}}}", overrides=["data.splits.val.media=y"])
    assert lines == [
        (
            "data.splits.val.annotations: missing. File of records: JSON lines, a JSON list, or a table "
            "(.csv, .tsv). Relative to data.root."
        )
    ]
    lines = report(tmp_path, HEAD, overrides=["data.splits.val.media=y"])
    assert lines[0].startswith("--set: data.splits.val.annotations: missing")


def test_long_values_are_cut(tmp_path):
    (line,) = report(tmp_path, HEAD + f"train: {{epochs: {'x' * 500}}}")
    assert len(line) < 140


def test_a_wrong_recipe_is_wrong_usage(tmp_path):
    (tmp_path / "a.yaml").write_text(HEAD + "oops_a_daisy: 1\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path / "a.yaml")
    assert caught.value.exit_code == 2
    assert "clipbert recipes explain" in caught.value.hint
