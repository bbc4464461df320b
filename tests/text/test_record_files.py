"""The forms in which people have their records: every form gives the records of the plain JSON lines."""

from __future__ import annotations

import codecs
import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from clipbert_cli.errors import AnnotationError
from clipbert_cli.recipe.schema import InferConfig, ObjectiveConfig
from clipbert_cli.task.registry import task_class
from clipbert_cli.text.annotations import read_examples
from clipbert_cli.text.fields import Names, Record, RecordError
from clipbert_cli.text.record_files import MAX_FIELDS, MAX_TABLE_LINE, read_records
from clipbert_cli.types import Example

RECORDS = [
    {"video_id": "cat1", "question": 'what does the "cat" do; in\nthe box, there?', "answer": "schläft, tief"},
    {"video_id": "dog 7", "question": "who?", "answer": "der Hund"},
]


def lines(records: list[dict[str, Any]] = RECORDS) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def table(separator: str = ",", *, end: str = "\r\n", records: list[dict[str, Any]] = RECORDS) -> str:
    rows = [list(records[0]), *([str(cell) for cell in record.values()] for record in records)]
    quoted = [separator.join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
    return end.join(quoted) + end


FORMS: dict[str, tuple[str, bytes]] = {
    "JSON lines": ("a.jsonl", lines().encode()),
    "JSON lines with a byte order mark": ("a.jsonl", codecs.BOM_UTF8 + lines().encode()),
    "JSON lines of Windows": ("a.jsonl", codecs.BOM_UTF8 + lines().replace("\n", "\r\n").encode()),
    "JSON lines in UTF-16, as PowerShell redirects": ("a.jsonl", lines().encode("utf-16")),
    "JSON lines named .json": ("a.json", lines().encode()),
    "a JSON list": ("a.json", json.dumps(RECORDS).encode()),
    "a JSON list with a byte order mark": ("a.JSON", codecs.BOM_UTF8 + json.dumps(RECORDS, indent=2).encode()),
    "the only list of a JSON object": ("a.json", json.dumps({"version": 1, "questions": RECORDS}, indent=1).encode()),
    "a table with commas": ("a.csv", table().encode()),
    "a table with commas of Linux": ("a.csv", table(end="\n").encode()),
    "a German Excel": ("a.csv", codecs.BOM_UTF8 + table(";").encode()),
    "Excel that states its separator": ("a.csv", codecs.BOM_UTF8 + ("sep=;\r\n" + table(";")).encode()),
    "tabs in a .csv": ("a.csv", table("\t").encode()),
    "bars in a .csv": ("a.csv", table("|").encode()),
    "Unicode text of Excel": ("a.tsv", table("\t").encode("utf-16")),
    "a .tsv": ("a.tsv", codecs.BOM_UTF8 + table("\t").encode()),
    "columns that once held something": (
        "a.csv",
        b"video_id,question,answer,,\r\n"
        + table().split("\r\n", 1)[1].replace('"\r\n', '",,\r\n').encode()
        + b",,,,\r\n",
    ),
    "Text of Excel": ("a.txt", table("\t").encode()),
    "Unicode text of Excel, named .txt": ("a.txt", table("\t").encode("utf-16")),
    "JSON lines without an ending": ("records", lines().encode()),
    "JSON lines in UTF-16, named .txt": ("a.txt", lines().encode("utf-16")),
    "blanks around cells": ("a.csv", table(";").replace('"cat1"', '" cat1\u00a0"').replace("tief", "tief ").encode()),
    "the row numbers of pandas": (
        "a.csv",
        b",video_id,question,answer\n0," + table(end="\n1,").split("\n1,", 1)[1].removesuffix("1,").encode(),
    ),
}


def fields(record: Record | str) -> dict[str, Any]:
    assert isinstance(record, Record), record
    return {name: record.text(name) for name in ("media_id", "question", "answer")}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_records(tmp_path: Path, form: str) -> None:
    name, content = FORMS[form]
    (tmp_path / name).write_bytes(content)
    found = list(read_records(tmp_path / name))
    assert [fields(record) for record in found] == [
        {"media_id": record["video_id"], "question": record["question"], "answer": record["answer"]}
        for record in RECORDS
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b'[{"a": 1}, [2]]', "a.json, record 1: a JSON list, expected an object: [2]"),
        ("a.json", b"3", "a.json: a JSON int, expected an object: 3"),
        (
            "a.json",
            b'{"images": [{"a": 1}], "annotations": [{"b": 1}]}',
            "a.json: a JSON object with the lists images, annotations: keep one of them, the list of records",
        ),
        ("a.json", b'[{"a": 1},\n{"a": \n', "a.json, record 1: not JSON ("),
        (
            "a.csv",
            "question;answer\nwas für ein Tier?;Hund\n".encode("cp1252"),
            "a.csv:2: not UTF-8 text (byte 5 is 0xfc)",
        ),
        ("a.csv", b'a;b\n"x\ny";1\nz\n', "a.csv:4: 1 cells, expected 2: a, b"),
        ("a.csv", b"a,b,a\n1,2,3\n", "a.csv:1: the heading 'a' is there twice"),
        ("a.csv", b"a;b;a;a\n1;2;3;4\n", "a.csv:1: the heading 'a' is there twice"),
        ("a.csv", b"sep=;\na;b;b\n1;2;3\n", "a.csv:2: the heading 'b' is there twice"),
        ("a.csv", b'a,"b ",c, b\n1,2,3,4\n', "a.csv:1: the heading 'b' is there twice"),
        ("a.tsv", b"\xef\xbb\xbfa\ta\n1\t2\n", "a.tsv:1: the heading 'a' is there twice"),
        ("a.txt", "caf\u00e9,b,cafe\u0301\n1,2,3\n".encode(), "a.txt:1: the heading 'caf\u00e9' is there twice"),
        ("a.csv", b"a,b,c,b,c\n", "a.csv:1: the heading 'b' is there twice"),
        ("a.csv", b"My videos,,\na,b,c\n1,2,3\n4,5,6\n", "a.csv:2: 3 cells, expected 1: My videos"),
        ("a.csv", b"a;b\n1;2;3\n4;5;6\n7;8;9\n", "a.csv:2: 3 cells, expected 2: a, b"),
        ("a.json", b'[{"a": 1}] {"a": 2}', 'a.json: not JSON (there is more after the list): {"a": 2}'),
        (
            "a.xlsx",
            b"PK\x03\x04\x14\x00\xd0",
            "a.xlsx:1: not UTF-8 text (byte 6 is 0xd0); save it as UTF-8, in Excel as",
        ),
        ("a.tsv", b"a\tb\n1\t2\t3\n", "a.tsv:2: 3 cells, expected 2: a, b"),
        ("a.json", b'{\n"a": {"b": 1},\n"c": {"b": 1,\n}}', "a.json:4: not JSON (Expecting property name"),
        (
            "a.json",
            b'{"a": [\n{"b": 1},\n{"b": 1, "b": 2}]}',
            "a.json: not usable JSON: one object has the name",
        ),
        ("a.json", b'{\n"a": 1}\n{"a": 2}', "a.json:3: not JSON (Extra data"),
        ("a.json", b'{"a": 1}\n{"a": 2, "a": 3}\n', "a.json:2: not usable JSON: one object has the name 'a' twice"),
        ("a.jsonl", '{"caf\u00e9": 1, "cafe\u0301": 2}'.encode(), "a.jsonl:1: two names differ in their Unicode form"),
        ("a.json", '[{"b": [{"e\u0301": 1, "\u00e9": 2}]}]'.encode(), "a.json, record 0: two names differ in their Un"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    mistakes = [found for found in read_records(tmp_path / name) if isinstance(found, str)]
    assert mistakes
    assert mistakes[0].startswith(f"{tmp_path}/{message}")


DECOMPOSED = {
    "JSON lines": ("a.jsonl", '{"vidéo": "Zürich", "question": "où ?", "options": ["été", "b"], "n": [1, 2.5]}\n'),
    "JSON lines in ASCII": ("a.jsonl", None),
    "a JSON list": ("a.json", '[{"vidéo": "Zürich", "question": "où ?", "options": ["été", "b"]}]'),
    "a table": ("a.csv", "vidéo;question;a0;a1\nZürich;où ?;été;b\n"),
}


@pytest.mark.parametrize("form", DECOMPOSED)
def test_texts_in_another_unicode_form_are_read_as_one(tmp_path: Path, form: str) -> None:
    name, text = DECOMPOSED[form]
    own = {"vidéo": "Zürich", "question": "où ?", "options": ["été", "b"]}
    written = unicodedata.normalize("NFD", text or json.dumps(own, ensure_ascii=False))
    if text is None:
        written = json.dumps(json.loads(written))  # the accents are escapes
    file = tmp_path / name
    file.write_text(written, encoding="utf-8")
    (record,) = read_records(file, names={"media_id": "vidéo"})
    assert isinstance(record, Record)
    assert record.text("media_id") == "Zürich"
    assert (record.text("question"), record.texts("options")) == ("où ?", ("été", "b"))


def test_a_row_is_found_by_its_first_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('a;b\n"one\ntwo";1\n"three";2\n')
    assert [record.place for record in read_records(path) if isinstance(record, Record)] == [f"{path}:2", f"{path}:4"]


def test_blank_rows_of_a_spreadsheet_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a;b\n1;2\n;\n \t;\n3;4\n")
    assert [record.place for record in read_records(path) if isinstance(record, Record)] == [f"{path}:2", f"{path}:5"]


# ------------------------------------------------------------------------------------------ fields


def read(task: str, path: Path, names: Names | None = None) -> list[Example]:
    built = task_class(task)(ObjectiveConfig(), InferConfig(), None)
    return read_examples(path, built.parse, names=names, each=built.list_field)


def written(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("video,question,a0,a1,a2,answer\nv,who?,Ann,Bob,Eve,1\n", {"media_id": "video"}),
        ("video_id;question;a1;a2;a3;answer\nv;who?;Ann;Bob;Eve;1\n", {}),
        ("video_id,question,Option 1,Option 2,Option 3,answer\nv,who?,Ann,Bob,Eve,Bob\n", {}),
        ("video_id,question,choice_0,choice_1,choice_2,choice_3,answer\nv,who?,Ann,Bob,Eve,,1.0\n", {}),
        ("video_id,question,right,x,y,answer\nv,who?,Bob,Ann,Eve,1\n", {"options": ["x", "right", "y"]}),
        ('video_id,question,options,answer\nv,who?,"[""Ann"", ""Bob"", ""Eve""]",1\n', {}),
    ],
)
def test_options_may_be_numbered_columns(tmp_path: Path, content: str, names: Names) -> None:
    (example,) = read("multiple_choice", written(tmp_path / "a.csv", content), names)
    assert (example.media_id, example.context, example.texts, example.target) == ("v", "who?", ("Ann", "Bob", "Eve"), 1)


def test_questions_may_have_different_numbers_of_options(tmp_path: Path) -> None:
    content = "video_id,a0,a1,a2,a3,answer\nv,yes,no,,,0\nv,a,b,c,d,3\nv,a,b,c,,c\n"
    examples = read("multiple_choice", written(tmp_path / "a.csv", content))
    assert [(len(example.texts), example.target) for example in examples] == [(2, 0), (4, 3), (3, 2)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("video_id,a0,a1,a2,answer\nv,yes,,no,0\n", "a1 is empty, but a later one of its kind is not"),
        ("video_id,a0,a1,answer\nv,yes,,0\n", "a0 to a1 has 1 entries, .*: there must be at least 2"),
        ("video_id,a0,a1,a2,answer\nv,yes,no,,2\n", "answer is 2: it must be an integer from 0 to 1"),
        ("video_id,a0,a2,answer\nv,yes,no,0\n", "options is missing; the record has video_id, a0, a2, answer"),
        ("video_id,a0,a1,a2,answer\nv,2,4,1,2\n", 'answer is "2", which can mean the options at 0 and a position'),
        ("video_id,a0,a1,answer\nv,no,no,no\n", 'answer is "no", which can mean the options at 0 and 1'),
        ("video_id,a0,a1,answer\nv,yes,no,maybe\n", 'answer is "maybe": it must be an integer from 0 to 1'),
    ],
)
def test_options_that_are_not_clear_are_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        read("multiple_choice", written(tmp_path / "a.csv", content))


