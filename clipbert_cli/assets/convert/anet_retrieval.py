"""ActivityNet Captions, joined into one paragraph a video.

Input: train.json and val_1.json; the latter becomes dev.jsonl. The media id is the key, `v_` and the YouTube id, which
is how the official video files are named.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from clipbert_cli.assets.convert.base import Output, field, find, media_name, read_json
from clipbert_cli.assets.convert.paragraphs import Order, paragraphs
from clipbert_cli.errors import AnnotationError


def convert(raw: Path, output: Output, order: Order = "file") -> None:
    for source, split in (("train", "train"), ("val_1", "dev")):
        path = find(raw, f"{source}.json")
        output.records(f"{split}.jsonl", paragraphs(_sentences(path), order), media="clip_name", words=("caption",))
    overlap = output.media["train.jsonl"] & output.media["dev.jsonl"]
    if overlap:
        output.warn(f"{len(overlap):,} videos are in train and in dev, {min(overlap)} among them")


def _sentences(path: Path) -> Iterator[tuple[str, str, float]]:
    document = read_json(path)
    if not isinstance(document, dict):
        raise AnnotationError(f"{path}: an object with one entry a video was expected")
    for video, entry in document.items():
        where = f"{path}, {video}"
        if not isinstance(entry, dict):
            raise AnnotationError(f"{where}: an object was expected, not {entry!r}")
        sentences = field(entry, where, "sentences", kind=list)
        timestamps = field(entry, where, "timestamps", kind=list)
        if len(sentences) != len(timestamps):
            raise AnnotationError(f"{where}: {len(sentences)} sentences and {len(timestamps)} timestamps")
        for sentence, times in zip(sentences, timestamps, strict=True):
            if not isinstance(sentence, str):
                raise AnnotationError(f"{where}: a sentence is {sentence!r}: text was expected")
            if not (isinstance(times, list) and len(times) == 2 and isinstance(times[0], int | float)):
                raise AnnotationError(f"{where}: a timestamp is {times!r}: [start, end] was expected")
            yield media_name(video, where), sentence, times[0]
