"""The demo's data: short H.264 videos of two moving coloured shapes, images of them, and texts about them.

Every answer is drawn independently of the words of its question, so that a model that does not see the video scores no
better than the share of the most frequent answer. Each kind of text has the form of a public data set: the questions of
MSRVTT-QA, the questions with options of TGIF-QA, the soft labels of VQA, the captions of MSR-VTT.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipbert_cli.files import write_json

if TYPE_CHECKING:
    import numpy as np

COLORS = {
    "red": (214, 39, 40),
    "green": (44, 160, 44),
    "blue": (31, 80, 200),
    "yellow": (240, 220, 40),
    "white": (250, 250, 250),
}
SHAPES = ("circle", "ring", "bar", "pillar")
SIDES = ("left", "right", "top", "bottom")
SIZES = ((128, 128), (160, 120), (192, 144), (120, 160))  # width, height in pixels
RATES = (10, 12, 15)  # frames per second
SECONDS = (1.5, 3.0)  # shortest and longest video

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = ("what", "where", "color", "shape", "is", "on", "the", "?", *COLORS, *SHAPES, *SIDES, "a", "and")


@dataclass(frozen=True, slots=True)
class MovingShape:
    """One shape of a scene, which moves on an ellipse around `center`.

    `center` is relative to width and height; `radius` and `swing` (horizontal, vertical) are relative to the shorter
    side. `turns` is the number of turns in the whole video; a negative number turns the other way.
    """

    shape: str
    color: str
    side: str
    center: tuple[float, float]
    radius: float
    swing: tuple[float, float]
    turns: float


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that determines the pixels of one video."""

    video_id: str
    width: int
    height: int
    rate: int
    num_frames: int
    shapes: tuple[MovingShape, MovingShape]
    texture_seed: int