@pytest.mark.parametrize("task", ["retrieval", "pretraining"])
@pytest.mark.parametrize(
    ("name", "content", "names"),
    [
        ("a.json", '[{"video_id": "v", "caption": ["a cat", "a dog"]}, {"video_id": "w", "caption": "a bird"}]', {}),
        ("a.jsonl", '{"video_id": "v", "captions": ["a cat", "a dog"]}\n{"video_id": "w", "captions": "a bird"}\n', {}),
        ("a.csv", 'video_id,captions\nv,"[""a cat"", ""a dog""]"\nw,"[""a bird""]"\n', {}),
        ("a.csv", "video_id,first,second\nv,a cat,a dog\nw,a bird,\n", {"caption": ["first", "second"]}),
    ],
)
def test_a_list_of_captions_is_as_many_examples(
    tmp_path: Path, task: str, name: str, content: str, names: Names
) -> None:
    examples = read(task, written(tmp_path / name, content), names)
    assert [(example.media_id, example.texts) for example in examples] == [
        ("v", ("a cat",)),
        ("v", ("a dog",)),
        ("w", ("a bird",)),
    ]
    assert len({example.key for example in examples}) == 3


def test_a_caption_in_brackets_is_a_text(tmp_path: Path) -> None:
    (example,) = read("retrieval", written(tmp_path / "a.csv", "video_id,caption\nv,[music] a man sings\n"))
    assert example.texts == ("[music] a man sings",)


