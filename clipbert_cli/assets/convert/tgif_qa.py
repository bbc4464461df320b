"""TGIF-QA: action and transition questions with five options, and open-ended questions about one frame.

The media id is the name of the GIF.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from clipbert_cli.assets.convert.answer_lists import answer_vocabulary
from clipbert_cli.assets.convert.raw_files import find, find_optional, read_records, read_table, share
from clipbert_cli.assets.convert.record_writer import RecordWriter

OPTIONS = 5
FRAME_TYPES = ("object", "number", "color", "location")
FRAME_ANSWERS = 1540
# One GIF in ten validates if the original's list is missing.
HELD_OUT = 10


def convert(raw: Path, writer: RecordWriter) -> None:
    """Convert {Train,Test}_{action,transition,frameqa}_question.csv, which are separated by tabs, without quoting.

    The questions in {action,transition,frameqa}_val.jsonl are taken out of Train for validation, as in the original.
    Without these files, the questions about one GIF in ten are, chosen by a fixed hash.
    """
    for task in ("action", "transition", "frameqa"):
        train, test = list(_records(raw, "Train", task)), list(_records(raw, "Test", task))
        is_validation = _hold_out(raw, task, writer)
        validation = [record for record in train if is_validation(record)]
        train = [record for record in train if not is_validation(record)]
        if task == "frameqa":
            # The original counts the answers of train and validation together: its file is "trainval".
            vocabulary = answer_vocabulary((r["answer"] for r in (*train, *validation)), FRAME_ANSWERS)
            known = [record for record in train if record["answer"] in vocabulary]
            if len(known) < len(train):
                writer.warnings.append(
                    f"frameqa: {len(train) - len(known):,} training questions have an answer outside the "
                    f"{FRAME_ANSWERS:,}: left out"
                )
            train = known
            writer.vocabulary("frameqa_trainval_ans2label.json", vocabulary)
        for split, records in (("train", train), ("val", validation), ("test", test)):
            words = ("question", "answer") if task == "frameqa" else ("question", "options")
            writer.records(f"{task}_{split}.jsonl", records, media="gif_name", words=words)


def _records(raw: Path, split: str, task: str) -> Iterator[dict[str, Any]]:
    for row in read_table(find(raw, f"{split}_{task}_question.csv"), separator="\t"):
        record = {"gif_name": row.media("gif_name"), "question": row.field("question")}
        if task == "frameqa":
            kind = row.integer("type", allowed=range(len(FRAME_TYPES)))
            yield {**record, "answer": row.field("answer"), "answer_type": FRAME_TYPES[kind]}
        else:
            options = [row.field(f"a{n}") for n in range(1, OPTIONS + 1)]
            yield {**record, "options": options, "answer": row.integer("answer", allowed=range(OPTIONS))}


def _hold_out(raw: Path, task: str, writer: RecordWriter) -> Callable[[dict[str, Any]], bool]:
    """Return the function that decides which training records validate."""
    path = find_optional(raw, f"{task}_val.jsonl")
    if path is None:
        message = f"no {task}_val.jsonl: a tenth of the training GIFs is held out here, not the original's list"
        writer.warnings.append(message)
        return lambda record: share(f"tgif:{record['gif_name']}", HELD_OUT) == 0
    listed = {(each.field("gif_name"), each.field("question")) for each in read_records(path)}
    return lambda record: (record["gif_name"], record["question"]) in listed
