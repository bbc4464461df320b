"""Paragraph retrieval (DiDeMo, ActivityNet) and TGIF-QA."""

import pytest
from originals import didemo, table

from clipbert_cli import foreign
from clipbert_cli.assets.catalog import load_catalog
from clipbert_cli.assets.convert.raw_files import read_records, share
from clipbert_cli.assets.convert.registry import part_of
from clipbert_cli.errors import AnnotationError

CLIP = "35034348999@N01_6060447507_dc1a90b8ef"


def make_didemo(raw):
    raw(
        "data/train_data.json",
        [
            didemo(f"{CLIP}.mov", "third seen first. ", (3, 4), (3, 3), (4, 4), (3, 3)),
            didemo("other_1.AVI", "alone"),
            didemo(f"{CLIP}.mp4", "starts\nat once", (0, 0), (0, 0), (1, 1), (0, 0)),
            didemo(f"{CLIP}.", "in the middle", (2, 2), (2, 2), (2, 2), (2, 2), (2, 2)),
            didemo("empty_1.mp4", " \n"),
        ],
    )
    raw("data/val_data.json", [didemo("v_1.3gp", "b")])
    raw("data/test_data.json", [didemo("t_1.wmv", "c")])


def test_didemo_joins_by_stem_in_file_order(raw, convert):
    make_didemo(raw)
    done = convert("didemo_retrieval")
    assert done.read("train.jsonl") == [
        {"caption": "third seen first. starts at once in the middle", "clip_name": CLIP},
        {"caption": "alone", "clip_name": "other_1"},
    ]
    assert done.read("val.jsonl") == [{"caption": "b", "clip_name": "v_1"}]
    assert done.read("test.jsonl") == [{"caption": "c", "clip_name": "t_1"}]
    assert done.warnings == []


def test_didemo_counts_are_compared(raw, convert):
    make_didemo(raw)
    warnings = convert("didemo_retrieval", part_of(load_catalog(), "didemo_retrieval")).warnings
    assert "val.jsonl: 1 records where 1,065 were expected (verified)" in warnings


def test_didemo_says_when_a_split_leaks(raw, convert):
    make_didemo(raw)
    raw("data/test_data.json", [didemo("other_1.mov", "c")])
    assert convert("didemo_retrieval").warnings == ["1 media are in train.jsonl and in test.jsonl, other_1 among them"]


@pytest.mark.parametrize("video", ["", " ", "folder/", " .mov"])
def test_didemo_refuses_a_video_without_a_name(raw, convert, video):
    make_didemo(raw)
    raw("data/val_data.json", [didemo(video, "x")])
    with pytest.raises(AnnotationError, match=r"val_data.json, record 0: the name of its media is"):
        convert("didemo_retrieval")


def make_anet(raw):
    raw(
        "train.json",
        {
            "v_QOlSCBRmfWY": {
                "duration": 82.73,
                "timestamps": [[17.37, 60.0], [0.83, 19.86]],
                "sentences": [" Second in time. ", "A young woman\nis seen."],
            },
            "v_startafter_": {"duration": 5, "timestamps": [[4, 2]], "sentences": ["Start after end."]},
        },
    )
    raw("val_1.json", {"v_dev________": {"duration": 1.0, "timestamps": [[0, 1]], "sentences": [" One. "]}})
    raw("val_2.json", {})


def test_anet_paragraphs_join_sentences_in_the_order_of_the_file(raw, convert):
    make_anet(raw)
    done = convert("anet_retrieval")
    assert done.read("train.jsonl") == [
        {"caption": "Second in time. A young woman is seen.", "clip_name": "v_QOlSCBRmfWY"},
        {"caption": "Start after end.", "clip_name": "v_startafter_"},
    ]
    assert done.read("dev.jsonl") == [{"caption": "One.", "clip_name": "v_dev________"}]


@pytest.mark.parametrize(
    "entry",
    [
        [],
        {"duration": 1, "timestamps": [[0, 1]]},
        {"duration": 1, "timestamps": [], "sentences": ["x"]},
        {"duration": 1, "timestamps": [[0, 1]], "sentences": [5]},
    ],
)
def test_anet_refuses_bad_entries(raw, convert, entry):
    make_anet(raw)
    raw("train.json", {"v_bad": entry})
    with pytest.raises(AnnotationError, match=r"train.json, v_bad"):
        convert("anet_retrieval")


