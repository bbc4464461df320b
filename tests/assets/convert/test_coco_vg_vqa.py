"""COCO captions, Visual Genome regions and questions, VQA v2."""

import pytest
from originals import TRAIN, VAL, coco_captions, genome, genome_questions, karpathy, vqa_year

from clipbert_cli.assets.catalog import load_catalog
from clipbert_cli.assets.convert.raw_files import share
from clipbert_cli.assets.convert.registry import part_of
from clipbert_cli.errors import AnnotationError


def test_coco_captions_follow_the_karpathy_split(raw, convert):
    karpathy(
        raw,
        (TRAIN.format(9), "train"),
        (VAL.format(401092), "restval"),
        (VAL.format(5), "val"),
        (VAL.format(6), "test"),
    )

    raw(
        "annotations/captions_train2014.json",
        coco_captions((9, "A dog. "), (9, "Two\ndogs\r\n run"), (9, " \n"), (77, "unknown")),
    )
    raw("annotations/captions_val2014.json", coco_captions((6, "test"), (5, ' é "quoted"'), (401092, "rest")))
    done = convert("coco_captions", part_of(load_catalog(), "coco_captions"))
    assert done.read("coco_train_captions.jsonl") == [
        {"coco_id": "COCO_train2014_000000000009", "caption": "A dog."},
        {"coco_id": "COCO_train2014_000000000009", "caption": "Two dogs run"},
        {"coco_id": "COCO_val2014_000000401092", "caption": "rest"},
    ]
    assert done.read("coco_val_captions.jsonl") == [{"coco_id": "COCO_val2014_000000000005", "caption": 'é "quoted"'}]
    assert done.warnings == [
        "1 captions belong to no image of dataset_coco.json: left out",
        "coco_train_captions.jsonl: 1 records have no caption: left out",
        "coco_train_captions.jsonl: 3 records where 566,747 were expected (verified)",
        "coco_train_captions.jsonl: 2 media where 113,287 were expected (verified)",
        "coco_val_captions.jsonl: 1 records where 25,010 were expected (verified)",
        "coco_val_captions.jsonl: 1 media where 5,000 were expected (verified)",
    ]


@pytest.mark.parametrize("name", ["5.jpg", "COCO_train2014_5.jpg", "COCO_val2014_000000000005.png", ""])
def test_an_image_that_is_not_named_as_in_coco_is_an_error(raw, convert, name):
    raw("dataset_coco.json", {"images": [{"filename": name, "split": "train"}]})
    with pytest.raises(AnnotationError, match=r"dataset_coco.json, image 0: filename is"):
        convert("coco_captions")


def test_counts_as_published_give_no_warning(raw, convert):
    karpathy(raw, (TRAIN.format(9), "train"), (VAL.format(5), "val"))
    one = {"annotations": [{"image_id": 9, "id": 1, "caption": "x"}]}
    raw("captions_train2014.json", one)
    raw("captions_val2014.json", {"annotations": [{"image_id": 5, "id": 2, "caption": "y"}]})
    part = part_of(load_catalog(), "coco_captions")
    right = {name: expect.model_copy(update={"records": 1, "media": 1}) for name, expect in part.outputs.items()}
    assert convert("coco_captions", part.model_copy(update={"outputs": right})).warnings == []


def test_vg_captions_leave_out_what_other_datasets_test_on(raw, convert):
    validation = next(n for n in range(1, 1000) if share(f"vg:{n}", 50) == 0)
    plain = [n for n in range(1, 50) if share(f"vg:{n}", 50)][:5]
    free, in_train, in_test, in_val, in_flickr = plain
    karpathy(raw, (TRAIN.format(1), "train"), (VAL.format(2), "test"), (VAL.format(3), "val"))
    raw("dataset_flickr30k.json", {"images": [{"filename": "1000092795.jpg", "split": "train"}]})
    genome(
        raw,
        [
            (free, None, None),
            (in_train, 1, 123),
            (in_test, 2, None),
            (in_val, 3, None),
            (in_flickr, None, 1000092795),
            (validation, None, None),
        ],
        [(n, [f"phrase of {n} ", "\n"]) for n in (validation, in_flickr, in_val, in_test, in_train, free)],
    )
    done = convert("vg_captions")
    assert done.read("vg_train_captions.jsonl") == [
        {"vg_id": str(in_train), "caption": f"phrase of {in_train}"},
        {"vg_id": str(free), "caption": f"phrase of {free}"},
    ]
    assert done.read("vg_val_captions.jsonl") == [{"vg_id": str(validation), "caption": f"phrase of {validation}"}]
    assert done.warnings == [
        "vg_train_captions.jsonl: 2 records have no caption: left out",
        "vg_val_captions.jsonl: 1 records have no caption: left out",
    ]


