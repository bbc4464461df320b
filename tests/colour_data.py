"""Made data for every shipped recipe, in the true annotation formats and under the recipes' own paths.

Each video or image shows one colour. Training, validation and test media are different files of the same colours, so
that a model of a few thousand weights learns in seconds what the published recipes learn in days.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

COLOURS = {
    "red": (200, 20, 20),
    "green": (20, 180, 20),
    "blue": (20, 20, 200),
    "yellow": (220, 220, 20),
    "white": (240, 240, 240),
    "black": (10, 10, 10),
    "purple": (160, 20, 200),
    "orange": (230, 130, 20),
}
NAMES = tuple(COLOURS)
WORDS = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "a",
    "the",
    "what",
    "color",
    "is",
    "it",
    "thing",
    "?",
    ".",
    *NAMES,
)
COPIES = {"train": 3, "val": 1, "test": 1}  # media of each colour

# Everything that makes a recipe small, as a person would say it with --set.
SMALL = (
    "model.tokenizer=vocab.txt",
    "model.weights.checkpoint=null",
    "model.weights.bert=null",
    "model.visual.weights=null",
    "model.visual.layer_type=basic",
    "model.visual.depths=[1,1,1,1]",
    "model.visual.stem_size=8",
    "model.visual.hidden_sizes=[8,16,16,32]",
    "train.freeze=[]",
    "model.visual.pixel_std=[60.0,60.0,60.0]",
    f"model.bert.vocab_size={len(WORDS)}",
    "model.bert.hidden_size=32",
    "model.bert.num_hidden_layers=2",
    "model.bert.num_attention_heads=2",
    "model.bert.intermediate_size=64",
    "model.bert.initializer_range=0.15",
    "model.bert.hidden_dropout=0.0",
    "model.bert.attention_dropout=0.0",
    "data.frame_size=64",
    "data.workers=0",
    "train.batch_size=8",
    "train.learning_rate=0.003",
    "train.precision=fp32",
    "train.log_every_steps=1",
    "train.blind_baseline=false",
    "infer.num_clips=2",
)


def write_colour_data(root: Path) -> None:
    """Annotations, vocabularies, and folders of media for every recipe, under `root`."""
    root.mkdir(exist_ok=True)
    (root / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    for name in ("msrvtt", "didemo", "anet", "msvd", "next_qa"):
        _media(root / "vis_db" / name, "mp4")
    _media(root / "vis_db" / "tgif", "gif")
    for name in ("coco_train2014_val2014", "coco_test2015", "vg"):
        _media(root / "vis_db" / name, "jpg")
    for split in COPIES:
        items = list(_items(split))
        captions = [{"caption": f"the {colour} thing", "clip_name": media_id} for media_id, colour in items]
        _lines(root, f"msrvtt_retrieval/{split}", captions)
        paragraphs = [{**each, "caption": f"a thing . it is {each['caption'].split()[1]} ."} for each in captions]
        _lines(root, f"didemo_retrieval/{split}", paragraphs)
        _lines(root, f"anet_retrieval/{'dev' if split == 'val' else split}", paragraphs)
        choices = [_choice(number, *item) for number, item in enumerate(items)]
        _lines(root, f"msrvtt_mc/{split}", choices)
        asked = [
            {"gif_name": each.pop("clip_name"), "question": "what color is it ?", **each} for each in map(dict, choices)
        ]
        _lines(root, f"tgif_qa/action_{split}", asked)
        _lines(root, f"tgif_qa/transition_{split}", asked)
        question = "what color is the thing ?"
        frames = [
            {"gif_name": media_id, "question": question, "answer": colour, "answer_type": "color"}
            for media_id, colour in items
        ]
        _lines(root, f"tgif_qa/frameqa_{split}", frames)
        _lines(
            root,
            f"msrvtt_qa/{split}",
            [{"video_id": each["gif_name"], **each, "answer_type": "what"} for each in frames],
        )
        _lines(root, f"msvd_retrieval/{split}", captions)
        _lines(
            root,
            f"msvd_qa/{split}",
            [{"video_id": each["gif_name"], **each, "answer_type": "what"} for each in frames],
        )
        _lines(
            root,
            f"next_qa/{split}",
            [
                {"video_id": each["gif_name"], "question_id": f"{each['gif_name']}_0", "answer_type": "causal", **each}
                for each in asked
            ],
        )
        soft = [
            {
                "question": question,
                "image_id": media_id,
                "question_id": number,
                "labels": {colour: 1.0, NAMES[(number + 1) % len(NAMES)]: 0.3} if colour != "black" else {colour: 0.9},
                "answer_type": "other",
            }
            for number, (media_id, colour) in enumerate(items)
        ]
        _lines(root, f"vqa/{ {'train': 'vqa_k_trainval', 'val': 'vqa_k_test', 'test': 'vg_k_trainval'}[split] }", soft)
        unknown = [{name: each[name] for name in ("question", "image_id", "question_id")} for each in soft]
        _lines(root, f"vqa/{ {'train': 'unused', 'val': 'vqa_test_dev2015', 'test': 'vqa_test2015'}[split] }", unknown)
        for name, key in (("coco", "coco_id"), ("vg", "vg_id")):
            texts = [{"caption": f"the {colour} thing is {colour}", key: media_id} for media_id, colour in items]
            _lines(root, f"pretrain/{name}_{split}_captions", texts if split == "train" else texts * 12)
    answers = {colour: label for label, colour in enumerate(NAMES)}
    for path in (
        "msrvtt_qa/train_ans2label.json",
        "msvd_qa/train_ans2label.json",
        "tgif_qa/frameqa_trainval_ans2label.json",
        "vqa/trainval_ans2label.json",
    ):
        (root / "txt_db" / path).write_text(json.dumps(answers))


def _items(split: str) -> Iterator[tuple[str, str]]:
    """Media id and colour of every item of a split."""
    for copy in range(COPIES[split]):
        for colour in NAMES:
            yield f"{split}_{copy}_{colour}", colour


def _choice(number: int, media_id: str, colour: str) -> dict[str, Any]:
    """Five colours, the right one at a changing place."""
    others = [name for name in NAMES if name != colour]
    answer = number % 5
    options = [others[(number + place) % len(others)] for place in range(4)]
    options.insert(answer, colour)
    return {"qid": number, "clip_name": media_id, "options": options, "answer": answer}


def _lines(root: Path, name: str, records: Iterable[dict[str, Any]]) -> None:
    path = root / "txt_db" / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def _media(folder: Path, suffix: str) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    for split in COPIES:
        for media_id, colour in _items(split):
            noise = rng.integers(-15, 16, (64, 64, 3))
            picture = np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8)
            path = folder / f"{media_id}.{suffix}"
            if suffix == "mp4":
                _encode(path, picture)
            else:
                more = {"save_all": True, "append_images": [Image.fromarray(picture[::-1])] * 9, "duration": 100}
                Image.fromarray(picture).save(path, **(more if suffix == "gif" else {}))


def _encode(path: Path, picture: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(10), options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for number in range(12):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(picture, number, axis=0), format="rgb24")))
        container.mux(stream.encode())
