"""MSR-VTT captions, multiple choice and questions."""

import pytest
from originals import original_qa, sentences

from clipbert_cli.assets.catalog import load_catalog
from clipbert_cli.assets.convert.registry import part_of
from clipbert_cli.errors import AnnotationError

FIRST = "a cartoon animals runs through an ice cave in a video game"
ITEMS = [
    (2960, 0, FIRST),
    (2960, 1, "a man\nplays "),
    (6512, 2, "last of train"),
    (7009, 3, "last of val"),
    (7010, 4, "first of test"),
    (7010, 5, "first of test again"),
    (9770, 6, "in 1k-A"),
    (9999, 7, "last of test"),
]
HEADER = "key,vid_key,video_id,{}\n"
ROW = "ret0,msr9770,video9770,a person is connecting something to system\n"


def make_retrieval(raw, *, column="sentence"):
    raw("msrvtt_data/MSRVTT_data.json", sentences(*ITEMS))
    raw("retrieval_val.json", [{"video": "video7010.mp4", "caption": "published", "image_id": 0}])
    raw("msrvtt_data/MSRVTT_JSFUSION_test.csv", HEADER.format(column) + ROW)
    raw("msrvtt_data/MSRVTT_train.7k.csv", "video_id\nvideo2960\n")


@pytest.mark.parametrize("column", ["sentence", "sentences"])
def test_retrieval_splits(raw, convert, column):
    make_retrieval(raw, column=column)
    done = convert("msrvtt_retrieval")
    texts = [" ".join(text.split()) for _, _, text in ITEMS]
    assert done.read("train.jsonl")[0] == {"caption": FIRST, "clip_name": "video2960"}
    assert [record["caption"] for record in done.read("train.jsonl")] == texts[:4]
    assert [record["caption"] for record in done.read("train_9k.jsonl")] == [*texts[:6], texts[7]]
    assert done.read("val.jsonl") == [{"caption": "published", "clip_name": "video7010"}]
    assert done.warnings == []
    assert done.read("test.jsonl") == [
        {"caption": "a person is connecting something to system", "clip_name": "video9770"}
    ]


def test_half_a_character_is_a_question_mark(raw, convert):
    make_retrieval(raw)
    raw("retrieval_val.json", [{"video": "video7010.mp4", "caption": "a\ud83d b\ud83d\ude00"}])
    assert convert("msrvtt_retrieval").read("val.jsonl")[0]["caption"] == "a? b😀"


def test_retrieval_says_when_validation_videos_are_trained_on(raw, convert):
    make_retrieval(raw)
    raw("retrieval_val.json", [{"video": "video2960", "caption": "x"}])
    assert convert("msrvtt_retrieval").warnings == ["1 media are in val.jsonl and in train.jsonl, video2960 among them"]


def test_retrieval_counts_are_compared(raw, convert):
    make_retrieval(raw)
    warnings = convert("msrvtt_retrieval", part_of(load_catalog(), "msrvtt_retrieval")).warnings
    assert "train.jsonl: 4 records where 140,200 were expected (verified)" in warnings
    assert "train_9k.jsonl: 5 media where 9,000 were expected (verified)" in warnings


@pytest.mark.parametrize(
    ("sentence", "message"),
    [
        ({"video_id": "video1", "sen_id": 0}, "sentence 0: no field caption: it has video_id, sen_id"),
        ({"caption": 5, "video_id": "video1", "sen_id": 0}, "caption is 5: str was expected"),
        ({"caption": "x", "video_id": "clip1", "sen_id": 0}, "video is 'clip1': video0 to video9999 was expected"),
        ({"caption": "x", "video_id": "video10000", "sen_id": 0}, "video0 to video9999 was expected"),
        ("text", "an object with caption was expected, not 'text'"),
    ],
)
def test_a_bad_record_is_named(raw, convert, tmp_path, sentence, message):
    raw("MSRVTT_data.json", {"videos": [], "sentences": [sentence]})
    raw("MSRVTT_JSFUSION_test.csv", HEADER.format("sentence") + ROW)
    with pytest.raises(AnnotationError, match=r"MSRVTT_data\.json") as caught:
        convert("msrvtt_retrieval")
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


OPTIONS = ["a cat", 'a "dog"', "a cow", "a pig", "a man"]


def test_multiple_choice_leaves_out_what_has_a_blank_option_and_keeps_the_numbers(raw, convert):
    blank = {"video": "video7010.mp4", "caption": [*OPTIONS[:4], " \n"], "answer": 3}
    raw("msrvtt_mc_test.json", [blank, {**blank, "caption": OPTIONS}])
    done = convert("msrvtt_mc")
    assert [record["qid"] for record in done.read("test.jsonl")] == [1]
    assert done.warnings == ["test.jsonl: 1 records have a blank option: left out"]


