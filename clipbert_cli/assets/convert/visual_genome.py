"""Visual Genome: region descriptions for pretraining, and more questions on COCO images for VQA.

The original's lists of images and questions are not published. The rules here are the nearest that its description
gives; both keep out images that COCO or Flickr30k test on.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any

from clipbert_cli.assets.convert.answer_lists import normalize_answer
from clipbert_cli.assets.convert.coco import TRAINING, coco_number, karpathy_split
from clipbert_cli.assets.convert.raw_files import find, read_list, read_records, share, stem
from clipbert_cli.assets.convert.record_writer import RecordWriter
from clipbert_cli.assets.convert.vqa import count_answers, read_annotations

# One image in fifty validates, about 2,100 of them.
HELD_OUT = 50


def convert_captions(raw: Path, writer: RecordWriter) -> None:
    """Convert region_descriptions.json with image_data.json, dataset_coco.json and dataset_flickr30k.json.

    Used are images that are no COCO image or one that Karpathy's split trains on, and that are not in Flickr30k. The
    media id is Visual Genome's image id.
    """
    usable = _usable_images(raw)
    path = find(raw, "region_descriptions.json")
    validation = {image for image in usable if share(f"vg:{image}", HELD_OUT) == 0}

    def regions(images: set[int]) -> Iterator[dict[str, str]]:
        for image in read_records(path):
            image_id = image.field("id", "image_id", kind=int)
            for region in image.records("regions") if image_id in images else ():
                yield {"vg_id": str(image_id), "caption": region.line("phrase")}

    for name, images in (("vg_train_captions.jsonl", usable - validation), ("vg_val_captions.jsonl", validation)):
        writer.records(name, regions(images), media="vg_id", words=("caption",))


def _usable_images(raw: Path) -> set[int]:
    # Not named `stem`: Python 3.12.1 takes the function of this name below for the variable.
    split = {coco_number(each): name for each, name in karpathy_split(raw).items()}
    flickr = {stem(image.field("filename")) for image in read_list(find(raw, "dataset_flickr30k.json"), "images")}
    usable = set()
    for image in read_records(find(raw, "image_data.json")):
        coco_id = image.field("coco_id", kind=(int, NoneType))
        flickr_id = image.field("flickr_id", kind=(int, str, NoneType))
        if (coco_id is None or split.get(coco_id) in TRAINING) and str(flickr_id) not in flickr:
            usable.add(image.field("image_id", "id", kind=int))
    return usable


def convert_questions(raw: Path, writer: RecordWriter) -> None:
    """Convert question_answers.json with image_data.json, dataset_coco.json and VQA's two annotation files.

    Used are questions on COCO images outside the Karpathy test split whose normalised answer is in the VQA vocabulary;
    that answer scores 1. The media id is the stem of the COCO image.
    """
    vocabulary = count_answers(a for year in ("train2014", "val2014") for a in read_annotations(raw, year).values())
    stems = {coco_number(stem): stem for stem, split in karpathy_split(raw).items() if split != "test"}
    coco_stem = {}
    for image in read_records(find(raw, "image_data.json")):
        coco_id = image.field("coco_id", kind=(int, NoneType))
        if coco_id in stems:
            coco_stem[image.field("image_id", "id", kind=int)] = stems[coco_id]

    def records() -> Iterator[dict[str, Any]]:
        for image in read_records(find(raw, "question_answers.json")):
            stem = coco_stem.get(image.field("id", "image_id", kind=int))
            for question in image.records("qas") if stem else ():
                answer = normalize_answer(question.field("answer"))
                if answer in vocabulary:
                    yield {
                        "question": question.field("question"),
                        "image_id": stem,
                        "question_id": question.field("qa_id", "id", kind=int),
                        "labels": {answer: 1.0},
                        "answer_type": "other",
                    }

    writer.records("vg_k_trainval.jsonl", records(), media="image_id", words=("question",), unique="question_id")