def write_demo_media(folder: Path, *, videos: dict[str, int], seed: int, progress: Callable[[], None]) -> None:
    """Write `videos/`, `images/`, `txt_db/` and `vocab.txt` under `folder`.

    `images/` has the middle frame of each video. `txt_db/` has one file per split and kind of text: the questions at
    its top, each other kind of `TEXTS` in a folder of its own.

    Args:
        videos: how many videos each split has, e.g. {"train": 400, "val": 60, "test": 100}.
        seed: the same seed gives the same scenes and texts.
        progress: called after each video.
    """
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(seed)
    for name in ("videos", "images", *(f"txt_db/{kind}" for kind in TEXTS)):
        (folder / name).mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, *WORDS]) + "\n", encoding="utf-8")
    for split, count in videos.items():
        scenes = []
        for number in range(count):
            scenes.append(draw_scene(rng, f"{split}{number:04d}"))
            frames = list(render(scenes[-1]))
            encode(folder / "videos" / f"{scenes[-1].video_id}.mp4", scenes[-1], frames)
            picture = Image.fromarray(frames[len(frames) // 2])
            picture.save(folder / "images" / f"{scenes[-1].video_id}.jpg", quality=95)
            progress()
        for kind, texts in TEXTS.items():
            lines = "".join(json.dumps(record) + "\n" for scene in scenes for record in texts(scene))
            (folder / "txt_db" / kind / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    answers = {answer: label for label, answer in enumerate([*COLORS, *SHAPES, *SIDES])}
    write_json(folder / "txt_db" / "answers.json", answers)


def draw_scene(rng: np.random.Generator, video_id: str) -> Scene:
    """Draw two shapes of different kind and colour on opposite sides; all choices are uniform and independent."""
    width, height = SIZES[rng.integers(len(SIZES))]
    rate = RATES[rng.integers(len(RATES))]
    first, second = rng.permutation(len(SHAPES))[:2]
    one, other = rng.permutation(len(COLORS))[:2]
    sides = (SIDES[0], SIDES[1]) if rng.random() < 0.5 else (SIDES[2], SIDES[3])
    if rng.random() < 0.5:
        sides = sides[::-1]
    names = list(COLORS)
    shapes = tuple(
        _moving_shape(rng, SHAPES[shape], names[color], side)
        for shape, color, side in zip((first, second), (one, other), sides, strict=True)
    )
    return Scene(
        video_id=video_id,
        width=width,
        height=height,
        rate=rate,
        num_frames=int(rate * rng.uniform(*SECONDS)),
        shapes=(shapes[0], shapes[1]),
        texture_seed=int(rng.integers(2**31)),
    )


def _moving_shape(rng: np.random.Generator, shape: str, color: str, side: str) -> MovingShape:
    """Draw a shape that moves around the middle of its side and never leaves this side."""
    middle = {"left": (0.25, 0.5), "right": (0.75, 0.5), "top": (0.5, 0.25), "bottom": (0.5, 0.75)}[side]
    along = rng.uniform(0.1, 0.2)
    across = rng.uniform(0.01, 0.03)
    swing = (across, along) if side in ("left", "right") else (along, across)
    turns = rng.uniform(0.5, 1.5) * rng.choice([-1, 1])
    return MovingShape(shape, color, side, middle, rng.uniform(0.19, 0.23), swing, turns)


def questions(scene: Scene) -> Iterator[dict[str, Any]]:
    """Yield six questions per shape: for its colour, kind and side, each by means of the other two."""
    for item in scene.shapes:
        for kind, question, answer in (
            ("what", f"what color is the {item.shape} ?", item.color),
            ("what", f"what color is on the {item.side} ?", item.color),
            ("what", f"what shape is {item.color} ?", item.shape),
            ("what", f"what shape is on the {item.side} ?", item.shape),
            ("where", f"where is the {item.shape} ?", item.side),
            ("where", f"where is the {item.color} shape ?", item.side),
        ):
            yield {"question": question, "answer": answer, "video_id": scene.video_id, "answer_type": kind}


def soft_questions(scene: Scene) -> Iterator[dict[str, Any]]:
    """Yield the same questions with soft labels, as if some annotators had called a bar a pillar or the reverse."""
    for record in questions(scene):
        answer = record["answer"]
        doubt = {"bar": "pillar", "pillar": "bar"}.get(answer)
        labels = {answer: 1.0} if doubt is None else {answer: 1.0, doubt: 0.3}
        yield {
            "question": record["question"],
            "image_id": scene.video_id,
            "labels": labels,
            "answer_type": record["answer_type"],
        }


def choices(scene: Scene) -> Iterator[dict[str, Any]]:
    """Yield two questions per shape about its colour; the options are all colours in a random order."""
    import numpy as np

    # A generator of its own: the order must not depend on which other texts are written.
    rng = np.random.default_rng(scene.texture_seed)
    for item in scene.shapes:
        for question in (f"what color is the {item.shape} ?", f"what color is on the {item.side} ?"):
            options = [list(COLORS)[number] for number in rng.permutation(len(COLORS))]
            yield {
                "gif_name": scene.video_id,
                "question": question,
                "options": options,
                "answer": options.index(item.color),
            }


def captions(scene: Scene) -> Iterator[dict[str, Any]]:
    """Yield two captions of both shapes, with either of them first."""
    parts = [f"a {item.color} {item.shape} on the {item.side}" for item in scene.shapes]
    for text in (" and ".join(parts), " and ".join(parts[::-1])):
        yield {"caption": text, "clip_name": scene.video_id}


def statements(scene: Scene) -> Iterator[dict[str, Any]]:
    """Yield colour, kind and side of both shapes in all orders, for pretraining.

    Almost no word of such a text follows from its other words, so that masked words must be predicted from the video.
    """
    for order in itertools.permutations(("color", "shape", "side")):
        parts = [" ".join(getattr(item, name) for name in order) for item in scene.shapes]
        for text in (" and ".join(parts), " and ".join(parts[::-1])):
            yield {"caption": text, "clip_name": scene.video_id}


TEXTS: dict[str, Callable[[Scene], Iterator[dict[str, Any]]]] = {
    ".": questions,
    "vqa": soft_questions,
    "mc": choices,
    "retrieval": captions,
    "pretrain": statements,
}


def render(scene: Scene) -> Iterator[np.ndarray]:
    """Yield the frames of a scene, (height, width, 3) uint8 RGB."""
    import numpy as np

    rng = np.random.default_rng(scene.texture_seed)
    # A dark texture of 16x16 blocks that moves by one pixel per frame, so that no two frames are equal.
    coarse = rng.integers(60, 110, (scene.height // 16 + 2, scene.width // 16 + 2, 1)) + rng.integers(-8, 9, 3)
    background = coarse.repeat(16, 0).repeat(16, 1)
    y, x = np.mgrid[: scene.height, : scene.width].astype(np.float32)
    short = min(scene.height, scene.width)
    for index in range(scene.num_frames):
        drift = index % 16
        frame = background[drift : drift + scene.height, drift : drift + scene.width].astype(np.uint8)
        for item in scene.shapes:
            angle = 2 * np.pi * item.turns * index / scene.num_frames
            center_x = item.center[0] * scene.width + item.swing[0] * short * np.sin(angle)
            center_y = item.center[1] * scene.height + item.swing[1] * short * np.cos(angle)
            # Coordinates relative to the shape, (height, width) each.
            u, v = (x - center_x) / (item.radius * short), (y - center_y) / (item.radius * short)
            frame[INSIDE[item.shape](u, v)] = COLORS[item.color]
        yield frame


# The outline of each shape: whether a point (u, v) is inside, where the shape spans -1 to 1 in both directions.
INSIDE: dict[str, Callable[[Any, Any], Any]] = {
    "circle": lambda u, v: u * u + v * v < 1,
    "ring": lambda u, v: (u * u + v * v < 1) & (u * u + v * v > 0.3),
    "bar": lambda u, v: (abs(u) < 1) & (abs(v) < 0.4),
    "pillar": lambda u, v: (abs(u) < 0.4) & (abs(v) < 1),
}


def encode(path: Path, scene: Scene, frames: Iterable[np.ndarray]) -> None:
    """Write the frames of a scene as H.264 in an MP4 file."""
    import av

    with av.open(str(path), "w") as container:
        # A key frame every 8 frames, so that few frames are decoded before one that is wanted. The macroblock tree of
        # x264 reads memory that it never wrote, so that equal frames would not become equal bytes.
        options = {"crf": "20", "preset": "veryfast", "g": "8", "x264-params": "mbtree=0"}
        stream = container.add_stream("libx264", rate=Fraction(scene.rate), options=options)
        stream.width, stream.height, stream.pix_fmt = scene.width, scene.height, "yuv420p"
        # x264 gives other bytes for another number of threads.
        stream.codec_context.thread_count = 1
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
