"""What converters write, the tasks read: every record of made raw files, odd ones among them, is a whole example.

The `convert` fixture reads every file that a converter writes, here and in all other tests, and compares the counts;
here the raw files are drawn, and what must be there is counted anew.
"""

import csv
import io
import random

import pytest
from originals import (
    TRAIN,
    VAL,
    coco_captions,
    didemo,
    genome,
    genome_questions,
    karpathy,
    original_qa,
    sentences,
    table,
    vqa_year,
)
from readers import FILES, VOCABULARIES

from clipbert_cli.assets.catalog import load_catalog
from clipbert_cli.assets.convert.answer_lists import normalize_answer
from clipbert_cli.assets.convert.raw_files import share
from clipbert_cli.assets.convert.registry import CONVERTERS, part_of

WORDS = ["cat", "a dog", 'say "hi', "'", "é", "e\u0301", "", " ", "it's", "1,000", "?", "\\", "\\ud83d", '{"a": 1}']
WORDS += ["a\tb", "two\nlines", "three\r\n\nlines", "\r", "\t", "\n", "\u2028", "\u2029", "\u0085", "\u00a0", "\u200b"]
WORDS += ["\ufeff", "\x00", "\x1c", "\x7f", "日本", "😀", "the", "None", "null", "NaN", "0"]


class Draw(random.Random):
    """Random texts."""

    def text(self):
        """None to three odd words."""
        return self.of(WORDS)

    def of(self, words):
        return self.choice(["", " ", "\n"]).join(self.choices(words, k=self.choice([0, 1, 1, 2, 3])))

    def texts(self, least, most):
        return [self.text() for _ in range(self.randrange(least, most + 1))]

    def cell(self):
        """A text that can stand in a table without quoting."""
        return "".join(" " if letter in "\t\r\n" else letter for letter in self.of(WORDS))


@pytest.fixture(params=range(8))
def draw(request, raw):
    """Every other seed spells what is not ASCII."""
    raw.escapes = bool(request.param % 2)
    return Draw(request.param)


def worded(texts):
    return sum(bool(text.strip()) for text in texts)


def test_every_file_of_every_converter_has_its_reader():
    made = {f"{name}/{file}" for name in CONVERTERS for file in part_of(load_catalog(), name).outputs}
    vocabularies = {f"{name}/{file}" for name, file in VOCABULARIES.items()}
    assert made - vocabularies == set(FILES)
    assert vocabularies - made == {"vg_qa/trainval_ans2label.json"}  # that of vqa


def coco_images(draw):
    """(stem, split); the first four make sure of each."""
    splits = ["train", "restval", "val", "test"]
    splits += draw.choices(splits, k=draw.randrange(8))
    return [((TRAIN if split == "train" else VAL).format(100 + n), split) for n, split in enumerate(splits)]


def test_coco_captions(raw, convert, draw):
    images = coco_images(draw)
    karpathy(raw, *images)
    by_split = {"train": ["sure"], "restval": [], "val": ["sure"], "test": []}
    items = {"train2014": [(100, "sure")], "val2014": [(102, "sure"), (5, "on no image of the split")]}
    for _ in range(draw.randrange(60)):
        stem, split = draw.choice(images)
        text = draw.text()
        by_split[split].append(text)
        items[stem.split("_")[1]].append((int(stem[-12:]), text))
    for year, captions in items.items():
        raw(f"captions_{year}.json", coco_captions(*captions))
    examples = convert("coco_captions").examples
    assert len(examples["coco_train_captions.jsonl"]) == worded(by_split["train"] + by_split["restval"])
    assert len(examples["coco_val_captions.jsonl"]) == worded(by_split["val"])


def test_vg_captions(raw, convert, draw):
    images = coco_images(draw)
    karpathy(raw, *images)
    regions = {n: ["sure", *draw.texts(0, 5)] for n in range(1, 121)}
    coco = {n: draw.choice([None, None, *(int(stem[-12:]) for stem, _ in images)]) for n in regions}
    genome(raw, [(n, coco[n], draw.choice([None, 7, "8"])) for n in regions], regions.items())
    raw("dataset_flickr30k.json", {"images": [{"filename": "9.jpg", "split": "train"}]})
    examples = convert("vg_captions").examples
    trained_on = {None, *(int(stem[-12:]) for stem, split in images if split in ("train", "restval"))}
    usable = {n for n in regions if coco[n] in trained_on}
    held_out = {n for n in usable if share(f"vg:{n}", 50) == 0}
    assert len(examples["vg_train_captions.jsonl"]) == worded(t for n in usable - held_out for t in regions[n])
    assert len(examples["vg_val_captions.jsonl"]) == worded(t for n in held_out for t in regions[n])