def test_vg_validation_is_about_one_image_in_fifty():
    assert 2000 < sum(share(f"vg:{n}", 50) == 0 for n in range(1, 108_078)) < 2350


DOCSTRING_ANSWERS = ["down", "down", "at table", "skateboard", "down", "table", "down", "other", "elsewhere", "far"]


def small_vqa(raw, *, main_answers=("down", "at table", "skateboard", "table", "A Net.", "the")):
    """262148000 as in the original's own example; nine fillers for each main answer make the vocabulary."""
    karpathy(
        raw,
        (VAL.format(262148), "restval"),
        (TRAIN.format(1), "train"),
        (VAL.format(2), "test"),
        (VAL.format(3), "val"),
    )
    fillers = [
        (1, 1_000_000 + 100 * k + n, "filler ?", [main] * 10, main, "other")
        for k, main in enumerate(main_answers)
        for n in range(9)
    ]
    rare = [(1, 2_000_000 + n, "rare ?", ["rare"] * 10, "rare", "other") for n in range(8)]
    vqa_year(raw, "train2014", [*fillers, *rare])
    vqa_year(
        raw,
        "val2014",
        [
            (262148, 262148000, "Where is he looking?", DOCSTRING_ANSWERS, "down", "other"),
            (2, 2000, "How many?", ["2"] * 10, "two", "number"),
            (3, 3000, "Is it?", ["net"] * 2 + ["Net"] * 7 + [""], "net", "yes/no"),
        ],
    )


def test_vqa_labels_are_those_of_the_original_example(raw, convert):
    small_vqa(raw)
    records = {record["question_id"]: record for record in convert("vqa").read("vqa_k_trainval.jsonl")}
    assert records[262148000] == {
        "question": "Where is he looking?",
        "image_id": "COCO_val2014_000000262148",
        "question_id": 262148000,
        "labels": {"down": 1.0, "at table": 0.3, "skateboard": 0.3, "table": 0.3},
        "answer_type": "other",
    }


def test_vqa_splits_vocabulary_and_odd_answers(raw, convert):
    small_vqa(raw)
    done = convert("vqa")
    labels = done.read("trainval_ans2label.json")
    # "A Net." counts as "net" (with one val question), "the" as the empty answer; 8 times "rare" is too rare.
    assert labels == {"down": 0, "net": 1, "": 2, "at table": 3, "skateboard": 4, "table": 5}
    trainval = done.read("vqa_k_trainval.jsonl")
    assert len(trainval) == 6 * 9 + 8 + 2
    by_id = {record["question_id"]: record for record in trainval}
    assert by_id[3000]["labels"] == {"net": 0.6, "": 0.3}  # raw answers count as they are written: "Net" is another
    assert by_id[2_000_000]["labels"] == {}
    assert done.read("vqa_k_test.jsonl") == [
        {
            "question": "How many?",
            "image_id": "COCO_val2014_000000000002",
            "question_id": 2000,
            "labels": {},
            "answer_type": "number",
        }
    ]
    assert done.warnings == [
        "no v2_OpenEnded_mscoco_test2015_questions.json: vqa_test2015.jsonl is not written",
        "no v2_OpenEnded_mscoco_test-dev2015_questions.json: vqa_test_dev2015.jsonl is not written",
    ]


