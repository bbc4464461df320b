"""Bad records: each is told with file, line, field and value, all together, before anything starts."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from running import DEMO_RECIPES

from clipbert_cli.errors import AnnotationError
from clipbert_cli.recipe.load import load_recipe
from clipbert_cli.recipe.schema import InferConfig, ObjectiveConfig
from clipbert_cli.splits import read_split
from clipbert_cli.task.registry import TASKS, task_class
from clipbert_cli.text.annotations import read_examples
from clipbert_cli.text.fields import MissingFieldError, Record
from clipbert_cli.types import Example

GOOD: dict[str, dict[str, Any]] = {
    "open_ended_qa": {"video_id": "v", "question": "what?", "answer": "cat"},
    "image_qa": {"image_id": "v", "question": "what?", "question_id": 1, "labels": {"cat": 0.3}},
    "multiple_choice": {"gif_name": "v", "question": "what?", "options": ["a", "b", "c", "d", "e"], "answer": 4},
    "retrieval": {"clip_name": "v", "caption": "a cat"},
    "pretraining": {"coco_id": "v", "caption": "a cat"},
}

# task, what is changed (None: taken out), what is said of it
BAD: list[tuple[str, dict[str, Any], str]] = [
    ("open_ended_qa", {"question": None}, "question is missing"),
    ("open_ended_qa", {"video_id": 1.5}, "video_id is 1.5: it must be text or an integer"),
    ("open_ended_qa", {"answer": "dog"}, 'answer is "dog": it must be one of the 2'),
    (
        "open_ended_qa",
        {"answer": "Cat."},
        "data.answers; it has 'cat', which objective.normalize_answers: true makes equal",
    ),
    (
        "image_qa",
        {"labels": {" MAN": 1.0}},
        "data.answers; it has 'man', which objective.normalize_answers: true makes",
    ),
    ("image_qa", {"labels": {"cat": 0.3, "Man!": 0.3}}, "it has 'man', which objective.normalize_answers"),
    ("open_ended_qa", {"answer": None}, "answer is null: it must be one of the 2"),
    ("open_ended_qa", {"answer": ["cat"]}, 'answer is ["cat"]: it must be text'),
    ("image_qa", {"labels": {"dog": 1.0}}, 'labels["dog"]: the answer must be one of the 2'),
    ("image_qa", {"labels": {"cat": 1.5}}, 'labels["cat"] is 1.5: it must be a number from 0 to 1'),
    ("image_qa", {"labels": {"cat": "1"}}, 'labels["cat"] is "1": it must be a number from 0 to 1'),
    ("image_qa", {"labels": ["cat"]}, 'labels is ["cat"]: it must be an object'),
    ("image_qa", {"labels": None}, "the record has no answer"),
    ("multiple_choice", {"options": ["a", "b"]}, "options has 2 entries"),
    ("multiple_choice", {"options": "abcde"}, 'options is "abcde": it must be a list of texts'),
    ("multiple_choice", {"options": ["a", "b", "c", "d", 5]}, "it must be a list of texts"),
    ("multiple_choice", {"options": ["a", "b", "c", "d", " "]}, "it must be a list of texts"),
    ("multiple_choice", {"options": None}, "options is missing"),
    ("multiple_choice", {"answer": 5}, "answer is 5: it must be an integer from 0 to 4"),
    ("multiple_choice", {"answer": -1}, "answer is -1: it must be an integer from 0 to 4"),
    ("multiple_choice", {"answer": "4"}, 'answer is "4": it must be an integer from 0 to 4'),
    ("multiple_choice", {"answer": True}, "answer is true: it must be an integer from 0 to 4"),
    ("retrieval", {"caption": ""}, 'caption is "": it must be text'),
    ("retrieval", {"caption": None}, "caption (or captions, text, sentence) is missing"),
    ("retrieval", {"clip_name": None}, "media_id (or video_id"),
    ("pretraining", {"caption": 3}, "caption is 3: it must be text"),
]


def read(task: str, path: Path, names: dict[str, str] | None = None) -> list[Example]:
    built = task_class(task)(ObjectiveConfig(num_options=5), InferConfig(), {"cat": 0, "man": 1})

    def parse(record: Record) -> Example:
        example = built.parse(record)
        built.check_training(example)
        return example

    return read_examples(path, parse, names=names, each=built.list_field)


def changed(task: str, change: dict[str, Any]) -> dict[str, Any]:
    record = {**GOOD[task], **change}
    return {name: value for name, value in record.items() if value is not None or name not in change}


@pytest.mark.parametrize(("task", "change", "message"), BAD)
def test_a_bad_record_is_reported_with_line_field_and_value(
    tmp_path: Path, task: str, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f"{json.dumps(changed(task, change))}\n{json.dumps({**GOOD[task], 'question_id': 2})}\n")
    with pytest.raises(AnnotationError) as caught:
        read(task, path)
    assert f"{path}:1: " in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("task", "names"),
    [("open_ended_qa", 3), ("image_qa", 3), ("multiple_choice", 3), ("retrieval", 2), ("pretraining", 2)],
)
def test_all_fields_that_a_record_lacks_are_named_together(task: str, names: int) -> None:
    wanted = task_class(task)
    with pytest.raises(MissingFieldError) as caught:
        Record("a:1", {"x": 1}).require(*((name,) for name in wanted.required_fields), wanted.truth_fields)
    assert len(caught.value.lacking) == names
    assert set(caught.value.lacking) <= {*wanted.required_fields, *wanted.truth_fields}
    assert all(f"data.fields.{name}=NAME" in caught.value.hint for name in caught.value.lacking)


@pytest.mark.parametrize("heading", ["video datei", "Video (datei)", "video's", "$video"])
def test_a_heading_that_a_shell_would_split_is_advised_in_quotes(heading: str) -> None:
    hint = MissingFieldError({"media_id": [heading.upper()]}, [heading]).hint
    assert f"data.fields.media_id={heading}" in shlex.split(hint.rpartition("name what it has: ")[2])[1]


@pytest.mark.parametrize("task", GOOD)
def test_all_mistakes_of_a_file_are_reported_together(tmp_path: Path, task: str) -> None:
    """Torn, not UTF-8, blank, of another type, and an id that stands twice: one report, good lines between them."""
    path = tmp_path / "a.jsonl"
    good = json.dumps({**GOOD[task], "question_id": None, "example_id": "x"}).encode()
    path.write_bytes(b"\n".join([good, b"{", b"", b'{"a": "\xff"}', b"[]", good]) + b"\n")
    with pytest.raises(AnnotationError) as caught:
        read(task, path)
    lines = str(caught.value).splitlines()
    assert [line.split(":")[1] for line in lines] == ["2", "4", "5", "6"]
    assert lines[-1].endswith(f"example id 'x' is also that of {path}:1")


@pytest.mark.parametrize("task", GOOD)
def test_an_empty_file_is_refused(tmp_path: Path, task: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n")
    with pytest.raises(AnnotationError, match="no records in it"):
        read(task, path)


@pytest.mark.parametrize("task", GOOD)
def test_renamed_fields_give_the_same_example(tmp_path: Path, task: str) -> None:
    """Every field renamed, and the mapping that says so, gives the same example."""
    neutral = {"clip_name": "media_id", "video_id": "media_id", "image_id": "media_id", "gif_name": "media_id"}
    neutral |= {"coco_id": "media_id", "question_id": "example_id"}
    names = {neutral.get(name, name): f"my {name}" for name in GOOD[task]}
    plain, renamed = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    plain.write_text(json.dumps(GOOD[task]) + "\n")
    renamed.write_text(json.dumps({f"my {name}": value for name, value in GOOD[task].items()}) + "\n")
    assert read(task, renamed, names) == read(task, plain)


def test_csv_gives_the_examples_of_jsonl(tmp_path: Path) -> None:
    for task, record in GOOD.items():
        lines, table = tmp_path / f"{task}.jsonl", tmp_path / f"{task}.csv"
        lines.write_text(json.dumps(record) + "\n")
        in_file(table, record)
        assert read(task, table) == read(task, lines)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"video_id,question,answer\nv,what?\n", ":2: 2 cells, expected 3: video_id, question, answer"),
        (b'video_id,question,answer\nv,"what?,cat\n', "not a whole CSV row"),
        (b"video_id,question,answer\nv,wh\xff?,cat\n", "not UTF-8"),
        (b"video_id,question,answer\n", "no records in it"),
        (b"video_id,question,answer\nv,,cat\nv,what?,cat\n", ":2: question is empty: it must have a value"),
    ],
)
def test_a_bad_table_is_reported(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(AnnotationError, match=message.replace("?", "[?]")):
        read("open_ended_qa", path)


def test_every_task_has_good_and_bad_records_here() -> None:
    assert set(GOOD) == set(TASKS) == {task for task, _, _ in BAD}


# A field of a test set without published answers: task, its value in JSON lines, its cell in a table.
HIDDEN: list[tuple[str, dict[str, Any]]] = [
    *(("open_ended_qa", {"answer": value}) for value in ("", " ", -1, None, "?", [], "[UNK] unknown")),
    *(("image_qa", {"labels": value}) for value in ({}, {"": -1}, "", -1, [], None)),
    *(("image_qa", {"labels": None, "answer": value}) for value in ("", -1, [""])),
    *(("image_qa", {"labels": None, "answers": value}) for value in ([], [""], "hidden", [None])),
    *(("multiple_choice", {"answer": value}) for value in (-1, "", "hidden", None, 5, 99, "-1", [0])),
    *((task, {"answer_type": value}) for task in GOOD for value in ("", -1, [])),
]


def split_of(task: str, path: Path, purpose: str) -> list[Example]:
    recipe = load_recipe(DEMO_RECIPES[task], overrides=[f"data.splits.val.annotations={path}"])
    built = task_class(task)(recipe.objective, recipe.infer, {"cat": 0, "man": 1})
    check = {"predict": None, "score": built.check_truth, "train": built.check_training}[purpose]
    return read_split(recipe, "val", built, check)


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
@pytest.mark.parametrize(("task", "hidden"), HIDDEN)
def test_truth_that_is_hidden_matters_to_scores_only(
    tmp_path: Path, task: str, hidden: dict[str, Any], ending: str
) -> None:
    """The examples that are predicted are those of the same records without these fields."""
    whole = changed(task, dict.fromkeys(hidden))
    examples = [
        split_of(task, in_file(tmp_path / f"{n}.{ending}", r), "predict")
        for n, r in enumerate([whole, {**whole, **hidden}])
    ]
    assert [example.key for example in examples[0]] == [example.key for example in examples[1]]


@pytest.mark.parametrize(
    ("task", "hidden"),
    [
        ("open_ended_qa", {"answer": ""}),
        ("image_qa", {"labels": -1}),
        ("multiple_choice", {"answer": -1}),
        ("retrieval", {"answer_type": ""}),
        ("pretraining", {"answer_type": -1}),
    ],
)
def test_truth_that_is_hidden_cannot_be_scored(tmp_path: Path, task: str, hidden: dict[str, Any]) -> None:
    path = in_file(tmp_path / "a.jsonl", {**GOOD[task], **hidden})
    with pytest.raises(AnnotationError, match=f":1: {next(iter(hidden))} is "):
        split_of(task, path, "score")


@pytest.mark.parametrize("task", GOOD)
def test_training_needs_no_answer_types(tmp_path: Path, task: str) -> None:
    path = in_file(tmp_path / "a.jsonl", {**GOOD[task], "answer_type": 3})
    assert split_of(task, path, "train")[0].answer_type is None


def in_file(path: Path, record: dict[str, Any]) -> Path:
    if path.suffix == ".csv":
        cells = [value if isinstance(value, str) else json.dumps(value) for value in record.values()]
        quoted = ['"' + cell.replace('"', '""') + '"' for cell in cells]
        path.write_text(",".join(record) + "\n" + ",".join(quoted) + "\n")
    else:
        path.write_text(json.dumps(record) + "\n")
    return path
