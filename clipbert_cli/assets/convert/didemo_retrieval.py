"""DiDeMo descriptions, joined into one paragraph a video.

Input: train_data.json, val_data.json, test_data.json. The media id is the file's stem: one video appears under
several extensions, and its descriptions belong together.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

from clipbert_cli.assets.convert.base import Output, field, find, media_name, read_records, stem
from clipbert_cli.assets.convert.paragraphs import Order, paragraphs
from clipbert_cli.errors import AnnotationError


def convert(raw: Path, output: Output, order: Order = "file") -> None:
    for split in ("train", "val", "test"):
        path = find(raw, f"{split}_data.json")
        output.records(f"{split}.jsonl", paragraphs(_sentences(path), order), media="clip_name", words=("caption",))
    for split in ("val", "test"):
        overlap = output.media["train.jsonl"] & output.media[f"{split}.jsonl"]
        if overlap:
            output.warn(f"{len(overlap):,} videos are in train and in {split}, {min(overlap)} among them")


def _sentences(path: Path) -> Iterator[tuple[str, str, float]]:
    for where, record in read_records(path):
        times = field(record, where, "times", kind=list)
        try:
            start = fmean(float(begin) for begin, _ in times)
        except (TypeError, ValueError) as exc:
            raise AnnotationError(f"{where}: times is {times!r}: [start, end] pairs were expected") from exc
        video = media_name(stem(field(record, where, "video")), where)
        yield video, field(record, where, "description"), start
