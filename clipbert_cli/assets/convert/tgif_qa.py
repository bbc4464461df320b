"""TGIF-QA: actions and transitions (five options), and questions about one frame (open-ended).

Input: {Train,Test}_{action,transition,frameqa}_question.csv, tab-separated and without quoting; and
{action,transition,frameqa}_val.jsonl where they are there: those questions of Train are then the validation set, as in
the original. Without them the questions about one in ten GIFs of Train, chosen by a fixed hash.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from clipbert_cli.assets.convert.base import (
    Output,
    answer_vocabulary,
    field,
    find,
    find_optional,
    integer,
    media_name,
    read_records,
    read_table,
    share,
)

OPTIONS = 5
FRAME_TYPES = ("object", "number", "color", "location")
FRAME_ANSWERS = 1540
HELD_OUT = 10  # one in ten


def convert(raw: Path, output: Output) -> None:
    makers: dict[str, Callable[[dict[str, str], str], dict[str, Any]]] = {
        "action": _choice,
        "transition": _choice,
        "frameqa": _frame,
    }
    for task, make in makers.items():
        train = [make(row, where) for where, row in _rows(raw, "Train", task)]
        test = [make(row, where) for where, row in _rows(raw, "Test", task)]
        is_validation = _hold_out(raw, task, output)
        validation = [record for record in train if is_validation(record)]
        train = [record for record in train if not is_validation(record)]
        if task == "frameqa":
            vocabulary = answer_vocabulary((r["answer"] for r in (*train, *validation)), FRAME_ANSWERS)
            dropped = [record for record in train if record["answer"] not in vocabulary]
            if dropped:
                output.warn(
                    f"frameqa: {len(dropped):,} training questions have an answer outside the "
                    f"{FRAME_ANSWERS:,}: left out"
                )
                train = [record for record in train if record["answer"] in vocabulary]
            output.vocabulary("frameqa_trainval_ans2label.json", vocabulary)
        for split, records in (("train", train), ("val", validation), ("test", test)):
            words = ("question", "answer") if task == "frameqa" else ("question", "options")
            output.records(f"{task}_{split}.jsonl", records, media="gif_name", words=words)


def _rows(raw: Path, split: str, task: str) -> Any:
    return read_table(find(raw, f"{split}_{task}_question.csv"), separator="\t")


def _choice(row: dict[str, str], where: str) -> dict[str, Any]:
    return {
        "gif_name": media_name(field(row, where, "gif_name"), where),
        "question": field(row, where, "question"),
        "options": [field(row, where, f"a{n}") for n in range(1, OPTIONS + 1)],
        "answer": integer(field(row, where, "answer"), where, "answer", allowed=range(OPTIONS)),
    }


def _frame(row: dict[str, str], where: str) -> dict[str, Any]:
    kind = integer(field(row, where, "type"), where, "type", allowed=range(len(FRAME_TYPES)))
    return {
        "gif_name": media_name(field(row, where, "gif_name"), where),
        "question": field(row, where, "question"),
        "answer": field(row, where, "answer"),
        "answer_type": FRAME_TYPES[kind],
    }


def _hold_out(raw: Path, task: str, output: Output) -> Callable[[dict[str, Any]], bool]:
    path = find_optional(raw, f"{task}_val.jsonl")
    if path is None:
        output.warn(f"no {task}_val.jsonl: a tenth of the training GIFs is held out here, not the original's list")
        return lambda record: share(f"tgif:{record['gif_name']}", HELD_OUT) == 0
    listed = {(field(r, where, "gif_name"), field(r, where, "question")) for where, r in read_records(path)}
    return lambda record: (record["gif_name"], record["question"]) in listed
