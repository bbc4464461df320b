"""MSR-VTT captions for text-to-video retrieval.

Input: MSRVTT_data.json (or train_val_videodatainfo.json with test_videodatainfo.json), MSRVTT_JSFUSION_test.csv, and
retrieval_val.json where it is there.

train.jsonl has all captions of the official train and val videos ("7k"), train_9k.jsonl those of every video outside
the 1k-A test, test.jsonl the 1,000 pairs of 1k-A. val.jsonl are the 1,000 published pairs; without their list, 1,000 of
the other official test videos with one caption each, chosen by a fixed hash.

Where the original files' sen_id names several captions it is left out: readers know captions by it, or by their line.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clipbert_cli.assets.convert.base import (
    Output,
    field,
    find,
    find_optional,
    one_line,
    read_json,
    read_records,
    read_table,
    share,
)
from clipbert_cli.assets.convert.msrvtt import SEVEN_K, SPLITS, number, video_name

VALIDATION_VIDEOS = 1000


def convert(raw: Path, output: Output) -> None:
    captions = list(_captions(raw))
    test = [
        {
            "caption": one_line(field(row, where, "sentence", "sentences")),
            "clip_name": video_name(field(row, where, "video_id"), where),
        }
        for where, row in read_table(find(raw, "MSRVTT_JSFUSION_test.csv"), separator=",")
    ]
    held_out = {record["clip_name"] for record in test}
    validation = _validation(raw, output, captions, held_out)
    repeated = len(captions) - len({record["sen_id"] for record in captions})
    if repeated:
        output.warn(f"{repeated:,} captions have the sen_id of another: sen_id is left out, lines count instead")
        for record in captions:
            del record["sen_id"]
    seven_k = (record for record in captions if number(record["clip_name"]) in SEVEN_K)
    output.records("train.jsonl", seven_k, media="clip_name", words=("caption",))
    output.records(
        "train_9k.jsonl",
        (record for record in captions if record["clip_name"] not in held_out),
        media="clip_name",
        words=("caption",),
    )
    output.records("val.jsonl", validation, media="clip_name", words=("caption",))
    output.records("test.jsonl", test, media="clip_name", words=("caption",))
    overlap = output.media["val.jsonl"] & (output.media["train.jsonl"] | output.media["test.jsonl"])
    if overlap:
        output.warn(f"{len(overlap):,} validation videos are also in train or test, {min(overlap)} among them")


def _captions(raw: Path) -> Iterator[dict[str, Any]]:
    """The `sentences` of the original files, in their order."""
    whole = find_optional(raw, "MSRVTT_data.json")
    paths = [whole] if whole else [find(raw, f"{name}_videodatainfo.json") for name in ("train_val", "test")]
    for path in paths:
        for index, sentence in enumerate(field(read_json(path), str(path), "sentences", kind=list)):
            where = f"{path}, sentence {index}"
            yield {
                "caption": one_line(field(sentence, where, "caption")),
                "clip_name": video_name(field(sentence, where, "video_id"), where),
                "sen_id": field(sentence, where, "sen_id", kind=int),
            }


def _validation(raw: Path, output: Output, captions: list[dict[str, Any]], held_out: set[str]) -> list[dict[str, Any]]:
    path = find_optional(raw, "retrieval_val.json")
    if path:
        return [
            {
                "caption": one_line(field(record, where, "caption")),
                "clip_name": video_name(field(record, where, "video", "clip_name"), where),
            }
            for where, record in read_records(path)
        ]
    output.warn("no retrieval_val.json: validation pairs are chosen here, they are not the published ones")
    by_video: dict[str, list[dict[str, Any]]] = {}
    for record in captions:
        video, text = record["clip_name"], record["caption"]
        if number(video) in SPLITS["test"] and video not in held_out and text:
            by_video.setdefault(video, []).append(record)
    chosen = sorted(by_video, key=lambda video: (share(f"msrvtt:{video}", 2**64), video))[:VALIDATION_VIDEOS]
    return [
        min(by_video[video], key=lambda record: share(f"msrvtt:{record['sen_id']}", 2**64))
        for video in sorted(chosen, key=number)
    ]
