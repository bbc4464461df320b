"""MSR-VTT: captions for text-to-video retrieval, the multiple choice test, and open-ended questions (MSRVTT-QA).

The media id is `video0` to `video9999`; the official split goes by these numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from clipbert_cli.assets.convert import raw_files
from clipbert_cli.assets.convert.answer_lists import answer_vocabulary, read_vocabulary
from clipbert_cli.assets.convert.record_writer import RecordWriter
from clipbert_cli.errors import AnnotationError

SPLITS = {"train": range(6513), "val": range(6513, 7010), "test": range(7010, 10000)}
SEVEN_K = range(7010)  # train and val together, the "7k" training set of retrieval
VALIDATION_VIDEOS = 1000
OPTIONS = 5
ANSWERS = 1500
ANSWER_TYPES = {"what", "who", "how", "where", "when"}


def video_name(value: str | int, where: str) -> str:
    """Return the media id of a video: `6513`, `msr6513` and `video6513.mp4` all are `video6513`."""
    match = re.fullmatch(r"(?:video|msr)?(\d+)", raw_files.stem(str(value)))
    if match is None or raw_files.integer(match[1], where, "video") not in range(10000):
        raise AnnotationError(f"{where}: video is {value!r}: video0 to video9999 was expected")
    return f"video{int(match[1])}"


def video_number(video: str) -> int:
    return int(video.removeprefix("video"))


def convert_retrieval(raw: Path, writer: RecordWriter) -> None:
    """Convert MSRVTT_data.json and MSRVTT_JSFUSION_test.csv, and retrieval_val.json if it is there.

    train.jsonl has the captions of the official train and val videos ("7k"), train_9k.jsonl those of all videos outside
    the 1k-A test, test.jsonl the 1,000 pairs of the 1k-A test. val.jsonl has the 1,000 published pairs, or else one
    caption each of 1,000 other test videos, chosen by a fixed hash.
    """
    captions = list(_captions(raw))
    rows = raw_files.read_table(raw_files.find(raw, "MSRVTT_JSFUSION_test.csv"), separator=",")
    test = [_pair(row, ("sentence", "sentences"), ("video_id",)) for row in rows]
    held_out = {record["clip_name"] for record in test}
    published = raw_files.find_optional(raw, "retrieval_val.json")
    if published:
        validation = [
            _pair(record, ("caption",), ("video", "clip_name")) for record in raw_files.read_records(published)
        ]
    else:
        writer.warnings.append("no retrieval_val.json: the validation pairs are not the published ones")
        validation = _choose_validation(captions, held_out)
    # An annotation file in which two records have the same id is refused.
    repeated = len(captions) - len({record["sen_id"] for record in captions})
    if repeated:
        writer.warnings.append(f"{repeated:,} captions have the sen_id of another: sen_id is left out")
        for record in captions:
            del record["sen_id"]
    outputs = {
        "train.jsonl": (record for record in captions if video_number(record["clip_name"]) in SEVEN_K),
        "train_9k.jsonl": (record for record in captions if record["clip_name"] not in held_out),
        "val.jsonl": validation,
        "test.jsonl": test,
    }
    for name, records in outputs.items():
        writer.records(name, records, media="clip_name", words=("caption",))
    writer.warn_if_shared("val.jsonl", "train.jsonl", "test.jsonl")


def _pair(record: raw_files.Record, captions: tuple[str, ...], videos: tuple[str, ...]) -> dict[str, Any]:
    return {"caption": record.line(*captions), "clip_name": video_name(record.field(*videos), record.where)}


def _captions(raw: Path) -> Iterator[dict[str, Any]]:
    """Yield the captions in the order of the original files: one for all videos, or one per official split."""
    whole = raw_files.find_optional(raw, "MSRVTT_data.json")
    paths = [whole] if whole else [raw_files.find(raw, f"{name}_videodatainfo.json") for name in ("train_val", "test")]
    for path in paths:
        for sentence in raw_files.read_list(path, "sentences"):
            yield {**_pair(sentence, ("caption",), ("video_id",)), "sen_id": sentence.field("sen_id", kind=int)}


def _choose_validation(captions: list[dict[str, Any]], held_out: set[str]) -> list[dict[str, Any]]:
    by_video: dict[str, list[dict[str, Any]]] = {}
    for record in captions:
        video = record["clip_name"]
        if video_number(video) in SPLITS["test"] and video not in held_out and record["caption"]:
            by_video.setdefault(video, []).append(record)
    chosen = sorted(by_video, key=lambda video: (raw_files.share(f"msrvtt:{video}", 2**64), video))[:VALIDATION_VIDEOS]
    return [
        min(by_video[video], key=lambda record: raw_files.share(f"msrvtt:{record['sen_id']}", 2**64))
        for video in sorted(chosen, key=video_number)
    ]


def convert_multiple_choice(raw: Path, writer: RecordWriter) -> None:
    """Convert msrvtt_mc_test.jsonl or .json (records), or the original MSR_MC_test.csv (a1 to a5, tab-separated)."""
    path = raw_files.find(raw, "msrvtt_mc_test.jsonl", "msrvtt_mc_test.json", "MSR_MC_test.csv")
    rows = _choice_table(path, writer) if path.suffix == ".csv" else _choice_records(path)
    records = [
        {"qid": qid, "clip_name": video, "options": options, "answer": answer}
        for qid, (video, options, answer) in enumerate(rows)
    ]
    writer.records("test.jsonl", records, media="clip_name", words=("options",))


def _choice_records(path: Path) -> list[tuple[str, list[str], int]]:
    rows = []
    for record in raw_files.read_records(path):
        options = record.field("options", "caption", kind=list)
        if len(options) != OPTIONS or not all(isinstance(option, str) for option in options):
            raise record.error(f"{OPTIONS} captions were expected, not {options!r}")
        answer = raw_files.integer(record.field("answer", kind=int), record.where, "answer", allowed=range(OPTIONS))
        video = video_name(record.field("clip_name", "video"), record.where)
        rows.append((video, [raw_files.one_line(option) for option in options], answer))
    return rows


def _choice_table(path: Path, writer: RecordWriter) -> list[tuple[str, list[str], int]]:
    rows = []
    for row in raw_files.read_table(path, separator="\t"):
        options = [row.line(f"a{n}") for n in range(1, OPTIONS + 1)]
        answer = row.integer("answer", allowed=range(OPTIONS + 1))
        rows.append((video_name(row.field("video_id", "vid_key"), row.where), options, answer))
    # Copies of the table count the answers from 0 or from 1. Only the whole column shows which.
    answers = {answer for _, _, answer in rows}
    if {0, OPTIONS} <= answers:
        raise AnnotationError(f"{path}: answers go from 0 to {OPTIONS}: counted from 0 or from 1, not both")
    if not {0, OPTIONS} & answers:
        writer.warnings.append(f"{path.name}: no answer is 0 or {OPTIONS}: they are taken as counted from 0")
    first = 1 if OPTIONS in answers else 0
    return [(video, options, answer - first) for video, options, answer in rows]


def convert_questions(raw: Path, writer: RecordWriter) -> None:
    """Convert {train,val,test}_qa.json (the original), or one of its copies, qa_{train,...}.json or {train,...}.jsonl.

    The vocabulary is that of train_ans2label.json if it is there, else the 1,500 most frequent training answers, of
    equally frequent ones those that appear first. Training questions with other answers are left out. The answer type
    is the first word of the question.
    """
    write_questions(raw, writer, video=video_name, answers=ANSWERS, number=video_number, splits=SPLITS)


def write_questions(
    raw: Path,
    writer: RecordWriter,
    *,
    video: Callable[[str | int, str], str],
    answers: int,
    number: Callable[[str], int],
    splits: Mapping[str, range],
) -> None:
    """Convert the questions of MSRVTT-QA or MSVD-QA, which have the same authors and form.

    Args:
        video: the value of a record and its place -> the media id.
        answers: size of the vocabulary.
        number: media id -> the number by which the videos are divided into `splits`.
    """
    records_of = {name: list(_questions(raw, name, video)) for name in splits}
    path = raw_files.find_optional(raw, "train_ans2label.json")
    if path:
        vocabulary = read_vocabulary(path)
    else:
        vocabulary = answer_vocabulary((record["answer"] for record in records_of["train"]), answers)
    for name, records in records_of.items():
        kept = [record for record in records if name != "train" or record["answer"] in vocabulary]
        videos = writer.records(f"{name}.jsonl", kept, media="video_id", words=("question", "answer"))
        strange = sorted({record["answer_type"] for record in kept} - ANSWER_TYPES)
        if strange:
            writer.warnings.append(f"{name}: questions begin with {', '.join(strange[:5])}: not an answer type")
        outside = {each for each in videos if number(each) not in splits[name]}
        if outside:
            writer.warnings.append(f"{name}: {len(outside):,} videos are of another split, {min(outside)} among them")
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