@pytest.mark.parametrize("captions", ['"x", 3', '""', '"a", null', ""])
def test_a_wrong_text_in_a_list_is_refused(tmp_path: Path, captions: str) -> None:
    content = f'{{"video_id": "v", "caption": [{captions}]}}\n'
    with pytest.raises(AnnotationError, match=r":1: caption is .*: (it|entry \d) must be text"):
        read("retrieval", written(tmp_path / "a.jsonl", content))


TEN = ["yes"] * 5 + ["no"] * 2 + ["maybe", "maybe", "maybe"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", json.dumps({"image_id": "v", "question": "?", "answers": TEN})),
        (
            "a.json",
            json.dumps(
                [{"image_id": "v", "question": "?", "answers": [{"answer": each, "answer_id": 1} for each in TEN]}]
            ),
        ),
        (
            "a.csv",
            f'image_id,question,answers\nv,?,"{json.dumps(TEN)}"\n'.replace('"', '""')
            .replace('""[', '"[')
            .replace(']""', ']"'),
        ),
        ("a.csv", f"image_id,question,{','.join(f'answer{n}' for n in range(1, 11))}\nv,?,{','.join(TEN)}\n"),
    ],
)
def test_ten_answers_are_soft_labels(tmp_path: Path, name: str, content: str) -> None:
    (example,) = read("image_qa", written(tmp_path / name, content))
    assert example.target == {"yes": 1.0, "no": 0.6, "maybe": 0.9}


