"""YAML text to values and back, and where each value came from."""

import math
from pathlib import Path

import pytest

from clipbert_cli.errors import RecipeError
from clipbert_cli.recipe.values import Mistake, key_name, nested, plain_scalar, read_file, read_yaml, write_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-5", 5e-5),
        ("1E5", 1e5),
        ("1.", 1.0),
        (".5", 0.5),
        ("-2.5e+3", -2500.0),
        ("-.inf", -math.inf),
        ("7", 7),
        ("+7", 7),
        ("-0", 0),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
    ],
)
def test_a_plain_scalar_has_the_type_a_person_means(text, value):
    result = plain_scalar(text)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    "text", ["yes", "no", "on", "off", "1:30", "2024-01-01", "1_000", "0x1f", "e5", "1e", ".", "-"]
)
def test_what_only_old_yaml_takes_for_something_else_is_text(text):
    assert plain_scalar(text) == text
    assert nested(read_yaml(f"key: '{text}'", "f", [])) == {"key": text}


def test_not_a_number_is_read_as_such():
    assert math.isnan(plain_scalar(".nan"))


TRICKY = [
    "5e-5",
    "1e5",
    "yes",
    "null",
    "~",
    "",
    "010",
    "1:30",
    " lead",
    "a: b",
    "# no",
    "é 视频",
    "a\nb",
    "'",
    '"',
    "${A}",
    "\t",
    "*a",
]


@pytest.mark.parametrize("text", TRICKY)
def test_text_survives_writing_and_reading(text):
    assert nested(read_yaml(write_yaml({"key": text, "list": [text]}), "f", [])) == {"key": text, "list": [text]}


@pytest.mark.parametrize("value", [1e-12, 5e-5, 1e22, 0.1, -3.0, 2**40, True, None, [1, 2], [], {}, [[1.5], ["a"]]])
def test_values_survive_writing_and_reading(value):
    result = nested(read_yaml(write_yaml({"key": value}), "f", []))["key"]
    assert result == value
    assert type(result) is type(value)


def test_a_key_given_twice_is_a_mistake_with_both_lines():
    mistakes: list[Mistake] = []
    entries = read_yaml("train:\n  epochs: 1\n  batch_size: 2\n  epochs: 3\n", "a.yaml", mistakes)
    assert [str(mistake) for mistake in mistakes] == ["a.yaml:4: train.epochs: given twice, in line 2 and in line 4"]
    assert nested(entries) == {"train": {"epochs": 1, "batch_size": 2}}


