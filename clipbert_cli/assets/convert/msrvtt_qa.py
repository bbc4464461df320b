"""MSRVTT-QA: open-ended questions about MSR-VTT videos.

Input: train_qa.json, val_qa.json, test_qa.json (the original, video_id an integer), or qa_{train,val,test}.json
(records with `video`), or {train,val,test}.jsonl; and train_ans2label.json where it is there, whose answers and labels
are then kept.

The vocabulary is otherwise the 1,500 most frequent training answers, of equally frequent ones the first seen. Training
questions with other answers are left out; val and test are whole. The answer type is the question's first word.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clipbert_cli.assets.convert.base import (
    Output,
    answer_vocabulary,
    field,
    find,
    find_optional,
    read_records,
    read_vocabulary,
)
from clipbert_cli.assets.convert.msrvtt import SPLITS, number, video_name

ANSWERS = 1500
ANSWER_TYPES = {"what", "who", "how", "where", "when"}


def convert(raw: Path, output: Output) -> None:
    splits = {name: list(_records(raw, name)) for name in SPLITS}
    path = find_optional(raw, "train_ans2label.json")
    if path:
        vocabulary = read_vocabulary(path)
    else:
        vocabulary = answer_vocabulary((record["answer"] for record in splits["train"]), ANSWERS)
    for name, records in splits.items():
        kept = [record for record in records if name != "train" or record["answer"] in vocabulary]
        output.records(f"{name}.jsonl", kept, media="video_id", words=("question", "answer"))
        strange = sorted({record["answer_type"] for record in kept} - ANSWER_TYPES)
        if strange:
            output.warn(f"{name}: questions begin with {', '.join(strange[:5])}: no answer type of MSRVTT-QA")
        outside = {video for video in output.media[f"{name}.jsonl"] if number(video) not in SPLITS[name]}
        if outside:
            output.warn(f"{name}: {len(outside):,} videos belong to another split, {min(outside)} among them")
    output.vocabulary("train_ans2label.json", vocabulary)


def _records(raw: Path, split: str) -> Iterator[dict[str, Any]]:
    path = find(raw, f"{split}_qa.json", f"qa_{split}.json", f"{split}.jsonl")
    for where, record in read_records(path):
        question = field(record, where, "question").strip()
        yield {
            "question": question,
            "answer": field(record, where, "answer"),
            "video_id": video_name(field(record, where, "video_id", "video", kind=(int, str)), where),
            "answer_type": question.split(maxsplit=1)[0].lower() if question else "",
        }
