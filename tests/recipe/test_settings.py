"""The declarations of the settings, what is derived from them, and the page that is generated."""

import pydantic
import pytest
import yaml

from clipbert_cli.recipe.declaring import Change, Section
from clipbert_cli.recipe.load import load_recipe, preview_recipe
from clipbert_cli.recipe.schema import Recipe
from clipbert_cli.recipe.settings import (
    all_sections,
    all_settings,
    bare,
    change_of,
    learned_settings,
    nearest,
    settings_page,
    with_comments,
    with_inference_settings,
)
from clipbert_cli.recipe.shipped import shipped_folder, shipped_names


def recipe(*overrides: str) -> Recipe:
    return load_recipe("demo_qa", overrides=overrides)


def sections(kind: type[Section]) -> set[type[Section]]:
    """A section and all sections below it."""
    inner = [bare(field.annotation) for field in kind.model_fields.values()]
    return {kind}.union(*(sections(each) for each in inner if isinstance(each, type) and issubclass(each, Section)))


def test_every_setting_declares_its_meaning_and_where_it_may_change():
    for section in sections(Recipe):
        assert section.__doc__, section
        for name, field in section.model_fields.items():
            if not (isinstance(kind := bare(field.annotation), type) and issubclass(kind, Section)):
                extra = field.json_schema_extra
                assert isinstance(extra, dict), f"{section.__name__}.{name} is not declared with setting()"
                assert isinstance(extra["change"], Change)
    for key, setting in all_settings().items():
        assert setting.meaning.endswith("."), key
        assert setting.meaning[0].isupper() or setting.meaning[0] == "`", key
        assert len(setting.meaning) >= 20, key


def test_the_page_of_settings_is_generated_from_the_schema():
    page = shipped_folder().parent / "docs" / "settings.md"
    assert page.read_text(encoding="utf-8") == settings_page(), "run: make docs"


def test_the_page_has_a_heading_for_every_setting_and_section():
    lines = settings_page().splitlines()
    assert [line for line in lines if line.startswith("### ")] == [f"### `{key}`" for key in sorted_by_section()]
    assert {f"## `{key}`" for key in all_sections()} <= set(lines)


def sorted_by_section() -> list[str]:
    order = ["", *all_sections()]
    return sorted(all_settings(), key=lambda key: order.index(key.rpartition(".")[0]))


# where a setting may change


@pytest.mark.parametrize(
    ("key", "on_resume", "by_set", "by_recipe"),
    [
        ("name", False, False, False),
        ("seed", False, False, False),
        ("task", False, True, True),
        ("data.root", True, True, True),
        ("data.workers", True, True, True),
        ("data.max_bad_fraction", True, False, False),
        ("data.splits", False, True, True),
        ("data.splits.test.media", False, True, True),
        ("data.black_frames", False, True, True),
        ("data.frame_size", False, True, False),
        ("data.fps", False, True, False),
        ("model.bert.hidden_size", False, False, False),
        ("objective.num_options", False, True, True),
        ("objective.pool", False, True, False),
        ("train.batch_size", True, False, False),
        ("train.learning_rate", False, False, False),
        ("train.freeze", False, False, False),
        ("train.precision", True, True, False),
        ("train.keep_last", True, False, False),
        ("infer.num_clips", False, True, True),
        ("infer.batch_size", True, True, True),
    ],
)
def test_a_setting_may_change_where_it_says(key, on_resume, by_set, by_recipe):
    occasions = (Change.ON_RESUME, Change.BY_SET, Change.BY_RECIPE)
    assert tuple(each in change_of(key) for each in occasions) == (on_resume, by_set, by_recipe)
    if "test" not in key:
        assert (key not in learned_settings(recipe())) == on_resume or key == "data.splits"


@pytest.mark.parametrize("key", ["", "data", "data.oops", "oops", "infer"])
def test_what_is_no_setting_changes_nowhere(key):
    assert change_of(key) == Change.NEVER


def test_another_recipe_overrides_what_belongs_to_inference_and_nothing_else():
    own = recipe("train.epochs=3", "data.fps=3", "infer.top=1", "data.black_frames=true")
    other = load_recipe(
        "msrvtt_mc",
        overrides=["data.max_pixels=1000", "objective.num_options=7", "train.epochs=9", "infer.top=4"],
        environment={"DATA": "/data"},
    )
    mixed = with_inference_settings(own, other)
    assert mixed.infer == other.infer
    assert (mixed.task, mixed.name, mixed.seed) == (other.task, own.name, own.seed)
    assert (mixed.model, mixed.train) == (own.model, own.train)
    assert mixed.objective == own.objective.model_copy(update={"num_options": 7})
    taken = ["root", "splits", "fields", "media", "workers", "decoder", "black_frames", "on_bad_media", "max_pixels"]
    expected = {name: getattr(other.data, name) for name in [*taken, "rotation"]}
    assert mixed.data == own.data.model_copy(update=expected)


# finding and printing


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("data.num_clip", ["data.num_clips"]),
        ("num_clips", ["data.num_clips", "infer.num_clips"]),
        ("trian", ["train"]),
        ("learning_rat", ["train.learning_rate"]),
        ("xyzzy", []),
    ],
)
def test_the_nearest_keys_are_found(wrong, right):
    assert nearest(wrong) == right


@pytest.mark.parametrize("name", shipped_names())
def test_a_recipe_with_comments_loads_as_without(name, tmp_path):
    preview = preview_recipe(name, data_root=tmp_path, environment={})
    text = with_comments(preview.values)
    assert yaml.safe_load(text).keys() == preview.values.keys()
    (tmp_path / "a.yaml").write_text(text)
    assert preview_recipe(tmp_path / "a.yaml", environment={}).recipe == preview.recipe
    comments = [line for line in text.splitlines() if line.lstrip().startswith("#")]
    assert len(comments) >= len(all_settings()) - 2
    assert max(map(len, comments)) <= 80


def test_the_frozen_recipe_cannot_be_changed():
    with pytest.raises(pydantic.ValidationError):
        recipe().seed = 1