@pytest.mark.parametrize("key", ["5", "null", "true", "[a]", "{a: b}"])
def test_a_key_that_is_no_text_is_a_mistake(key):
    mistakes: list[Mistake] = []
    read_yaml(f"data:\n  ? {key}\n  : x\n", "a.yaml", mistakes)
    assert "a.yaml:2: data: the key is" in str(mistakes[0])


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system", "!mine", "!!binary", "!!set"])
def test_no_tag_constructs_anything(tag):
    mistakes: list[Mistake] = []
    entries = read_yaml(f"key: {tag} {'{}' if 'set' in tag else 'x'}", "a.yaml", mistakes)
    assert "is not allowed" in str(mistakes[0])
    assert nested(entries) == {"key": None}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("!mine\na: 1\n", "the tag !mine is not allowed"),
        ("# a comment\n!!python/object/apply:os.system\na: 1\n", "the tag !!python/object/apply:os.system is not"),
        ("!!set {a, b}", "the tag !!set is not allowed"),
        ("!!omap [a: 1]", "the tag !!omap is not allowed"),
        ("!!binary aGk=", "the tag !!binary is not allowed"),
        ("!!int x", "x is no int"),
        ("!<tag:example.org,2020:recipe> {a: 1}", "the tag tag:example.org,2020:recipe is not allowed"),
    ],
)
def test_a_tag_at_the_root_is_named(text, says, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(RecipeError) as caught:
        read_file(tmp_path / "a.yaml", [])
    assert says in str(caught.value)
    assert "is empty" not in str(caught.value)


def test_a_tag_of_a_plain_type_is_kept():
    mistakes: list[Mistake] = []
    assert nested(read_yaml("a: !!str 5\nb: !!int '5'\nc: !!int x", "a.yaml", mistakes)) == {
        "a": "5",
        "b": 5,
        "c": None,
    }
    assert [str(mistake) for mistake in mistakes] == ["a.yaml:3: c: x is no int"]


@pytest.mark.parametrize("text", ["a: &x {k: 1}\nb: *x\n", "a: &x {k: *x}", "a: &x [1]\nb: {<<: *x}\n"])
def test_an_alias_is_refused(text):
    with pytest.raises(RecipeError, match=r"a\.yaml:\d:\d+: not YAML: an alias \(\*name\) is not read"):
        read_yaml(text, "a.yaml", [])


def test_nesting_without_end_is_refused():
    with pytest.raises(RecipeError, match=r"a\.yaml: nested too deeply"):
        read_yaml("[" * 5000 + "]" * 5000, "a.yaml", [])


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: 1\n b: 2\n", r"a\.yaml:2:3: not YAML: "),
        ("a: [1, 2\n", r"a\.yaml:2:1: not YAML: "),
        ("a: 'x\n", r"a\.yaml:2:1: not YAML: "),
        ("a:\n\tb: 1\n", r"a\.yaml:2:1: not YAML: "),
        ("a:\n  b: 1\n\tc: 2\n", r"a\.yaml:3:1: not YAML: "),
        ("a:\t1\n", r"a\.yaml:1:3: not YAML: "),
        ("a:\n  - x\n  \t- y\n", r"a\.yaml:3:3: not YAML: "),
        ("a: {b: 1,\n\tc: 2}\n", r"a\.yaml:2:1: not YAML: "),
        ("a: *nowhere\n", r"a\.yaml:1:4: not YAML: "),
        ("a: 1\n---\nb: 2\n", r"a\.yaml:2:1: not YAML: "),
        ("a: 1\nb: x\0y\n", r"a\.yaml:2:5: not YAML: this character is not allowed"),
        ("a: ${X}\nb: {c: ${X}}\n", r"a\.yaml:2:9: not YAML: "),
    ],
)
def test_a_syntax_error_says_file_line_and_column(text, place):
    with pytest.raises(RecipeError, match=place):
        read_yaml(text, "a.yaml", [])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty: a recipe is a mapping"),
        (b"# only a comment\n", "is empty"),
        (b"null\n", "is empty"),
        (b"- a\n- b\n", "holds a list"),
        (b"text\n", "holds a single value"),
        (b"name: caf\xe9\n", "a.yaml:1: not UTF-8 text \\(byte 9 is 0xe9\\)"),
    ],
)
def test_a_file_without_a_mapping_is_refused(tmp_path, content, says):
    (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(RecipeError, match=says):
        read_file(tmp_path / "a.yaml", [])


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(RecipeError, match="no such recipe file"):
        read_file(tmp_path / "a.yaml", [])
    with pytest.raises(RecipeError, match="is a folder"):
        read_file(tmp_path, [])


def test_a_byte_order_mark_and_windows_lines_are_read(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfname: a\r\ntask: b\r\n")
    assert nested(read_file(tmp_path / "a.yaml", [])) == {"name": "a", "task": "b"}


def test_files_below_the_current_folder_are_shown_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text("- a\n")
    with pytest.raises(RecipeError, match=r"^a\.yaml holds a list"):
        read_file(tmp_path / "a.yaml", [])
    with pytest.raises(RecipeError, match=r"^b\.yaml: no such"):
        read_file(Path("b.yaml"), [])


def test_key_names_read_as_they_are_written():
    assert key_name(("model", "visual", "depths", 2)) == "model.visual.depths[2]"