@pytest.mark.parametrize(
    ("answers", "labels"),
    [(["a"], {"a": 1.0}), (["a", "b"], {"a": 1.0, "b": 1.0}), (["a"] * 4 + ["b"], {"a": 1.0, "b": 0.6})],
)
def test_fewer_answers_count_as_ten_people(tmp_path: Path, answers: list[str], labels: dict[str, float]) -> None:
    content = json.dumps({"image_id": "v", "question": "?", "answers": answers})
    assert read("image_qa", written(tmp_path / "a.jsonl", content))[0].target == labels


def test_training_learns_from_those_of_many_answers_that_are_in_the_vocabulary(tmp_path: Path) -> None:
    task = task_class("image_qa")(ObjectiveConfig(), InferConfig(), {"yes": 0, "no": 1})
    path = written(tmp_path / "a.jsonl", json.dumps({"image_id": "v", "question": "?", "answers": TEN}))
    (example,) = read_examples(path, task.parse)
    task.check_training(example)
    assert example.target == {"yes": 1.0, "no": 0.6}


@pytest.mark.parametrize("answers", ['"cat"', "[]", "[3]", '[{"text": "cat"}]', '{"cat": 1}'])
def test_a_list_of_answers_that_is_none_is_refused(answers: str) -> None:
    record = Record("a:1", {"answers": json.loads(answers)})
    with pytest.raises(RecordError, match=r"answers is .*: it must be a list of answers"):
        record.votes("answers")


