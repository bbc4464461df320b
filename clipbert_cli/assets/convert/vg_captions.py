"""Visual Genome region descriptions for pretraining.

Input: image_data.json, region_descriptions.json, dataset_coco.json, and dataset_flickr30k.json where it is there.
The media id is the decimal image id.

The original's image lists are not published. The nearest rule: images that are no COCO image, or one of the Karpathy
train and restval images, and that are not in Flickr30k; one in fifty of them, chosen by a fixed hash of its id,
validates (about 2,100).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from clipbert_cli.assets.convert.base import (
    Output,
    field,
    find,
    find_optional,
    one_line,
    read_json,
    share,
    stem,
    stream_records,
)
from clipbert_cli.assets.convert.karpathy import TRAINING, coco_id_split, karpathy_split

HELD_OUT = 50  # one in fifty


def convert(raw: Path, output: Output) -> None:
    usable = _usable_images(raw, output)
    path = find(raw, "region_descriptions.json")
    validation = {image for image in usable if share(f"vg:{image}", HELD_OUT) == 0}
    for name, images in (("vg_train_captions.jsonl", usable - validation), ("vg_val_captions.jsonl", validation)):

        def regions(images: set[int] = images) -> Iterator[dict[str, str]]:
            for where, image in stream_records(path):
                image_id = field(image, where, "id", "image_id", kind=int)
                if image_id not in images:
                    continue
                for region in field(image, where, "regions", kind=list):
                    yield {"vg_id": str(image_id), "caption": one_line(field(region, where, "phrase"))}

        output.records(name, regions(), media="vg_id", words=("caption",))


def _usable_images(raw: Path, output: Output) -> set[int]:
    split = coco_id_split(karpathy_split(raw))
    flickr_path = find_optional(raw, "dataset_flickr30k.json")
    flickr: set[str] = set()
    if flickr_path is None:
        output.warn("no dataset_flickr30k.json: images that are also in Flickr30k stay")
    else:
        images = field(read_json(flickr_path), str(flickr_path), "images", kind=list)
        flickr = {stem(field(image, f"{flickr_path}, image {n}", "filename")) for n, image in enumerate(images)}
    usable = set()
    for where, image in stream_records(find(raw, "image_data.json")):
        image_id = field(image, where, "image_id", "id", kind=int)
        coco_id = field(image, where, "coco_id", kind=(int, type(None)))
        flickr_id = field(image, where, "flickr_id", kind=(int, str, type(None)))
        if (coco_id is None or split.get(coco_id) in TRAINING) and str(flickr_id) not in flickr:
            usable.add(image_id)
    return usable