@pytest.mark.parametrize(("count", "score"), [(1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_vqa_scores(raw, convert, count, score):
    karpathy(raw, (TRAIN.format(1), "train"), (VAL.format(2), "val"))
    fillers = [(1, n, "?", ["x"] * 10, "x", "other") for n in range(9)]
    vqa_year(raw, "train2014", fillers)
    vqa_year(raw, "val2014", [(2, 50, "?", ["x"] * count + ["y"] * (10 - count), "x", "other")])
    assert convert("vqa").read("vqa_k_trainval.jsonl")[-1]["labels"] == {"x": score}


def test_vqa_official_test_questions_have_no_labels(raw, convert):
    small_vqa(raw)
    for name, ids in (("test2015", (7, 8)), ("test-dev2015", (7,))):
        questions = [{"image_id": i, "question": "Which?", "question_id": i * 1000} for i in ids]
        raw(f"v2_OpenEnded_mscoco_{name}_questions.json", {"questions": questions})
    done = convert("vqa")
    assert done.read("vqa_test_dev2015.jsonl") == [
        {"question": "Which?", "image_id": "COCO_test2015_000000000007", "question_id": 7000}
    ]
    assert len(done.read("vqa_test2015.jsonl")) == 2
    assert done.warnings == []


def test_vqa_without_an_annotation_for_a_question_is_an_error(raw, convert):
    small_vqa(raw)
    vqa_year(raw, "val2014", [(3, 3000, "Is it?", ["net"] * 10, "net", "yes/no")])
    questions = [{"image_id": 3, "question": "Is it?", "question_id": 3001}]
    raw("v2_OpenEnded_mscoco_val2014_questions.json", {"questions": questions})
    with pytest.raises(AnnotationError, match="question 3001 of val2014: no annotation has this question_id"):
        convert("vqa")


def test_vqa_question_ids_that_are_there_twice_are_an_error(raw, convert):
    small_vqa(raw)
    one = (3, 3000, "Is it?", ["net"] * 10, "net", "yes/no")
    vqa_year(raw, "val2014", [one, (3, 1_000_000, "And this?", *one[3:])])
    with pytest.raises(AnnotationError, match="1 question ids are in train2014 and in val2014, 1000000 among them"):
        convert("vqa")
    vqa_year(raw, "val2014", [one])
    question = {"image_id": 3, "question": "Is it?", "question_id": 3000}
    raw("v2_OpenEnded_mscoco_val2014_questions.json", {"questions": [question, question]})
    with pytest.raises(AnnotationError, match=r"val2014_questions.json, question 1: question_id 3000 is there twice"):
        convert("vqa")


def test_vqa_refuses_another_answer_type(raw, convert):
    small_vqa(raw)
    vqa_year(raw, "val2014", [(3, 3000, "Is it?", ["net"] * 10, "net", "")])
    with pytest.raises(AnnotationError, match="question 3000 of val2014: answer_type is '': number, other, yes/no was"):
        convert("vqa")


def test_vg_questions_that_repeat_an_id_are_left_out_and_counted(raw, convert):
    small_vqa(raw)
    genome(raw, [(10, 262148, None)], [])
    repeated = [(7, "First?", "Net."), (7, "Second?", "Net."), (8, "Third?", "Net.")]
    raw("question_answers.json", [genome_questions(10, *repeated)])
    done = convert("vg_qa")
    assert [record["question"] for record in done.read("vg_k_trainval.jsonl")] == ["First?", "Third?"]
    assert done.warnings == ["vg_k_trainval.jsonl: 1 records have the question_id of an earlier one: left out"]


def test_vg_questions_on_coco_images_with_a_known_answer(raw, convert):
    small_vqa(raw)
    raw(
        "image_data.json",
        [
            {"image_id": 10, "url": "", "width": 1, "height": 1, "coco_id": 262148, "flickr_id": None},
            {"image_id": 11, "url": "", "width": 1, "height": 1, "coco_id": 2, "flickr_id": None},
            {"image_id": 12, "url": "", "width": 1, "height": 1, "coco_id": None, "flickr_id": None},
            {"image_id": 13, "url": "", "width": 1, "height": 1, "coco_id": 999, "flickr_id": None},
        ],
    )

    raw(
        "question_answers.json",
        [
            genome_questions(10, (986768, "What?", "A net."), (986769, "What?", "Unheard of.")),
            {"id": 10, "qas": [{"id": 5, "image_id": 10, "question": "What?", "answer": "Down."}]},
            genome_questions(11, (986770, "What?", "Net.")),
            genome_questions(12, (986771, "What?", "Net.")),
            genome_questions(13, (986772, "What?", "Net.")),
        ],
    )
    same = {"question": "What?", "image_id": "COCO_val2014_000000262148", "answer_type": "other"}
    assert convert("vg_qa").read("vg_k_trainval.jsonl") == [
        {**same, "question_id": 986768, "labels": {"net": 1.0}},
        {**same, "question_id": 5, "labels": {"down": 1.0}},
    ]
