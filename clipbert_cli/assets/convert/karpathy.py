"""The Karpathy split of COCO 2014, which several datasets refer to."""

from __future__ import annotations

import re
from pathlib import Path

from clipbert_cli.assets.convert.base import field, find, read_json
from clipbert_cli.errors import AnnotationError

TRAINING = {"train", "restval"}
FILE_NAME = re.compile(r"(COCO_(?:train|val)2014_[0-9]{12})\.jpg")


def karpathy_split(raw: Path) -> dict[str, str]:
    """COCO image stem -> `train`, `restval`, `val` or `test`, from dataset_coco.json."""
    path = find(raw, "dataset_coco.json")
    document = read_json(path)
    if not isinstance(document, dict):
        raise AnnotationError(f"{path}: an object with `images` was expected")
    split = {}
    for index, image in enumerate(field(document, str(path), "images", kind=list)):
        where = f"{path}, image {index}"
        name = field(image, where, "split")
        if name not in {*TRAINING, "val", "test"}:
            raise AnnotationError(f"{where}: split is {name!r}: train, restval, val or test was expected")
        match = FILE_NAME.fullmatch(field(image, where, "filename"))
        if match is None:
            raise AnnotationError(
                f"{where}: filename is {image['filename']!r}: COCO_train2014_ or COCO_val2014_, twelve digits and .jpg "
                "were expected"
            )
        split[match[1]] = name
    return split


def coco_id_split(split: dict[str, str]) -> dict[int, str]:
    """The same split by COCO's number, which is the end of the stem."""
    return {int(stem.rsplit("_", 1)[1]): name for stem, name in split.items()}