@pytest.mark.parametrize(
    "record",
    [
        {"video": "video7010.mp4", "caption": OPTIONS, "answer": 3},
        {"qid": 9, "clip_name": "video7010", "options": OPTIONS, "answer": 3},
    ],
)
def test_multiple_choice_from_other_copies(raw, convert, record):
    raw("msrvtt_mc_test.json", [record])
    expected = [{"qid": 0, "clip_name": "video7010", "options": OPTIONS, "answer": 3}]
    assert convert("msrvtt_mc").read("test.jsonl") == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": 5}, "answer is 5: 0 to 4 was expected"),
        ({"answer": True}, "answer is True: int was expected"),
        ({"caption": OPTIONS[:4]}, "5 captions were expected"),
    ],
)
def test_multiple_choice_refuses_bad_records(raw, convert, changes, message):
    raw("msrvtt_mc_test.json", [{"video": "video7010.mp4", "caption": OPTIONS, "answer": 3, **changes}])
    with pytest.raises(AnnotationError, match="record 0") as caught:
        convert("msrvtt_mc")
    assert message in str(caught.value)


COUCH = (6513, "what are three people sitting on?", "couch")


def make_qa(raw, train):
    raw("train_qa.json", original_qa(0, *train))
    raw("val_qa.json", original_qa(158581, COUCH))
    raw(
        "test_qa.json",
        original_qa(170859, (7010, "Who sings?", "nobody before"), (9999, " how many ?", "2"), (9999, "what ?", "")),
    )


def test_questions_from_the_original(raw, convert):
    make_qa(raw, [(0, "what is it ?", "cat"), (1, "where is it ?", "dog"), (6512, "when is it ?", "dog")])
    done = convert("msrvtt_qa")
    assert done.read("val.jsonl") == [
        {"question": COUCH[1], "answer": "couch", "video_id": "video6513", "answer_type": "what"}
    ]
    assert [(r["answer_type"], r["question"], r["answer"]) for r in done.read("test.jsonl")] == [
        ("who", "Who sings?", "nobody before"),
        ("how", "how many ?", "2"),
    ]
    assert done.read("train_ans2label.json") == {"dog": 0, "cat": 1}
    assert [r["video_id"] for r in done.read("train.jsonl")] == ["video0", "video1", "video6512"]
    assert done.warnings == ["test.jsonl: 1 records have no question or no answer: left out"]


def test_questions_keep_the_1500_most_frequent_answers_and_drop_training_on_others(raw, convert):
    rare = [(n, "what ?", f"answer {n:04}") for n in range(1600)]
    make_qa(raw, [*rare, (5, "what ?", "answer 1599")])
    done = convert("msrvtt_qa")
    vocabulary = done.read("train_ans2label.json")
    # The most frequent first, then as first seen; 1,499 of the once-seen ones fit.
    assert list(vocabulary) == ["answer 1599", *(f"answer {n:04}" for n in range(1499))]
    assert list(vocabulary.values()) == list(range(1500))
    train = done.read("train.jsonl")
    assert len(train) == 1501
    assert {r["answer"] for r in train} == set(vocabulary)
    assert len(done.read("test.jsonl")) == 2


def test_questions_from_copies_keep_their_vocabulary(raw, convert):
    def copy(*items):
        return [
            {"video": f"video{video}.mp4", "question": question, "answer": answer, "question_id": n}
            for n, (video, question, answer) in enumerate(items)
        ]

    raw("qa_train.json", copy((0, "what ?", "cat"), (1, "what ?", "dog"), (2, "what ?", "dog")))
    raw("qa_val.json", copy(COUCH))
    raw("qa_test.json", copy((7010, "who ?", "man")))
    raw("train_ans2label.json", {"cat": 0, "dog": 1})
    done = convert("msrvtt_qa")
    assert done.read("train_ans2label.json") == {"cat": 0, "dog": 1}
    assert done.read("val.jsonl")[0]["video_id"] == "video6513"


@pytest.mark.parametrize("labels", [[], {}, {"cat": 1}, {"cat": 0, "dog": 2}, {"cat": False}, {"cat": "0"}])
def test_questions_refuse_a_vocabulary_that_cannot_be_trained_on(raw, convert, labels):
    make_qa(raw, [(0, "what ?", "cat")])
    raw("train_ans2label.json", labels)
    with pytest.raises(AnnotationError, match=r"train_ans2label.json: an object of answers and the labels 0, 1, 2, "):
        convert("msrvtt_qa")


def test_questions_about_a_video_of_another_split_are_reported(raw, convert):
    make_qa(raw, [(0, "is it ?", "yes"), (7010, "what ?", "no")])
    assert "1 media are in test.jsonl and in train.jsonl, video7010 among them" in convert("msrvtt_qa").warnings


def test_missing_and_doubled_files_are_named(raw, convert):
    with pytest.raises(AnnotationError, match=r"no file train_qa.json or qa_train.json or train.jsonl"):
        convert("msrvtt_qa")
    raw("a/train_qa.json", [])
    raw("b/train_qa.json", [])
    with pytest.raises(AnnotationError, match=r"train_qa.json is there 2 times"):
        convert("msrvtt_qa")


@pytest.mark.parametrize("content", ["[{", "<html>", b"\xff\xfe", "{}"])
def test_a_file_that_is_not_a_list_of_records_is_named(raw, convert, content):
    raw("train_qa.json", content)
    with pytest.raises(AnnotationError, match=r"train_qa\.json"):
        convert("msrvtt_qa")