def test_anet_refuses_a_video_without_a_name(raw, convert):
    make_anet(raw)
    raw("train.json", {" ": {"duration": 5, "timestamps": [[4, 5]], "sentences": ["x"]}})
    with pytest.raises(AnnotationError, match=r"train.json,  : the name of its media is ' '"):
        convert("anet_retrieval")


CHOICE = "gif_name\tquestion\ta1\ta2\ta3\ta4\ta5\tanswer\tvid_id\tkey"
FRAME = "gif_name\tquestion\tanswer\ttype\tvid_id\tkey\tdescription"
BUTTERFLY = (
    "tumblr_nk172bbdPI1u1lr18o1_250\tWhat does the butterfly do 10 or more than 10 times ?\tstuff marshmallow\t"
    "holds a phone towards face\tfall over\ttalk\tflap wings\t4\tID4\t21"
)
CONE = (
    "tumblr_no73q2fm0I1uuf348o1_250\twhat is being placed in the white ice cream cone ?\tcookie\t0\tFRAMEQA42\t3\t"
    "a cookie is placed in the white ice cream cone ."
)
QUOTED = 'tumblr_q_250\tWhat does the man do before say "hi ?\ta "b\tc"\t"d"\te\tf\t2\tID9\t7'


def kept(start, *, held_out):
    """A GIF name that the fixed hash holds out, or does not."""
    return next(f"{start}{n}" for n in range(1000) if (share(f"tgif:{start}{n}", 10) == 0) == held_out)


TRAIN_GIF, VAL_GIF = kept("train", held_out=False), kept("val", held_out=True)


def make_tgif(raw):
    options = "a\tb\tc\td\te"
    train = [f"{TRAIN_GIF}\tq1 ?\t{options}\t0\tI\t1", f"{VAL_GIF}\tq2 ?\t{options}\t4\tI\t2"]
    raw("dataset/Train_action_question.csv", table(CHOICE, *train))
    raw("dataset/Test_action_question.csv", table(CHOICE, BUTTERFLY))
    raw("dataset/Train_transition_question.csv", table(CHOICE, *train, f"{TRAIN_GIF}\tq3 ?\t{options}\t1\tI\t3"))
    raw("dataset/Test_transition_question.csv", table(CHOICE, QUOTED))
    frames = [f"{TRAIN_GIF}\twhat ?\tdog\t0\tF\t1\tx", f"{VAL_GIF}\thow many ?\ttwo\t1\tF\t2\tx"]
    raw("dataset/Train_frameqa_question.csv", table(FRAME, *frames, f"{TRAIN_GIF}\twhich ?\tdog\t2\tF\t3\tx"))
    raw("dataset/Test_frameqa_question.csv", table(FRAME, CONE, f"{TRAIN_GIF}\twhere ?\troom\t3\tF\t4\tx"))


def test_tgif_records(raw, convert):
    make_tgif(raw)
    done = convert("tgif_qa")
    assert done.read("action_test.jsonl") == [
        {
            "gif_name": "tumblr_nk172bbdPI1u1lr18o1_250",
            "question": "What does the butterfly do 10 or more than 10 times ?",
            "options": ["stuff marshmallow", "holds a phone towards face", "fall over", "talk", "flap wings"],
            "answer": 4,
        }
    ]
    assert done.read("frameqa_test.jsonl") == [
        {
            "gif_name": "tumblr_no73q2fm0I1uuf348o1_250",
            "question": "what is being placed in the white ice cream cone ?",
            "answer": "cookie",
            "answer_type": "object",
        },
        {"gif_name": TRAIN_GIF, "question": "where ?", "answer": "room", "answer_type": "location"},
    ]
    assert [r["answer_type"] for r in done.read("frameqa_train.jsonl")] == ["object", "color"]
    assert done.read("frameqa_trainval_ans2label.json") == {"dog": 0, "two": 1}


def test_tgif_quotes_mean_nothing(raw, convert):
    make_tgif(raw)
    record = convert("tgif_qa").read("transition_test.jsonl")[0]
    assert record["question"] == 'What does the man do before say "hi ?'
    assert record["options"] == ['a "b', 'c"', '"d"', "e", "f"]


def test_tgif_leaves_out_what_has_a_blank_option(raw, convert):
    make_tgif(raw)
    raw("dataset/Test_action_question.csv", table(CHOICE, BUTTERFLY, BUTTERFLY.replace("\ttalk\t", "\t \t")))
    done = convert("tgif_qa")
    assert len(done.read("action_test.jsonl")) == 1
    assert "action_test.jsonl: 1 records have no question or a blank option: left out" in done.warnings