@pytest.mark.parametrize("task", ["open_ended_qa", "multiple_choice", "retrieval"])
def test_ids_may_be_unique_per_media_item_only(tmp_path: Path, task: str) -> None:
    rest = {"question": "?", "answer": 0 if task == "multiple_choice" else "a", "options": ["a", "b"], "caption": "c"}
    ids = [("v", 0), ("v", 1), ("w", 0), ("w", 1), ("x", 7)]
    path = written(tmp_path / "a.jsonl", lines([{"video_id": video, "qid": qid, **rest} for video, qid in ids]))
    examples = read(task, path)
    assert [example.example_id for example in examples] == ["0", "1", "0", "1", "7"]
    with path.open("a") as file:
        file.write(json.dumps({"video_id": "w", "qid": 1, **rest}) + "\n")
    with pytest.raises(AnnotationError, match=r":6: example id '1' of 'w' is also that of .*:4$"):
        read(task, path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "video_id,question,answer" + "," * MAX_TABLE_LINE + "\nv,what,a\n"),
        ("a.csv", "video_id,question,answer\nv,what,a\nw,what,a" + "," * MAX_TABLE_LINE + "\n"),
        ("a.tsv", "video_id\tquestion\tanswer\nv\twhat" + "\t" * MAX_TABLE_LINE),
        ("a.csv", "sep=;\nvideo_id;question;answer" + ";" * MAX_TABLE_LINE),
        ("a.csv", "a" * (MAX_TABLE_LINE + 1)),
        ("a.csv", "video_id,question,answer\n" + 'v,"' + "what " * MAX_TABLE_LINE),
    ],
    ids=["headings", "a row", "tabs", "semicolons", "one cell", "quoted"],
)
def test_a_line_of_a_table_has_a_limit(tmp_path: Path, name: str, content: str) -> None:
    with pytest.raises(AnnotationError, match=f"a line has more than {MAX_TABLE_LINE} characters"):
        read("open_ended_qa", written(tmp_path / name, content))


MANY = {f"field{number}": 0 for number in range(MAX_FIELDS + 1)}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", json.dumps(MANY)),
        ("a.ndjson", json.dumps({**MANY, "video_id": "v", "question": "what", "answer": "a"})),
        ("a.json", json.dumps([MANY])),
        ("a.json", json.dumps(MANY)),
        ("a.txt", json.dumps(MANY)),
        ("a.csv", ",".join(MANY) + "\n" + "1," * MAX_FIELDS + "1\n"),
    ],
)
def test_a_record_has_a_limit_of_fields(tmp_path: Path, name: str, content: str) -> None:
    with pytest.raises(AnnotationError, match=rf"100\d\d fields, but a record has at most {MAX_FIELDS}"):
        read("open_ended_qa", written(tmp_path / name, content))
