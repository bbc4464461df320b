"""Annotation files, answer vocabularies and groups."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from clipbert_cli.errors import AnnotationError
from clipbert_cli.text.annotations import group_by_media, read_answers, read_examples
from clipbert_cli.text.fields import Record, RecordError
from clipbert_cli.types import Example


def parse(record: Record) -> Example:
    return Example(record.place.rpartition(":")[2], record.identifier("media_id"), (record.text("question"),))


def write(path: Path, *lines: str | bytes) -> Path:
    path.write_bytes(b"".join((line.encode() if isinstance(line, str) else line) + b"\n" for line in lines))
    return path


GOOD = '{"video_id": "v1", "question": "what?"}'


def test_records_keep_their_order_and_number(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", GOOD, '{"video_id": 7, "question": "who?"}')
    assert [(each.example_id, each.media_id, each.texts) for each in read_examples(path, parse)] == [
        ("1", "v1", ("what?",)),
        ("2", "7", ("who?",)),
    ]


def test_every_bad_line_is_reported_with_file_line_field_and_value(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl",
        GOOD,
        '{"video_id": "v1", "question": "wh',
        b'{"video_id": "\xff"}',
        '["v1"]',
        '{"question": "what?"}',
        '{"video_id": "v1", "question": 3}',
        '{"video_id": true, "question": "what?"}',
        '{"video_id": null, "question": "what?"}',
        '{"video_id": "v1", "question": "what \\ud83d?"}',
    )
    with pytest.raises(AnnotationError) as caught:
        read_examples(path, parse)
    lines = str(caught.value).splitlines()
    others = " (or video_id, clip_name, gif_name, image_id, coco_id, vg_id)"
    assert len(lines) == 8
    assert lines[0].startswith(f"{path}:2: not JSON (")
    assert lines[1] == f"{path}:3: not UTF-8 text (byte 14 is 0xff)"
    assert lines[2].startswith(f"{path}:4: a JSON list, expected an object")
    assert lines[3] == f"{path}:5: media_id{others} is missing; the record has question"
    assert lines[4] == f"{path}:6: question is 3: it must be text"
    assert lines[6] == f"{path}:8: video_id is null: it must have a value"
    assert lines[7].startswith(f'{path}:9: question is "what \\ud83d?", which contains an unpaired surrogate')
    assert lines[5] == f"{path}:7: video_id is true: it must be text or an integer"


def test_only_the_first_mistakes_are_listed_and_the_rest_is_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *[f"{{{number}" for number in range(33)])
    with pytest.raises(AnnotationError, match=r"\.\.\. and 13 more$"):
        read_examples(path, parse)


@pytest.mark.parametrize("line", ["{", "[]", '{"media_id": 1.5, "answer": "x"}', '{"media_id": "a"}'])
def test_a_mistake_of_many_lines_is_listed_once(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "a.jsonl", GOOD, *[line] * 33, "[1]")
    with pytest.raises(AnnotationError) as caught:
        read_examples(path, parse)
    first, other = str(caught.value).splitlines()
    assert first.startswith(f"{path}:2: ")
    assert first.endswith("(and 32 more like this)")
    assert other.startswith(f"{path}:35: ")
    few = write(tmp_path / "b.jsonl", GOOD, *[line] * 3)
    with pytest.raises(AnnotationError) as caught:
        read_examples(few, parse)
    assert len(str(caught.value).splitlines()) == 3


def test_blank_lines_are_skipped(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", GOOD, "", GOOD, "  ")
    assert [each.example_id for each in read_examples(path, parse)] == ["1", "3"]


def test_an_empty_file_and_a_missing_file_are_errors(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="no records in it"):
        read_examples(write(tmp_path / "empty.jsonl"), parse)
    with pytest.raises(AnnotationError, match="no such annotation file"):
        read_examples(tmp_path / "absent.jsonl", parse)


def test_an_id_that_occurs_twice_is_an_error_that_names_both_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", GOOD, GOOD)
    with pytest.raises(AnnotationError, match=r":2: example id 'same' is also that of .*:1$"):
        read_examples(path, lambda record: Example("same", "v1", ("?",)))


def test_the_message_of_a_parser_is_kept(tmp_path: Path) -> None:
    def refuse(record: Record) -> Example:
        raise RecordError("answer is 3: it must be 4")

    path = write(tmp_path / "a.jsonl", GOOD)
    with pytest.raises(AnnotationError, match=f"^{path}:1: answer is 3: it must be 4$"):
        read_examples(path, refuse)


@pytest.mark.parametrize("content", [{"b": 1, "a": 0}, ["a", "b"]])
def test_answers_come_in_label_order(tmp_path: Path, content: object) -> None:
    path = tmp_path / "answers.json"
    path.write_text(json.dumps(content))
    assert list(read_answers(path).items()) == [("a", 0), ("b", 1)]


@pytest.mark.parametrize("content", [["é", "ü", "が"], {"é": 0, "ü": 1, "が": 2}])
def test_answers_are_in_one_unicode_form(tmp_path: Path, content: object) -> None:
    path = tmp_path / "answers.json"
    for form in ("NFC", "NFD"):
        path.write_text(unicodedata.normalize(form, json.dumps(content, ensure_ascii=False)), encoding="utf-8")
        assert read_answers(path) == {"é": 0, "ü": 1, "が": 2}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('["\\u00e9", "e\\u0301"]', "is in the list twice"),
        ('{"\\u00e9": 0, "e\\u0301": 1}', "two answers differ in their Unicode form alone"),
        ('{"a": 0, "b": 0}', "labels must be the integers 0 to 1"),
        ('{"a": 0, "b": 2}', "labels must be the integers 0 to 1"),
        ('{"a": true}', "labels must be"),
        ('["a", "a"]', "is in the list twice"),
        ('[{"answer": "a"}]', "expected a list"),
        ("[1, 2]", "expected a list"),
        ("{}", "expected a list"),
        ("3", "expected a list"),
        ('{"a": ', "not JSON"),
        ('{"a": 0, "b\\ud83d": 1}', r'an answer is "b\\ud83d", which contains an unpaired surrogate'),
        ('["\\udc00"]', "unpaired surrogate"),
    ],
)
def test_a_bad_answer_vocabulary_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "answers.json"
    path.write_text(content)
    with pytest.raises(AnnotationError, match=message):
        read_answers(path)


def test_groups_cut_each_items_examples_in_file_order() -> None:
    examples = [Example(str(number), media, ("?",)) for number, media in enumerate("abaca")]
    groups = group_by_media(examples, max_examples=2)
    assert [(group.media_id, [example.example_id for example in group.examples]) for group in groups] == [
        ("a", ["0", "2"]),
        ("a", ["4"]),
        ("b", ["1"]),
        ("c", ["3"]),
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", "{]\n" * 30_000),
        ("a.jsonl", '{"media_id": 7}\n' * 30_000),
        ("a.json", f"[{'{},' * 30_000}{{}}]"),
        ("a.json", f"[{'7,' * 30_000}7]"),
        ("a.csv", "question,media_id\n" + "a,b\n" * 2 + "a,b,c\n" * 30_000),
    ],
)
def test_a_file_of_nothing_but_mistakes_is_not_read_to_its_end(name: str, content: str, tmp_path: Path) -> None:
    read = 0

    def counted(record: Record) -> Example:
        nonlocal read
        read += 1
        return parse(record)

    (tmp_path / name).write_text(content)
    with pytest.raises(AnnotationError) as caught:
        read_examples(tmp_path / name, counted)
    assert read <= 10_000
    assert len(str(caught.value)) < 3000
    assert "reading ended after 10,000 mistakes" in str(caught.value)