def make_vqa(raw, draw):
    """Questions on all images; six answers are frequent enough. The raw answers, and split -> questions."""
    images = coco_images(draw)
    karpathy(raw, *images)
    answers = [*draw.texts(5, 5), "sure"]
    by_split = {"train": [], "restval": [], "val": [], "test": []}
    items = {"train2014": [], "val2014": []}
    asked = [(draw.choice(images), answer) for answer in answers for _ in range(9)]
    asked += [(image, draw.choice([*answers, draw.text()])) for image in draw.choices(images, k=20)]
    for number, ((stem, split), main) in enumerate(asked):
        ten = [draw.choice([main, draw.text(), normalize_answer(main), *answers]) for _ in range(10)]
        question = "sure ?" if number == 0 else draw.text()
        kind = draw.choice(["yes/no", "number", "other"])
        items[stem.split("_")[1]].append((int(stem[-12:]), 1000 + number, question, ten, main, kind))
        by_split[split].append(question)
    for year, questions in items.items():
        vqa_year(raw, year, questions)
    return answers, by_split


def test_vqa(raw, convert, draw):
    _, by_split = make_vqa(raw, draw)
    official = {"test2015": draw.texts(1, 20), "test-dev2015": draw.texts(1, 9)}
    for file, questions in official.items():
        questions = [
            {"image_id": draw.randrange(9), "question": text, "question_id": n} for n, text in enumerate(questions)
        ]
        raw(f"v2_OpenEnded_mscoco_{file}_questions.json", {"questions": questions})
    examples = convert("vqa").examples
    test = by_split.pop("test")
    assert len(examples["vqa_k_trainval.jsonl"]) == worded(text for texts in by_split.values() for text in texts)
    assert len(examples["vqa_k_test.jsonl"]) == worded(test)
    assert len(examples["vqa_test2015.jsonl"]) == worded(official["test2015"])
    assert len(examples["vqa_test_dev2015.jsonl"]) == worded(official["test-dev2015"])
    assert any(example.target for example in examples["vqa_k_trainval.jsonl"])


def test_vg_questions(raw, convert, draw):
    answers, _ = make_vqa(raw, draw)
    genome(raw, [(n, 100 + n, None) for n in range(4)], [])  # image 3 is on Karpathy's test image
    asked = {n: [("sure ?", "sure"), *((draw.text(), draw.choice(answers)) for _ in range(9))] for n in range(4)}
    ids = iter(range(1000))
    raw("question_answers.json", [genome_questions(n, *((next(ids), *qa) for qa in asked[n])) for n in asked])
    examples = convert("vg_qa").examples["vg_k_trainval.jsonl"]
    assert len(examples) == worded(question for n in range(3) for question, _ in asked[n])
    assert all(list(example.target.values()) == [1.0] for example in examples)


def test_msrvtt_captions(raw, convert, draw):
    trained = [(draw.randrange(7010), n, text) for n, text in enumerate(["sure", *draw.texts(1, 40)])]
    tested = [(draw.randrange(7010, 7100), n, text) for n, text in enumerate(["sure", *draw.texts(1, 40)])]
    raw("MSRVTT_data.json", sentences(*trained, *tested))
    rows = io.StringIO()
    writer = csv.writer(rows)
    writer.writerow(["key", "vid_key", "video_id", "sentence"])
    pairs = {video: draw.of(WORDS) for video in draw.sample(range(7010, 7100), k=30)}
    writer.writerows([f"ret{n}", f"msr{video}", f"video{video}", pairs[video]] for n, video in enumerate(pairs))
    raw("MSRVTT_JSFUSION_test.csv", rows.getvalue().encode())
    published = {video: draw.text() for video in range(7100, 7120)}
    raw("retrieval_val.json", [{"video": f"video{n}.mp4", "caption": text} for n, text in published.items()])
    examples = convert("msrvtt_retrieval").examples
    assert len(examples["train.jsonl"]) == worded(text for _, _, text in trained)
    assert len(examples["train_9k.jsonl"]) == worded(
        text for video, _, text in [*trained, *tested] if video not in pairs
    )
    assert len(examples["test.jsonl"]) == worded(pairs.values())
    assert len(examples["val.jsonl"]) == worded(published.values())
    for name in ("test.jsonl", "val.jsonl"):  # one caption a video
        assert len({example.media_id for example in examples[name]}) == len(examples[name])


@pytest.mark.parametrize("form", ["jsonl", "json"])
def test_msrvtt_multiple_choice(raw, convert, draw, form):
    asked = [[draw.text() or "x" for _ in range(5)] for _ in range(40)]
    records = [
        {"qid": 7, "clip_name": f"video{7010 + n % 30}", "options": options, "answer": n % 5}
        for n, options in enumerate(asked)
    ]
    lines = "".join(raw.dumps(record) + "\n" for record in records)
    raw(f"msrvtt_mc_test.{form}", lines if form == "jsonl" else records)
    examples = convert("msrvtt_mc").examples["test.jsonl"]
    whole = [n for n, options in enumerate(asked) if worded(options) == 5]
    assert whole
    assert [(example.example_id, example.target) for example in examples] == [(str(n), n % 5) for n in whole]


