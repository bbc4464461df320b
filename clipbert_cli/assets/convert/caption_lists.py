"""Captions of video data sets as CLIP4Clip and Frozen in Time keep them, and paragraphs of DiDeMo and ActivityNet.

    train_list.txt, val_list_jsfusion.txt, ...     one media id per line
    raw-captions.pkl                               media id -> captions, each a list of words (MSVD)
    MSR_VTT.json                                   {"annotations": [{"image_id": ..., "caption": ...}]}

A list `NAME_list_CUT.txt` becomes `NAME_CUT.jsonl`, one record per caption.

For retrieval by paragraphs, all sentences about one video of DiDeMo or ActivityNet Captions are joined into one text.
The order in which the original joined the sentences is not published. Here it is the order of the source files, which
later work uses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from clipbert_cli.assets.convert.raw_files import (
    Record,
    find,
    find_optional,
    media_name,
    one_line,
    read_json,
    read_list,
    read_pickle,
    read_records,
    stem,
)
from clipbert_cli.assets.convert.record_writer import RecordWriter
from clipbert_cli.errors import AnnotationError
from clipbert_cli.foreign import read_text_lines

Captions = dict[str, list[str]]


def convert(raw: Path, writer: RecordWriter) -> None:
    """Convert the captions of all lists that are there; see the module's docstring."""
    captions = _captions(raw)
    lists = sorted(path for path in raw.rglob("*_list*.txt") if path.is_file())
    if not lists:
        raise AnnotationError(f"{raw}: no file *_list.txt in this folder or below it", hint="put the lists there")
    outputs: list[str] = []
    for path in lists:
        name = path.name.replace("_list", "").replace(".txt", ".jsonl")
        if name in outputs:
            raise AnnotationError(f"{raw}: {path.name} is there twice, {path} among them", hint="keep one of them")
        media = list(_listed(path))
        if unknown := [video for video in media if video not in captions]:
            writer.warnings.append(f"{name}: {len(unknown):,} videos have no caption, {unknown[0]} among them")
        records = ({"caption": text, "clip_name": video} for video in media for text in captions.get(video, []))
        writer.records(name, records, media="clip_name", words=("caption",))
        # A list of all videos, and the lists of another cut, share videos by intention.
        writer.warn_if_shared(name, *(other for other in outputs if _cut(other) == _cut(name)))
        outputs.append(name)


def _cut(output: str) -> str:
    """Return which division of the videos an output belongs to: `train_full.jsonl` to `full`."""
    return output.removesuffix(".jsonl").partition("_")[2]


def _listed(path: Path) -> Iterator[str]:
    for number, line in enumerate(read_text_lines(path), start=1):
        if line.strip():
            yield media_name(line.strip(), f"{path}, line {number}")


def _captions(raw: Path) -> Captions:
    """Return media id -> its captions, from either of the known files."""
    if path := find_optional(raw, "raw-captions.pkl"):
        return _pickled(path)
    captions: Captions = {}
    for record in read_list(find(raw, "MSR_VTT.json", "raw-captions.pkl"), "annotations"):
        captions.setdefault(record.field("image_id"), []).append(record.line("caption"))
    return captions


def _pickled(path: Path) -> Captions:
    content = read_pickle(path)
    if not isinstance(content, dict):
        raise AnnotationError(f"{path}: an object of media ids was expected, not {type(content).__name__}")
    captions: Captions = {}
    for video, texts in content.items():
        where = f"{path}, {video}"
        if not isinstance(video, str) or not isinstance(texts, list | tuple):
            raise AnnotationError(f"{where}: a list of captions was expected, not {texts!r:.60}")
        captions[video] = [_sentence(text, where) for text in texts]
    return captions


def _sentence(text: Any, where: str) -> str:
    words = [text] if isinstance(text, str) else text
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
        raise AnnotationError(f"{where}: a caption or its words were expected, not {text!r:.60}")
    return one_line(" ".join(words))


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
