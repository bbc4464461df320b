"""Visual Genome questions on COCO images: more training questions for VQA.

Input: image_data.json, question_answers.json, dataset_coco.json, v2_mscoco_{train,val}2014_annotations.json (for the
vocabulary). Kept are questions on images that are Karpathy train, restval or val images of COCO and whose normalised
answer is in the VQA vocabulary; that answer scores 1. The media id is the COCO image's stem.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clipbert_cli.assets.convert.answers import normalize_answer
from clipbert_cli.assets.convert.base import Output, field, find, stream_records
from clipbert_cli.assets.convert.karpathy import karpathy_split
from clipbert_cli.assets.convert.vqa import count_answers, read_annotations


def convert(raw: Path, output: Output) -> None:
    vocabulary = count_answers(a for year in ("train2014", "val2014") for a in read_annotations(raw, year).values())
    stems = {int(stem[-12:]): stem for stem, split in karpathy_split(raw).items() if split != "test"}
    coco_stem = {}
    for where, image in stream_records(find(raw, "image_data.json")):
        coco_id = field(image, where, "coco_id", kind=(int, type(None)))
        if coco_id in stems:
            coco_stem[field(image, where, "image_id", "id", kind=int)] = stems[coco_id]

    def records() -> Iterator[dict[str, Any]]:
        for where, image in stream_records(find(raw, "question_answers.json")):
            stem = coco_stem.get(field(image, where, "id", "image_id", kind=int))
            for question in field(image, where, "qas", kind=list) if stem else []:
                answer = normalize_answer(field(question, where, "answer"))
                if answer in vocabulary:
                    yield {
                        "question": field(question, where, "question"),
                        "image_id": stem,
                        "question_id": field(question, where, "qa_id", "id", kind=int),
                        "labels": {answer: 1.0},
                        "answer_type": "other",
                    }

    output.records("vg_k_trainval.jsonl", records(), media="image_id", words=("question",), unique="question_id")
