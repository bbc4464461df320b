"""COCO captions for pretraining: the Karpathy train and restval images train, its val images validate.

Input: captions_train2014.json, captions_val2014.json, dataset_coco.json. The media id is the image file's stem.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from clipbert_cli.assets.convert.base import Output, field, find, one_line, read_json
from clipbert_cli.assets.convert.karpathy import TRAINING, karpathy_split


def convert(raw: Path, output: Output) -> None:
    split = karpathy_split(raw)
    captions = list(_captions(raw))
    unknown = sum(stem not in split for stem, _ in captions)
    if unknown:
        output.warn(f"{unknown:,} captions belong to no image of dataset_coco.json: left out")
    for name, splits in (("coco_train_captions.jsonl", TRAINING), ("coco_val_captions.jsonl", {"val"})):
        kept = ({"coco_id": stem, "caption": text} for stem, text in captions if split.get(stem) in splits)
        output.records(name, kept, media="coco_id", words=("caption",))


def _captions(raw: Path) -> Iterator[tuple[str, str]]:
    """(image stem, caption) in the files' own order."""
    for year in ("train2014", "val2014"):
        path = find(raw, f"captions_{year}.json")
        for index, record in enumerate(field(read_json(path), str(path), "annotations", kind=list)):
            where = f"{path}, annotation {index}"
            image = field(record, where, "image_id", kind=int)
            yield f"COCO_{year}_{image:012d}", one_line(field(record, where, "caption"))
