"""COCO 2014: the Karpathy split, which several data sets refer to, and captions for pretraining.

The media id is the stem of the image file, such as COCO_val2014_000000000042.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from clipbert_cli.assets.convert.raw_files import find, read_list
from clipbert_cli.assets.convert.record_writer import RecordWriter

# "restval" are the images of val2014 that Karpathy's split adds to the training images.
TRAINING = {"train", "restval"}
FILE_NAME = re.compile(r"(COCO_(?:train|val)2014_[0-9]{12})\.jpg")


def karpathy_split(raw: Path) -> dict[str, str]:
    """Return image stem -> `train`, `restval`, `val` or `test`, from dataset_coco.json."""
    split = {}
    for image in read_list(find(raw, "dataset_coco.json"), "images"):
        name, file = image.field("split"), image.field("filename")
        if name not in {*TRAINING, "val", "test"}:
            raise image.error(f"split is {name!r}: train, restval, val or test was expected")
        match = FILE_NAME.fullmatch(file)
        if match is None:
            expected = "COCO_train2014_ or COCO_val2014_, twelve digits and .jpg were expected"
            raise image.error(f"filename is {file!r}: {expected}")
        split[match[1]] = name
    return split


def coco_number(stem: str) -> int:
    """Return COCO's id of an image: the digits at the end of its stem."""
    return int(stem.rsplit("_", 1)[1])


def convert_captions(raw: Path, writer: RecordWriter) -> None:
    """Convert captions_{train,val}2014.json with dataset_coco.json: train and restval images train, val validates."""
    split = karpathy_split(raw)
    captions = list(_captions(raw))
    unknown = sum(stem not in split for stem, _ in captions)
    if unknown:
        writer.warnings.append(f"{unknown:,} captions belong to no image of dataset_coco.json: left out")
    for name, splits in (("coco_train_captions.jsonl", TRAINING), ("coco_val_captions.jsonl", {"val"})):
        kept = ({"coco_id": stem, "caption": text} for stem, text in captions if split.get(stem) in splits)
        writer.records(name, kept, media="coco_id", words=("caption",))


def _captions(raw: Path) -> Iterator[tuple[str, str]]:
    """Yield (image stem, caption) in the order of the files."""
    for year in ("train2014", "val2014"):
        for record in read_list(find(raw, f"captions_{year}.json"), "annotations"):
            yield f"COCO_{year}_{record.field('image_id', kind=int):012d}", record.line("caption")
