"""NExT-QA: causal, temporal and descriptive questions about videos, each with five options.

The media id is the number of the video, which is also the name of its file in VidOR's folders.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clipbert_cli.assets.convert.raw_files import find, read_table
from clipbert_cli.assets.convert.record_writer import RecordWriter

OPTIONS = 5
# The first letter of `type`. CW and CH ask why and how, TP, TC and TN what was before, while and after, D for the rest.
TYPES = {"C": "causal", "T": "temporal", "D": "descriptive"}


def convert(raw: Path, writer: RecordWriter) -> None:
    """Convert {train,val,test}.csv. A test table without answers gives questions that can be predicted only."""
    for split in ("train", "val", "test"):
        records = _records(find(raw, f"{split}.csv"))
        writer.records(f"{split}.jsonl", records, media="video_id", words=("question", "options"), unique="question_id")
    writer.warn_if_shared("val.jsonl", "train.jsonl")
    writer.warn_if_shared("test.jsonl", "train.jsonl", "val.jsonl")


def _records(path: Path) -> Iterator[dict[str, Any]]:
    for row in read_table(path, separator=","):
        video, kind = row.media("video", "video_id"), row.field("type")
        options = [row.field(f"a{n}") for n in range(OPTIONS)]
        if kind[:1] not in TYPES:
            raise row.error(f"type is {kind!r}: it must begin with {', '.join(TYPES)}")
        record: dict[str, Any] = {
            # The numbers of questions are unique for each video only.
            "question_id": f"{video}_{row.field('qid')}",
            "video_id": video,
            "question": row.field("question"),
            "options": options,
            "answer_type": TYPES[kind[:1]],
        }
        if row.fields.get("answer"):
            record["answer"] = row.integer("answer", allowed=range(OPTIONS))
        yield record
