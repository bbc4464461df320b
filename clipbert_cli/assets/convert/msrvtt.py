"""MSR-VTT: captions for text-to-video retrieval, the multiple choice test, and open-ended questions (MSRVTT-QA).

The media id is `video0` to `video9999`; the official split goes by these numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from clipbert_cli.assets.convert import raw_files
from clipbert_cli.assets.convert.answer_lists import answer_vocabulary, read_vocabulary
from clipbert_cli.assets.convert.record_writer import RecordWriter
from clipbert_cli.errors import AnnotationError

SEVEN_K = range(7010)  # train and val together, the "7k" training set of retrieval
OPTIONS = 5
ANSWERS = 1500


def video_name(value: str | int, where: str) -> str:
    """Return the media id of a video: `6513`, `msr6513` and `video6513.mp4` all are `video6513`."""
    match = re.fullmatch(r"(?:video|msr)?(\d+)", raw_files.stem(str(value)))
    if match is None or raw_files.integer(match[1], where, "video") not in range(10000):
        raise AnnotationError(f"{where}: video is {value!r}: video0 to video9999 was expected")
    return f"video{int(match[1])}"


def convert_retrieval(raw: Path, writer: RecordWriter) -> None:
    """Convert MSRVTT_data.json, MSRVTT_JSFUSION_test.csv and retrieval_val.json.

    train.jsonl has the captions of the official train and val videos ("7k"), train_9k.jsonl those of all videos outside
    the 1k-A test, test.jsonl the 1,000 pairs of the 1k-A test and val.jsonl the 1,000 published validation pairs.
    """
    sentences = raw_files.read_list(raw_files.find(raw, "MSRVTT_data.json"), "sentences")
    captions = [_pair(sentence, ("caption",), ("video_id",)) for sentence in sentences]
    rows = raw_files.read_table(raw_files.find(raw, "MSRVTT_JSFUSION_test.csv"), separator=",")
    test = [_pair(row, ("sentence", "sentences"), ("video_id",)) for row in rows]
    held_out = {record["clip_name"] for record in test}
    validation = raw_files.read_records(raw_files.find(raw, "retrieval_val.json"))
    outputs = {
        "train.jsonl": (record for record in captions if int(record["clip_name"].removeprefix("video")) in SEVEN_K),
        "train_9k.jsonl": (record for record in captions if record["clip_name"] not in held_out),
        "val.jsonl": (_pair(record, ("caption",), ("video", "clip_name")) for record in validation),
        "test.jsonl": test,
    }
    for name, records in outputs.items():
        writer.records(name, records, media="clip_name", words=("caption",))
    writer.warn_if_shared("val.jsonl", "train.jsonl", "test.jsonl")


def _pair(record: raw_files.Record, captions: tuple[str, ...], videos: tuple[str, ...]) -> dict[str, Any]:
    return {"caption": record.line(*captions), "clip_name": video_name(record.field(*videos), record.where)}


def convert_multiple_choice(raw: Path, writer: RecordWriter) -> None:
    """Convert msrvtt_mc_test.jsonl or .json."""
    path = raw_files.find(raw, "msrvtt_mc_test.jsonl", "msrvtt_mc_test.json")
    writer.records("test.jsonl", _choices(path), media="clip_name", words=("options",))


def _choices(path: Path) -> Iterator[dict[str, Any]]:
    for qid, record in enumerate(raw_files.read_records(path)):
        options = record.field("options", "caption", kind=list)
        if len(options) != OPTIONS or not all(isinstance(option, str) for option in options):
            raise record.error(f"{OPTIONS} captions were expected, not {options!r}")
        answer = raw_files.integer(record.field("answer", kind=int), record.where, "answer", allowed=range(OPTIONS))
        video = video_name(record.field("clip_name", "video"), record.where)
        lines = [raw_files.one_line(option) for option in options]
        yield {"qid": qid, "clip_name": video, "options": lines, "answer": answer}


def convert_questions(raw: Path, writer: RecordWriter) -> None:
    """Convert {train,val,test}_qa.json (the original), or one of its copies, qa_{train,...}.json or {train,...}.jsonl.

    The vocabulary is that of train_ans2label.json if it is there, else the 1,500 most frequent training answers, of
    equally frequent ones those that appear first. Training questions with other answers are left out. The answer type
    is the first word of the question.
    """
    write_questions(raw, writer, video=video_name, answers=ANSWERS)


def write_questions(raw: Path, writer: RecordWriter, *, video: Callable[[str | int, str], str], answers: int) -> None:
    """Convert the questions of MSRVTT-QA or MSVD-QA, which have the same authors and form.

    Args:
        video: the value of a record and its place -> the media id.
        answers: size of the vocabulary.
    """
    records_of = {name: list(_questions(raw, name, video)) for name in ("train", "val", "test")}
    path = raw_files.find_optional(raw, "train_ans2label.json")
    if path:
        vocabulary = read_vocabulary(path)
    else:
        vocabulary = answer_vocabulary((record["answer"] for record in records_of["train"]), answers)
    for name, records in records_of.items():
        kept = [record for record in records if name != "train" or record["answer"] in vocabulary]
        writer.records(f"{name}.jsonl", kept, media="video_id", words=("question", "answer"))
    writer.warn_if_shared("val.jsonl", "train.jsonl")
    writer.warn_if_shared("test.jsonl", "train.jsonl", "val.jsonl")
    writer.vocabulary("train_ans2label.json", vocabulary)


def _questions(raw: Path, split: str, video: Callable[[str | int, str], str]) -> Iterator[dict[str, Any]]:
    for record in raw_files.read_records(raw_files.find(raw, f"{split}_qa.json", f"qa_{split}.json", f"{split}.jsonl")):
        question = record.field("question").strip()
        yield {
            "question": question,
            "answer": record.field("answer"),
            "video_id": video(record.field("video_id", "video", kind=(int, str)), record.where),
            "answer_type": question.split(maxsplit=1)[0].lower() if question else "",
        }
