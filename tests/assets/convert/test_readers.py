"""What converters write, the tasks read: every record of made raw files, odd ones among them, is a whole example."""

import random

import pytest

from clipbert_cli.data.annotations import read_answers, read_examples
from clipbert_cli.recipe.schema import InferConfig, ObjectiveConfig
from clipbert_cli.task.video_qa import OpenEndedQa

WORDS = ["cat", "dog", 'say "hi', "é", "", " ", "it's", "1,000", "a\tb", "two\nlines", "\u2028", "日本", "\ud83d"]


def trained_on(task):
    """The reader of a training split."""

    def parse(record):
        example = task.parse(record)
        task.check_training(example)
        return example

    return parse


@pytest.mark.parametrize("seed", range(6))
def test_msrvtt_questions_pass_the_reader(raw, convert, seed):
    draw = random.Random(seed)
    for split, videos in (("train", range(6513)), ("val", range(6513, 7010)), ("test", range(7010, 10000))):
        records = [
            {
                "answer": draw.choice(WORDS),
                "category_id": 14,
                "id": n,
                "question": f"{draw.choice(['what', 'who', ' How', 'where'])} {draw.choice(WORDS)} ?",
                "video_id": draw.choice(videos),
            }
            for n in range(draw.randrange(1, 60))
        ]
        raw(f"{split}_qa.json", [{**records[0], "answer": "cat"}, *records])
    done = convert("msrvtt_qa")
    answers = read_answers(done.folder / "train_ans2label.json")
    task = OpenEndedQa(ObjectiveConfig(), InferConfig(), answers)
    for split, parse in (("train", trained_on(task)), ("val", task.parse), ("test", task.parse)):
        examples = read_examples(done.folder / f"{split}.jsonl", parse)
        assert len(examples) == done.counts[f"{split}.jsonl"][0]
        assert len({example.media_id for example in examples}) == done.counts[f"{split}.jsonl"][1]
