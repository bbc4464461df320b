"""Which fields of a file are read, which are not, and which entries of `data.fields` match nothing."""

import pytest

from clipbert_cli.task.registry import TASKS, task_class
from clipbert_cli.text.fields import FIELDS, Columns, Record, unmatched


def columns(*records, names=None):
    found = Columns(names or {})
    for fields in records:
        found.add(Record("a.csv:1", fields, names or {}, typed=False))
    return found


@pytest.mark.parametrize("task", TASKS)
def test_a_task_declares_fields_that_there_are(task):
    assert set(task_class(task).fields) <= set(FIELDS)
    assert set(task_class(task).expected_fields) <= set(task_class(task).fields)


@pytest.mark.parametrize(
    ("task", "fields", "names", "unread"),
    [
        ("open_ended_qa", {"video_id": "a", "asked": "b", "answer": "c"}, {}, ["asked"]),
        ("open_ended_qa", {"video_id": "a", "asked": "b", "answer": "c"}, {"question": "asked"}, []),
        ("open_ended_qa", {"clip_name": "a", "video_id": "b", "question": "c", "url": "d"}, {}, ["clip_name", "url"]),
        ("open_ended_qa", {"video_id": "a", "question": "b", "options": "c"}, {}, ["options"]),
        ("multiple_choice", {"video_id": "a", "a0": "b", "a1": "c", "a2": "", "q": "d"}, {}, ["q"]),
        ("open_ended_qa", {"video_id": "a", "question": "b", "remark": "", "note": None}, {}, []),
        ("multiple_choice", {"id": "a", "x": "b", "y": "c"}, {"media_id": "id", "options": ["x", "y"]}, []),
        ("retrieval", {"video_id": "a", "caption": "b", "text": "c", "begin": "0"}, {}, ["text", "begin"]),
        ("retrieval", {"video_id": "a", "caption": "b", "start": "1", "end": "2"}, {}, []),
        ("retrieval", {"video_id": "a", "caption": "b", "start": "1", "end": "2"}, {"start": None, "end": None}, []),
        ("image_qa", {"image_id": "a", "question": "b", "answer 1": "c", "answer 2": "d", "votes": "3"}, {}, ["votes"]),
    ],
)
def test_fields_that_nothing_reads(task, fields, names, unread):
    assert columns(fields, names=names).unread(task_class(task).fields) == unread


@pytest.mark.parametrize(
    ("fields", "names", "count"),
    [
        ({"video_id": "a", "first": "b", "second": "c"}, {"caption": ["first", "second"]}, 2),
        ({"video_id": "a", "first": "b", "second": "", "third": ""}, {"caption": ["first", "second", "third"]}, 1),
        ({"clip": "a", "en": "b", "de": "c", "fr": "d"}, {"media_id": "clip", "caption": ["de", "en", "fr"]}, 3),
        ({"video_id": "a", "caption": '["b", "c"]'}, {}, 2),
        ({"video_id": "a", "said": '["b", "c"]'}, {"caption": "said"}, 2),
        ({"video_id": "a", "caption": "b"}, {}, 1),
    ],
)
def test_the_texts_of_one_record_are_read_from_fields_that_it_has(fields, names, count):
    parts = list(Record("a.csv:1", fields, names, typed=False).each("caption"))
    found = Columns(names)
    for part in parts:
        found.add(part)
    assert len({part.text("caption") for part in parts}) == len(parts) == count
    assert list(found.all) == list(fields)
    assert found.unread(task_class("retrieval").fields) == []


def test_a_field_is_lost_if_one_record_has_a_value_in_it():
    found = columns({"video_id": "a", "question": "b", "remark": ""}, {"video_id": "a", "question": "c", "remark": "d"})
    assert found.unread(task_class("open_ended_qa").fields) == ["remark"]


def test_a_field_is_there_if_one_record_has_a_value_in_it():
    found = columns({"video_id": "a", "caption": "b", "text": ""}, {"video_id": "a", "caption": "", "text": "c"})
    assert found.has("caption")
    assert not found.has("question")


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ({"question": "asked"}, {}),
        ({"question": "Asked"}, {"question": "data.fields.question is Asked"}),
        ({"question": "asked", "answer_type": "kind"}, {"answer_type": "data.fields.answer_type is kind"}),
        ({"options": ["x", "y", "z"]}, {"options": "data.fields.options is z"}),
        ({"start": None}, {}),
    ],
)
def test_entries_that_match_no_field(names, found):
    one, other = columns({"asked": "a", "x": "b"}), columns({"x": "", "y": ""})
    assert unmatched(names, one, other) == found
