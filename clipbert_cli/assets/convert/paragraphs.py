"""Paragraph retrieval: all sentences about one video of DiDeMo or ActivityNet Captions, joined into one text.

The order in which the original joined the sentences is not published. Here it is the order of the source files, which
later work uses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from clipbert_cli.assets.convert.raw_files import Record, find, media_name, one_line, read_json, read_records, stem
from clipbert_cli.assets.convert.record_writer import RecordWriter
from clipbert_cli.errors import AnnotationError


def convert_didemo(raw: Path, writer: RecordWriter) -> None:
    """Convert {train,val,test}_data.json. The media id is the stem of the video file.

    The files name one video with several endings; the descriptions of all of them belong together.
    """
    for split in ("train", "val", "test"):
        _write(writer, f"{split}.jsonl", _didemo_sentences(find(raw, f"{split}_data.json")))
    writer.warn_if_shared("train.jsonl", "val.jsonl", "test.jsonl")


def _didemo_sentences(path: Path) -> Iterator[tuple[str, str]]:
    for record in read_records(path):
        yield media_name(stem(record.field("video")), record.where), record.field("description")


def convert_anet(raw: Path, writer: RecordWriter) -> None:
    """Convert train.json to train.jsonl and val_1.json to dev.jsonl.

    The media id is the key, `v_` and the YouTube id, which is the name of the official video files.
    """
    for source, split in (("train", "train"), ("val_1", "dev")):
        _write(writer, f"{split}.jsonl", _anet_sentences(find(raw, f"{source}.json")))
    writer.warn_if_shared("train.jsonl", "dev.jsonl")


def _anet_sentences(path: Path) -> Iterator[tuple[str, str]]:
    document = read_json(path)
    if not isinstance(document, dict):
        raise AnnotationError(f"{path}: an object with one entry per video was expected")
    for video, fields in document.items():
        entry = Record(f"{path}, {video}", fields)
        sentences, timestamps = entry.field("sentences", kind=list), entry.field("timestamps", kind=list)
        # Each sentence describes one segment: another number of segments means that sentences are missing.
        if len(sentences) != len(timestamps):
            raise entry.error(f"{len(sentences)} sentences and {len(timestamps)} timestamps")
        for sentence in sentences:
            if not isinstance(sentence, str):
                raise entry.error(f"a sentence is {sentence!r}: text was expected")
            yield media_name(video, entry.where), sentence


def _write(writer: RecordWriter, name: str, sentences: Iterable[tuple[str, str]]) -> None:
    """Write one record per video, in the order in which the videos first appear; blank sentences are left out."""
    videos: dict[str, list[str]] = {}
    for video, sentence in sentences:
        if text := one_line(sentence):
            videos.setdefault(video, []).append(text)
    records = ({"caption": " ".join(texts), "clip_name": video} for video, texts in videos.items())
    writer.records(name, records, media="clip_name", words=("caption",))