def question(draw):
    return draw.choice(["what", "who", " How", "where", draw.text()]) + " " + draw.text()


def test_msrvtt_questions(raw, convert, draw):
    asked = {}
    for split, videos in (("train", range(6513)), ("val", range(6513, 7010)), ("test", range(7010, 10000))):
        drawn = [(draw.choice(videos), question(draw), draw.text()) for _ in range(draw.randrange(60))]
        asked[split] = [(videos[0], "what ?", "cat"), *drawn]
    published = draw.random() < 0.5
    for split, items in asked.items():
        if published:
            items = [{"video": f"video{n}.mp4", "question": q, "answer": a} for n, q, a in items]
        else:
            items = original_qa(0, *items)
        raw(f"qa_{split}.json" if published else f"{split}_qa.json", items)
    known = None
    if published:
        known = dict.fromkeys(["cat", *draw.texts(3, 9)])
        raw("train_ans2label.json", {answer: label for label, answer in enumerate(known)})
    examples = convert("msrvtt_qa").examples
    for split, items in asked.items():
        whole = [(q, a) for _, q, a in items if q.strip() and a.strip()]
        kept = whole if split != "train" or known is None else [pair for pair in whole if pair[1] in known]
        assert len(examples[f"{split}.jsonl"]) == len(kept)


def test_didemo_paragraphs(raw, convert, draw):
    told = {}
    for split in ("train", "val", "test"):
        told[split] = {f"{split}_{n}": ["", *draw.texts(0, 4)] for n in range(9)} | {f"{split}_sure": ["sure"]}
        records = []
        for video, texts in told[split].items():
            for text in texts:
                times = draw.choices([(0, 0), (2, 3), (5, 5)], k=4)
                records.append(didemo(f"{video}.{draw.choice(['mov', 'AVI', 'mp4', ''])}", text, *times))
        raw(f"{split}_data.json", draw.sample(records, k=len(records)))
    examples = convert("didemo_retrieval").examples
    for split, videos in told.items():
        found = [example.media_id for example in examples[f"{split}.jsonl"]]
        assert sorted(found) == sorted(video for video, texts in videos.items() if worded(texts))


def test_anet_paragraphs(raw, convert, draw):
    told = {}
    for source in ("train", "val_1"):
        told[source] = {f"v_{source}_{n}": ["", *draw.texts(0, 4)] for n in range(9)} | {f"v_{source}_sure": ["sure"]}
        raw(
            f"{source}.json",
            {
                video: {
                    "duration": 9.5,
                    "timestamps": [[draw.choice([0, 0.5, 3]), 4] for _ in texts],
                    "sentences": texts,
                }
                for video, texts in told[source].items()
            },
        )
    examples = convert("anet_retrieval").examples
    for source, file in (("train", "train.jsonl"), ("val_1", "dev.jsonl")):
        found = [example.media_id for example in examples[file]]
        assert found == [video for video, texts in told[source].items() if worded(texts)]


def test_tgif(raw, convert, draw):
    gifs = [f"tumblr_{n}_250" for n in range(40)]
    rows = {}
    for split in ("Train", "Test"):
        for task in ("action", "transition"):
            drawn = [[draw.choice(gifs), draw.cell(), *(draw.cell() or "x" for _ in range(5))] for _ in range(40)]
            rows[split, task] = [[gifs[0], "sure ?", *"abcde"], *drawn]
            lines = ["\t".join([*row, str(n % 5), "ID", str(n)]) for n, row in enumerate(rows[split, task])]
            header = "gif_name\tquestion\ta1\ta2\ta3\ta4\ta5\tanswer\tvid_id\tkey"
            raw(f"{split}_{task}_question.csv", table(header, *lines))
        drawn = [[draw.choice(gifs), draw.cell(), draw.cell()] for _ in range(40)]
        rows[split, "frameqa"] = [[gifs[0], "sure ?", "cat"], *drawn]
        lines = ["\t".join([*row, str(n % 4), "F", str(n), "x"]) for n, row in enumerate(rows[split, "frameqa"])]
        header = "gif_name\tquestion\tanswer\ttype\tvid_id\tkey\tdescription"
        raw(f"{split}_frameqa_question.csv", table(header, *lines))
    if draw.random() < 0.5:
        for task in ("action", "transition", "frameqa"):
            held_out = [{"gif_name": row[0], "question": row[1]} for row in rows["Train", task][1:9]]
            raw(f"{task}_val.jsonl", "".join(raw.dumps(record) + "\n" for record in held_out))
    examples = convert("tgif_qa").examples
    for task in ("action", "transition", "frameqa"):
        trained = examples[f"{task}_train.jsonl"] + examples[f"{task}_val.jsonl"]
        assert examples[f"{task}_train.jsonl"]
        assert len(trained) == sum(worded(row) == len(row) for row in rows["Train", task])
        assert len(examples[f"{task}_test.jsonl"]) == sum(worded(row) == len(row) for row in rows["Test", task])
