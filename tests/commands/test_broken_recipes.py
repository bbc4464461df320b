"""Broken recipes and tables of a person's own are refused or warned of before any training; sound ones are not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from running import Clipbert

SMALL = """
data: {frame_size: 64, num_clips: 2, num_frames: 1, workers: 0, max_text_length: 16, media: video}
model:
  tokenizer: vocab.txt
  weights: {checkpoint: null, bert: null}
  visual: {weights: null, layer_type: basic, depths: [1, 1, 1, 1], stem_size: 8, hidden_sizes: [8, 8, 16, 16]}
  bert: {vocab_size: 28, hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 32}
  pixel_random_sampling_size: 0
train: {batch_size: 4, epochs: 2, gradient_accumulation_steps: 1, blind_baseline: false, freeze: []}
infer: {num_clips: 1, batch_size: 4}
"""
SPLITS = """
  splits:
    train: {annotations: train.csv, media: vis_db}
    val: {annotations: val.csv, media: vis_db}
"""
OWN = {
    "qa": "extends: [video_qa, small.yaml]\nname: qa\ndata:\n  root: .\n  answers: answers.json" + SPLITS,
    "choice": "extends: [multiple_choice, small.yaml]\nname: choice\ndata:\n  root: ."
    + SPLITS.replace(".csv", ".jsonl"),
    "retrieval": "extends: [retrieval, small.yaml]\nname: retrieval\ndata:\n  root: ."
    + SPLITS.replace("train.csv", "captions.csv").replace("val.csv", "val_captions.csv"),
}
COLOURS = ["red", "blue", "green", "yellow"]


def table(*rows: str, head: str = "video_id,question,answer") -> str:
    return "\n".join([head, *rows]) + "\n"


def questions(split: str, count: int) -> str:
    rows = (f"{split}{n:04d},what color is the circle ?,{COLOURS[n % 4]}" for n in range(count))
    return table(*rows)


def choices(split: str, count: int, **more: object) -> str:
    records = (
        {"video_id": f"{split}{n:04d}", "question": "what color ?", "options": COLOURS, "answer": n % 4, **more}
        for n in range(count)
    )
    return "".join(json.dumps(record) + "\n" for record in records)


@pytest.fixture
def own(made_data: Path, tmp_path: Path) -> Path:
    """A folder with sound recipes and tables, which a test breaks."""
    for name in ("vis_db", "videos", "vocab.txt"):
        (tmp_path / name).symlink_to(made_data / name)
    files = {
        "small.yaml": SMALL,
        "train.csv": questions("train", 8),
        "val.csv": questions("val", 3),
        "train.jsonl": choices("train", 8),
        "val.jsonl": choices("val", 3),
        "captions.csv": table(*(f"train{n:04d},a {COLOURS[n % 4]} circle" for n in range(8)), head="video_id,caption"),
        "val_captions.csv": table(*(f"val{n:04d},a {COLOURS[n]} circle" for n in range(3)), head="video_id,caption"),
        "answers.json": json.dumps(COLOURS),
        "forms.json": json.dumps([*COLOURS, "Red."]),
        "twice.json": json.dumps([*COLOURS, "red"]),
        **{f"{name}.yaml": text for name, text in OWN.items()},
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def dry_run(clipbert: Clipbert, own: Path, base: str, recipe: str, files: dict[str, str]) -> tuple[int, str]:
    """Check a recipe that extends a sound one, with some files replaced."""
    for name, text in files.items():
        (own / name).write_bytes(text.encode("latin-1") if name.startswith("latin") else text.encode())
    (own / "broken.yaml").write_text(f"extends: {base}.yaml\nname: broken\n{recipe}\n")
    before = sorted(own.iterdir())
    done = clipbert("finetune", "--recipe", own / "broken.yaml", "--run", own / "run", "--dry-run", cwd=own)
    assert sorted(own.iterdir()) == before
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


RECIPES = {
    # keys and values
    "unknown key": (
        "qa",
        "train: {bacth_size: 8}",
        r"broken\.yaml:3: train\.bacth_size: unknown key; did you mean train\.batch",
    ),
    "unknown section": ("qa", "trian: {epochs: 3}", r"trian: unknown key; did you mean train"),
    "text for a number": ("qa", "train: {epochs: '3'}", r'train\.epochs is "3": it must be a whole number'),
    "out of bounds": ("qa", "data: {frame_size: 8}", r"data\.frame_size is 8: it must be"),
    "a key twice": ("qa", "seed: 1\nseed: 2", r"seed: given twice"),
    "not YAML": ("qa", "data: [", r"broken\.yaml:\d+:\d+: not YAML"),
    "an unset variable": ("qa", "data: {root: '${NO_SUCH_VARIABLE}'}", r"NO_SUCH_VARIABLE is not set"),
    "unknown base": ("qa", "", r"extends: no shipped recipe is called 'vide_qa'; did you mean video_qa"),
    # settings that do not go together
    "unknown task": ("qa", "task: video_qa", r"task is 'video_qa': it must be one of open_ended_qa"),
    "no answers": ("qa", "data: {answers: null}", r"data\.answers is null, but task open_ended_qa"),
    "inherited answers": ("qa", "task: retrieval", r"task retrieval has no list of answers: set data\.answers to null"),
    "few outputs": ("qa", "objective: {num_labels: 3}", r"num_labels is 3, but .*/answers\.json has 4 answers"),
    "many outputs": ("qa", "objective: {num_labels: 1500}", r"num_labels is 1500, but .*/answers\.json has 4 answers"),
    "no training split": ("qa", "data: {splits: {train: null}}", r"add data\.splits\.train"),
    "other training split": (
        "qa",
        "data: {train_splits: [training]}",
        r"train_splits has 'training', but data\.splits",
    ),
    "a split twice": ("qa", "data: {train_splits: [train, train]}", r"train_splits has 'train' 2 times"),
    "validates what it trains": (
        "qa",
        "data: {splits: {val: {annotations: train.csv, media: vis_db}}}",
        r"data\.splits\.val has the files of data\.splits\.train",
    ),
    "unknown metric": ("qa", "train: {best_metric: accurracy}", r"best_metric is 'accurracy', .*did you mean accuracy"),
    "another task's metric": ("retrieval", "train: {best_metric: accuracy}", r"must be one of recall_at_1"),
    "unknown part": ("qa", "train: {freeze: [visual.stages]}", r"'visual\.stages', which is no part"),
    "too many layers": ("qa", "train: {freeze: [transformer.0-11]}", r"'transformer\.0-11', which is no part"),
    "all is frozen": ("qa", "train: {freeze: [visual, transformer, head]}", r"nothing is left to train"),
    "one place": ("qa", "data: {sampling: middle}", r"num_clips is 2: with sampling middle it must be 1"),
    "long texts": ("qa", "model: {bert: {max_position_embeddings: 8}}", r"max_text_length is 16: it must be at most"),
    "heads": ("qa", "model: {bert: {num_attention_heads: 3}}", r"num_attention_heads is 3: it must divide hidden_size"),
    "two starts": ("qa", "model: {weights: {checkpoint: a.pt, bert: b}}", r"weights\.checkpoint holds the whole model"),
    "another task's setting": (
        "qa",
        "objective: {num_negatives: 3}",
        r"num_negatives is 3, but task open_ended_qa does",
    ),
    "margin": ("retrieval", "objective: {loss: margin}", r"objective\.pool is lse: with objective\.loss margin"),
    # the list of answers
    "answers of one form": (
        "qa",
        "data: {answers: forms.json}\nobjective: {normalize_answers: true}",
        r"data\.answers has 'red' and 'Red\.', which objective\.normalize_answers makes equal: keep one",
    ),
    "an answer twice": ("qa", "data: {answers: twice.json}", r"/twice\.json: an answer is in the list twice"),
    "a table in place of answers": ("qa", "data: {answers: train.csv}", r"/train\.csv.*not JSON"),
    # fields
    "unknown field": ("qa", "data: {fields: {questions: asked}}", r"data\.fields\.questions .*did you mean question"),
    "another task's field": (
        "qa",
        "data: {fields: {caption: video_id}}",
        r"data\.fields\.caption is \'video_id\', but task open",
    ),
    "one field for two": (
        "qa",
        "data: {fields: {answer_type: answer, answer: answer}}",
        r"data\.fields\.answer_type and data\.fields\.answer are both 'answer'",
    ),
    "a field that is nowhere": (
        "qa",
        "data: {fields: {answer_type: kind}}",
        r"data\.fields\.answer_type is kind, but no record of train or val has it",
    ),
    # files
    "no such folder": ("qa", "data: {root: elsewhere}", r"is in \S+/elsewhere: train\.csv, vis_db and 3 more"),
    "no such table": (
        "qa",
        "data: {splits: {val: {annotations: vall.csv, media: vis_db}}}",
        r"/vall\.csv: no such annot",
    ),
    "no such media": ("qa", "data: {splits: {val: {annotations: val.csv, media: vid}}}", r"/vid does not exist"),
    "images for videos": ("qa", "data: {media: image}", r"vis_db"),
    "no such vocabulary": ("qa", "model: {tokenizer: bert}", r"/bert: no such vocabulary"),
    "another vocabulary": ("qa", "model: {bert: {vocab_size: 30522}}", r"vocab_size is 30522: .*/vocab\.txt has 28"),
    "no such weights": ("qa", "model: {weights: {bert: pretrained/bert}}", r"/pretrained/bert"),
    "no such checkpoint": ("qa", "model: {weights: {checkpoint: runs/other/best}}", r"/runs/other/best"),
    "a folder as a table": (
        "qa",
        "data: {splits: {val: {annotations: videos, media: vis_db}}}",
        r"/videos is a folder: a regular file was expected",
    ),
    # one kind of value in place of another
    "a split without media": (
        "qa",
        "data: {splits: {val: val.csv}}",
        r'splits\.val is "val\.csv": it must be a section',
    ),
    "splits as a list": ("qa", "data: {splits: [train, val]}", r'splits is \["train", "val"\]: it must be a section'),
    "answers in the recipe": (
        "qa",
        "data: {answers: [yes, no]}",
        r'answers is \["yes", "no"\].* null\. JSON file with all',
    ),
    "names the wrong way round": (
        "qa",
        "data: {fields: {video_id: media_id}}",
        r"fields\.video_id .*our names are .*media_id",
    ),
}
TABLES = {
    "an empty table": ("qa", {"train.csv": ""}, r"train\.csv"),
    "headings only": ("qa", {"train.csv": table()}, r"train\.csv: no records in it"),
    "no question": ("qa", {"train.csv": table("train0000,,red")}, r"train\.csv.*question"),
    "a misnamed column": (
        "qa",
        {"train.csv": table("train0000,what ?,red", head="video_id,asked,answer")},
        r"question is missing; the record has video_id, asked, answer",
    ),
    "an answer misspelt in training": (
        "qa",
        {"train.csv": table("train0000,what ?,red", "train0001,what ?,blue", head="video_id,question,ANSWERS")},
        r"/train\.csv:2: answer is missing; (.*\n)+.* --set data\.fields\.answer=ANSWERS",
    ),
    "an answer misspelt in validation": (
        "qa",
        {"val.csv": questions("val", 3).replace("answer", "anwser")},
        r"/val\.csv:2: answer is missing; the record has video_id, question, anwser",
    ),
    "a position misspelt in validation": (
        "choice",
        {"val.jsonl": choices("val", 3).replace('"answer"', '"awnser"')},
        r"/val\.jsonl:1: answer is missing; (.*\n)+.* data\.fields\.answer=awnser",
    ),
    "a caption misspelt in validation": (
        "retrieval",
        {"val_captions.csv": table("val0000,a circle", head="video_id,captoin")},
        r"/val_captions\.csv:2: caption \(or captions, .*\n.* data\.fields\.caption=captoin",
    ),
    "an own name misspelt in validation": (
        "qa",
        {
            "train.csv": questions("train", 8).replace("answer", "said"),
            "val.csv": questions("val", 3).replace("answer", "sayd"),
        },
        r"/val\.csv:2: said is missing; (.*\n)+.*correct a misspelt name in the file, or .* data\.fields\.answer=sayd",
    ),
    "a misspelt heading and a bad line": (
        "qa",
        {"val.csv": questions("val", 3).replace("answer", "anwser") + "val0003,what ?,red,more\n"},
        r"answer is missing; (.*\n)+.*/val\.csv:5: 4 cells, expected 3",
    ),
    "two headings misspelt": (
        "qa",
        {"train.csv": questions("train", 8).replace("question,answer", "qestion,anwser")},
        r"question and answer are missing; the record has video_id, qestion, anwser.*\n.*question=qestion",
    ),
    "no heading is one of ours": (
        "qa",
        {"train.csv": questions("train", 8).replace("video_id,question,answer", "film,frage,loesung")},
        (
            r"media_id \(or .*\) and question and answer are missing; .*\n"
            r".*data\.fields\.media_id=NAME --set data\.fields\.question=NAME --set data\.fields\.answer=NAME"
        ),
    ),
    "two fields misspelt in validation": (
        "choice",
        {"val.jsonl": choices("val", 3).replace('"options"', '"optoins"').replace('"answer"', '"awnser"')},
        r"/val\.jsonl:1: options and answer are missing; (.*\n)+.*options=optoins .*answer=awnser",
    ),
    "id and caption misspelt": (
        "retrieval",
        {"captions.csv": table("train0000,a circle", head="vdeo_id,captoin")},
        r"media_id \(or .* and caption \(or .* are missing; .*\n.*media_id=vdeo_id .*caption=captoin",
    ),
    "answers in two spellings": (
        "qa",
        {"answers.json": json.dumps([*COLOURS, "Red", "green."])},
        r"4 answers differ in case, .*, such as 'red' and 'Red': objective\.normalize_answers: true",
    ),
    "a misnamed id": ("qa", {"train.csv": table("train0000,what ?,red", head="vid,question,answer")}, r"media_id"),
    "a cell too many": ("qa", {"train.csv": table("train0000,what ?,red,x")}, r"train\.csv:2: 4 cells, expected 3"),
    "another encoding": (
        "qa",
        {"latin.csv": table("train0000,caf\u00e9 ?,red"), "train.csv": ""},
        r"latin\.csv:2: not UTF-8",
    ),
    "an unknown answer": (
        "qa",
        {"train.csv": table("train0000,what ?,Red")},
        r'train\.csv.*answer is "Red": it must be one',
    ),
    "no answer": ("qa", {"train.csv": table("train0000,what ?,")}, r"train\.csv:2: answer is null: it must be one of"),
    "validation without answers": ("qa", {"val.csv": table("val0000,what ?,")}, r"val\.csv.*no answer"),
    "validation answers of other spelling": (
        "qa",
        {"val.csv": table("val0000,what ?,RED", "val0001,what ?,blue")},
        r"1 of 2 validation answers are not in data\.answers .* 'RED'; it has 'red', which objective\.normalize",
    ),
    "long questions": (
        "qa",
        {"val.csv": table(f"val0000,{'what color ? ' * 9},red")},
        r"1 of 1 validation texts are longer than data\.max_text_length, 16 tokens",
    ),
    "missing videos": ("qa", {"train.csv": table("train0099,what ?,red")}, r"lacks 1 video that split 'train' needs"),
    "ids with endings": ("qa", {"train.csv": table("train0000.mp4,what ?,red")}, r"lacks 1 video.*\n.*train0000"),
    "a column that nothing reads": (
        "qa",
        {"train.csv": table("train0000,what ?,red,1.5", head="video_id,question,answer,begin")},
        r"fields of the records that task open_ended_qa does not read: begin",
    ),
    "answers that are no list": ("qa", {"answers.json": '"red"'}, r"answers\.json: expected a list"),
    "an answer twice": (
        "qa",
        {"answers.json": '["red", "blue", "green", "yellow", "red"]'},
        r"answers\.json: an answer is",
    ),
    "labels with a gap": ("qa", {"answers.json": '{"red": 0, "blue": 2}'}, r"answers\.json: the labels must be"),
    "answers that are not JSON": ("qa", {"answers.json": "red\nblue\n"}, r"answers\.json"),
    "one answer": ("qa", {"answers.json": '["red"]', "train.csv": table("train0000,what ?,red")}, r"has 1 answer"),
    "ids twice": (
        "qa",
        {"train.csv": table("train0000,what ?,red,7", "train0000,why ?,red,7", head="video_id,question,answer,qid")},
        r"train\.csv:3: example id '7'",
    ),
    "a misnamed question of options": (
        "choice",
        {
            name: choices(name[: name.index(".")], 3).replace('"question"', '"asked"')
            for name in ("train.jsonl", "val.jsonl")
        },
        r"no record of split 'train' has question, which task multiple_choice reads",
    ),
    "an answer out of range": (
        "choice",
        {"train.jsonl": choices("train", 1, answer=4)},
        r"train\.jsonl:1: answer is 4",
    ),
    "options as text": (
        "choice",
        {"train.jsonl": choices("train", 1, options="red, blue")},
        r"train\.jsonl:1: options is",
    ),
    "one option": (
        "choice",
        {"train.jsonl": choices("train", 1, options=["red"], answer=0)},
        r"train\.jsonl:1: options",
    ),
    "a heading twice": (
        "qa",
        {"train.csv": table("train0000,what ?,red,blue", head="video_id,question,answer,answer")},
        r"train\.csv:1: the heading 'answer' is there twice; rename one",
    ),
    "a title above the headings": (
        "qa",
        {"train.csv": "Export of 3 March\n\n" + questions("train", 8)},
        r"train\.csv:3: 3 cells, expected 1: ",
    ),
    "merged cells": (
        "qa",
        {"train.csv": table("train0000,what ?,red", ",why ?,blue", "train0001,what ?,red", ",why ?,blue")},
        r"train\.csv:3: video_id is empty: it must have a value\n.*train\.csv:5: video_id is empty",
    ),
    "a quote that does not end": (
        "qa",
        {"train.csv": table('train0000,"what is,red', "train0001,what ?,blue")},
        r"train\.csv:2: not a whole CSV row",
    ),
    "headings in capitals": (
        "qa",
        {"train.csv": table("train0000,what ?,red", head="Video_ID,Question,Answer")},
        r"question and answer are missing; .*\n.* data\.fields\.question=Question",
    ),
    "one answer in validation": (
        "qa",
        {"val.csv": table(*(f"val{n:04d},what ?,red" for n in range(3)))},
        r'a guess: accuracy is 100 by the most frequent answer, "red"',
    ),
    "the first option is always right": (
        "choice",
        {"train.jsonl": choices("train", 4, answer=0), "val.jsonl": choices("val", 3, answer=0)},
        r"a guess: accuracy is 100 by the most frequent answer, 0",
    ),
    "positions from 1": (
        "choice",
        {"train.jsonl": choices("train", 4).replace('"answer": 0', '"answer": 4')},
        r"train\.jsonl:1: answer is 4: it must be an integer from 0 to 3",
    ),
    "no caption": (
        "retrieval",
        {"captions.csv": table("train0000,", "train0001,a bar", head="video_id,caption")},
        r"captions\.csv:2: caption is empty: it must have a value",
    ),
    "one caption for all": (
        "retrieval",
        {"captions.csv": table(*(f"train{n:04d},a circle" for n in range(8)), head="video_id,caption")},
        r"all captions are 'a circle': retrieval learns from captions that differ",
    ),
    "one video in validation": (
        "retrieval",
        {"val_captions.csv": table("val0000,a circle", head="video_id,caption")},
        r"a guess: recall_at_1 is 100 by chance; add records with other answers or media",
    ),
    "times in milliseconds": (
        "retrieval",
        {"captions.csv": table("train0000,a,500,900", "train0001,b,0,900", head="video_id,caption,start,end")},
        r"train0000#t=500,900: the segment begins at 500 s, but the video lasts",
    ),
    "a torn line": ("choice", {"train.jsonl": '{"video_id": "train0000"'}, r"train\.jsonl:1"),
    "captions of one video": (
        "retrieval",
        {"captions.csv": table("train0000,a circle", "train0000,a square", head="video_id,caption")},
        r"all captions belong to the media item 'train0000'",
    ),
    "an end before the start": (
        "retrieval",
        {"captions.csv": table("train0000,a,2,1", "train0001,b,0,1", head="video_id,caption,start,end")},
        r"captions\.csv:2: end is 1: it must be more than start, 2",
    ),
    "a start after the end of the video": (
        "retrieval",
        {"captions.csv": table("train0000,a,900,", "train0001,b,0,", head="video_id,caption,start,end")},
        r"begin after the end of their videos",
    ),
}
WARNED = {
    *("many outputs", "validates what it trains", "another task's setting", "another task's field"),
    *("one field for two", "validation answers of other spelling", "long questions", "a column that nothing reads"),
    *("one answer", "a misnamed question of options", "one answer in validation"),
    *("the first option is always right", "one video in validation", "answers in two spellings"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_broken_recipe_is_refused_or_warned_of(name: str, own: Path, clipbert: Clipbert) -> None:
    base, recipe, says = RECIPES[name]
    if name == "unknown base":
        (own / "qa.yaml").write_text(OWN["qa"].replace("video_qa", "vide_qa"))
    code, stderr = dry_run(clipbert, own, base, recipe, {})
    assert re.search(says, stderr), stderr
    assert (code == 0) == (name in WARNED), stderr


@pytest.mark.parametrize("name", TABLES)
def test_a_broken_table_is_refused_or_warned_of(name: str, own: Path, clipbert: Clipbert) -> None:
    base, files, says = TABLES[name]
    recipe = "data: {splits: {train: {annotations: latin.csv, media: vis_db}}}" if "latin.csv" in files else ""
    recipe = "data: {fields: {answer: said}}" if name == "an own name misspelt in validation" else recipe
    code, stderr = dry_run(clipbert, own, base, recipe, files)
    assert re.search(says, stderr), stderr
    assert (code == 0) == (name in WARNED), stderr


# What `recipes validate` can know: all but what depends on files or on the model.
NEEDS_FILES = {
    *("a field that is nowhere", "no such folder", "no such table", "no such media"),
    *("images for videos", "no such vocabulary", "another vocabulary", "no such weights", "no such checkpoint"),
    *("a folder as a table", "too many layers"),
}


@pytest.mark.parametrize("name", sorted(set(RECIPES) - NEEDS_FILES))
def test_validate_finds_what_training_refuses_without_reading_data(name: str, own: Path, clipbert: Clipbert) -> None:
    base, recipe, says = RECIPES[name]
    if name == "unknown base":
        (own / "qa.yaml").write_text(OWN["qa"].replace("video_qa", "vide_qa"))
    (own / "broken.yaml").write_text(f"extends: {base}.yaml\nname: broken\n{recipe}\n")
    done = clipbert("recipes", "validate", own / "broken.yaml")
    # A variable that is not set on this machine may be set where the recipe is used.
    assert (done.returncode == 0) == (name in WARNED or name == "an unset variable")
    assert re.search(says, done.stderr), done.stderr


SOUND = {
    "questions": ("qa", "", {}),
    "choices": ("choice", "", {}),
    "captions": ("retrieval", "", {}),
    "a folder of videos": ("qa", "data: {splits: {val: {annotations: val.csv, media: videos}}}", {}),
    "no validation": ("qa", "data: {splits: {val: null}}", {}),
    "a hidden test": (
        "qa",
        "data: {splits: {test: {annotations: test.csv, media: vis_db}}}",
        {"test.csv": table("test0000,what ?", head="video_id,question")},
    ),
    "frozen parts": ("qa", "train: {freeze: [visual, transformer.0-1]}", {}),
    "own names": (
        "qa",
        "data: {fields: {question: asked, answer: said}}",
        {
            f"{split}.csv": questions(split, count).replace("question,answer", "asked,said")
            for split, count in (("train", 8), ("val", 3))
        },
    ),
    "a field in one split only": (
        "qa",
        "data: {fields: {answer_type: kind}}",
        {
            "train.csv": table(
                *(f"train{n:04d},what ?,{colour},colour" for n, colour in enumerate(COLOURS)),
                head="video_id,question,answer,kind",
            )
        },
    ),
    "options without a question": (
        "choice",
        "data: {fields: {question: null}}",
        {
            name: choices(name[: name.index(".")], 3).replace('"question"', '"asked"')
            for name in ("train.jsonl", "val.jsonl")
        },
    ),
    "spelling": (
        "qa",
        "objective: {normalize_answers: true}",
        {"val.csv": table("val0000,what ?,RED.", "val0001,what ?,Blue")},
    ),
    "another Unicode form": (
        "qa",
        "",
        {
            "answers.json": json.dumps(["caf\u00e9", "no"]),
            "train.csv": table("train0000,what ?,cafe\u0301", "train0001,what ?,no"),
            "val.csv": table("val0000,what ?,caf\u00e9", "val0001,what ?,no"),
        },
    ),
    "segments": (
        "retrieval",
        "",
        {
            "captions.csv": table(
                "train0000,a,0,0.5", "train0000,ring,0.5,", "train0001,bar,,", head="video_id,caption,start,end"
            )
        },
    ),
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_recipe_is_not_refused(name: str, own: Path, clipbert: Clipbert) -> None:
    base, recipe, files = SOUND[name]
    code, stderr = dry_run(clipbert, own, base, recipe, files)
    assert code == 0, stderr
    allowed = {
        "a folder of videos": "decoded once more",
        "options without a question": "does not read: asked",
        "frozen parts": "what starts at random never learns",
        "a field in one split only": "data.fields.answer_type is kind, which no record of split 'val' has",
    }
    warnings = [line for line in stderr.splitlines() if line.startswith(("warning", "note "))]
    assert [line for line in warnings if name not in allowed or allowed[name] not in line] == []
    assert bool(warnings) == (name in allowed)


def test_there_are_more_than_forty_broken_ones() -> None:
    assert len(RECIPES) + len(TABLES) >= 40
    assert RECIPES.keys() | TABLES.keys() >= WARNED