def test_tgif_holds_out_whole_gifs(raw, convert):
    make_tgif(raw)
    done = convert("tgif_qa")
    for task in ("action", "transition", "frameqa"):
        assert {r["gif_name"] for r in done.read(f"{task}_train.jsonl")} == {TRAIN_GIF}
        assert {r["gif_name"] for r in done.read(f"{task}_val.jsonl")} == {VAL_GIF}
    assert len(done.warnings) == 3
    assert "a tenth of the training GIFs is held out here, not the original's list" in done.warnings[0]


def test_tgif_takes_the_published_hold_out(raw, convert):
    make_tgif(raw)
    for task in ("action", "transition"):
        raw(f"{task}_val.jsonl", f'{{"gif_name": "{TRAIN_GIF}", "question": "q1 ?", "answer": 0, "options": []}}\n')
    raw("frameqa_val.jsonl", "")
    done = convert("tgif_qa")
    assert [r["question"] for r in done.read("action_val.jsonl")] == ["q1 ?"]
    assert [r["question"] for r in done.read("transition_train.jsonl")] == ["q2 ?", "q3 ?"]
    assert done.read("frameqa_val.jsonl") == []
    assert done.warnings == []


def test_tgif_drops_training_answers_outside_the_vocabulary(raw, convert):
    make_tgif(raw)
    rows = [f"{TRAIN_GIF}\twhat ?\tanswer {n:04}\t0\tF\t{n}\tx" for n in range(1541)]
    raw("dataset/Train_frameqa_question.csv", table(FRAME, *rows))
    done = convert("tgif_qa")
    assert len(done.read("frameqa_trainval_ans2label.json")) == 1540
    assert len(done.read("frameqa_train.jsonl")) == 1540
    assert "frameqa: 1 training questions have an answer outside the 1,540: left out" in done.warnings


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (f"{TRAIN_GIF}\tq\ta\tb\tc\td\te\t5\tI\t1", "line 2: answer is 5: 0 to 4 was expected"),
        (f"{TRAIN_GIF}\tq\ta\tb\tc\td\te\t\tI\t1", "line 2: answer is '': a whole number was expected"),
        (f"{TRAIN_GIF}\tq\ta\tb\tc\td\t4\tI\t1", "line 2: 9 columns where the header has 10"),
        ("\tq\ta\tb\tc\td\te\t4\tI\t1", "line 2: the name of its media is '': text was expected"),
    ],
)
def test_tgif_refuses_bad_rows(raw, convert, row, message):
    make_tgif(raw)
    raw("dataset/Train_action_question.csv", table(CHOICE, row))
    with pytest.raises(AnnotationError, match=r"Train_action_question.csv") as caught:
        convert("tgif_qa")
    assert message in str(caught.value)


def test_tgif_refuses_another_type(raw, convert):
    make_tgif(raw)
    raw("dataset/Test_frameqa_question.csv", table(FRAME, f"{TRAIN_GIF}\twhat ?\tdog\t4\tF\t1\tx"))
    with pytest.raises(AnnotationError, match=r"Test_frameqa_question.csv, line 2: type is 4: 0 to 3 was expected"):
        convert("tgif_qa")


@pytest.mark.parametrize(("content", "message"), [(b"\xff\xff\xff", "no table of text"), (b"", "empty")])
def test_a_file_that_is_not_a_table_is_named(raw, convert, content, message):
    make_tgif(raw)
    raw("dataset/Test_frameqa_question.csv", content)
    with pytest.raises(AnnotationError, match=rf"Test_frameqa_question.csv: {message}"):
        convert("tgif_qa")


@pytest.mark.parametrize("block", [1, 7, 64, 1 << 20])
def test_a_long_list_is_read_record_by_record_whatever_the_block(raw, block, monkeypatch):
    monkeypatch.setattr(foreign, "BLOCK", block)
    records = [{"id": n, "text": f"é ]}},[ {n}"} for n in range(50)]
    path = raw("long.json", records)
    assert [record for _, record in read_records(path)] == records


@pytest.mark.parametrize("content", ['[{"a": 1}, {"b": ', '[{"a": 1}', "{}", "", '[{"a": 1} x]'])
def test_a_long_list_that_is_cut_off_is_named(raw, content):
    path = raw("long.json", content)
    with pytest.raises(AnnotationError, match=r"long\.json"):
        list(read_records(path))
