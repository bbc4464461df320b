"""Questions of MSVD-QA and NExT-QA."""

import pytest
from originals import original_qa

from clipbert_cli.errors import AnnotationError

NAMES = {number: f"video-{number}_0_{number}" for number in range(1, 1971)}


def write_mapping(raw, names=NAMES):
    raw("youtube_mapping.txt", "".join(f"{name} vid{number}\n" for number, name in names.items()))


def write_msvd(raw, **more):
    items = {
        "train": [(1, "what is chewing a nut?", "squirrel"), (1200, "Who walks?", "man")],
        "val": [(1201, "how does it run?", "fast")],
        "test": [(1301, "what is it?", "unseen"), (1970, "where is it?", "garden")],
    }
    for split, asked in {**items, **more}.items():
        raw(f"{split}_qa.json", original_qa(0, *asked))


def test_the_numbers_of_msvd_qa_become_names_of_files(raw, convert):
    write_msvd(raw)
    write_mapping(raw)
    done = convert("msvd_qa")
    assert done.read("train.jsonl") == [
        {
            "question": "what is chewing a nut?",
            "answer": "squirrel",
            "video_id": "video-1_0_1",
            "answer_type": "what",
        },
        {"question": "Who walks?", "answer": "man", "video_id": "video-1200_0_1200", "answer_type": "who"},
    ]
    assert [record["video_id"] for record in done.read("test.jsonl")] == ["video-1301_0_1301", "video-1970_0_1970"]
    assert done.read("train_ans2label.json") == {"squirrel": 0, "man": 1}
    assert done.warnings == []


def test_the_vocabulary_of_msvd_qa_has_the_thousand_most_frequent_answers(raw, convert):
    asked = [(1 + n % 1200, "what?", f"answer {n}") for n in range(1100)]
    write_msvd(raw, train=[*asked, *asked[:50], (7, "what?", "answer 1099")])
    write_mapping(raw)
    done = convert("msvd_qa")
    vocabulary = done.read("train_ans2label.json")
    assert len(vocabulary) == 1000
    assert {"answer 0", "answer 1099", "answer 998"} <= set(vocabulary)
    assert "answer 1000" not in vocabulary
    assert {record["answer"] for record in done.read("train.jsonl")} == set(vocabulary)


@pytest.mark.parametrize(
    ("video", "message"), [(0, "video_id is 0"), (1971, "1 to 1970 was expected"), ("cat", "a whole number")]
)
def test_msvd_qa_refuses_other_videos(raw, convert, video, message):
    write_msvd(raw, val=[(video, "what?", "a")])
    write_mapping(raw)
    with pytest.raises(AnnotationError, match=message):
        convert("msvd_qa")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({**NAMES, 3: "a b"}, "line 3: `NAME vidN` was expected"),
        ({number: name for number, name in NAMES.items() if number != 9}, "vid9 is not in it, and 0 others"),
        ({**NAMES, 1971: "x"}, "video is 1971"),
    ],
)
def test_a_wrong_mapping_is_refused(raw, convert, names, message):
    write_msvd(raw)
    write_mapping(raw, names)
    with pytest.raises(AnnotationError, match=message):
        convert("msvd_qa")


# ------------------------------------------------------------------------------------------ NExT-QA

HEADER = "video,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4"
ROWS = {
    "train": [
        '4010069381,369,640,480,"how do they, both, play",0,6,CH,roll,tap,strum,hit,pat',
        "2435100235,1906,640,480,what is first,2,6,TN,a,b,c,d,e",
    ],
    "val": ["5840177726,377,640,480,how are they positioned,4,3,DO,a,b,c,d,e"],
    "test": ["7533369046,803,640,360,where is it,,5,DL,table,lake,site,house,playground"],
}


def write_next_qa(raw, **more):
    for split, rows in {**ROWS, **more}.items():
        raw(f"nextqa/{split}.csv", "\n".join([HEADER, *rows]) + "\n")


def test_next_qa_keeps_questions_of_videos_apart(raw, convert):
    write_next_qa(raw)
    done = convert("next_qa")
    assert done.read("train.jsonl") == [
        {
            "question_id": "4010069381_6",
            "video_id": "4010069381",
            "question": "how do they, both, play",
            "options": ["roll", "tap", "strum", "hit", "pat"],
            "answer_type": "causal",
            "answer": 0,
        },
        {
            "question_id": "2435100235_6",
            "video_id": "2435100235",
            "question": "what is first",
            "options": ["a", "b", "c", "d", "e"],
            "answer_type": "temporal",
            "answer": 2,
        },
    ]
    assert [record["answer_type"] for name in ("val", "test") for record in done.read(f"{name}.jsonl")] == [
        "descriptive",
        "descriptive",
    ]
    assert "answer" not in done.read("test.jsonl")[0]
    assert done.warnings == []


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1,9,8,6,why,5,6,CW,a,b,c,d,e", "answer is 5: 0 to 4 was expected"),
        ("1,9,8,6,why,x,6,CW,a,b,c,d,e", "answer is 'x'"),
        ("1,9,8,6,why,0,6,XX,a,b,c,d,e", "type is 'XX': it must begin with C, T, D"),
        (",9,8,6,why,0,6,CW,a,b,c,d,e", "the name of its media is ''"),
        ("1,9,8,6,why,0,6,CW,a,b,c,d", "12 columns where the header has 13"),
    ],
)
def test_next_qa_refuses_other_rows(raw, convert, row, message):
    write_next_qa(raw, val=[row])
    with pytest.raises(AnnotationError, match=message):
        convert("next_qa")


def test_next_qa_reports_what_is_twice_or_blank_and_what_leaks(raw, convert):
    write_next_qa(raw, val=[ROWS["train"][0], ROWS["train"][0], "1,9,8,6,,0,6,CW,a,b,c,d,e"])
    assert convert("next_qa").warnings == [
        "val.jsonl: 1 records have no question or a blank option: left out",
        "val.jsonl: 1 records have the question_id of an earlier one: left out",
        "1 media are in val.jsonl and in train.jsonl, 4010069381 among them",
    ]
