"""The values that travel between packages: Example, VideoInfo, Batch, Outputs, Prediction.

Legend: B media items, K clips, T frames, S canvas side in pixels, N text rows (the sum of all examples' texts), L text
tokens, M words to predict, C classes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import torch

Kind = Literal["video", "image"]
"""The kinds of media. An image is treated as one clip of one frame."""

OnDuplicate = Literal["error", "first", "longest"]
"""The choice of `pack` among several files of one media id; `store/packing.py` describes it."""

Place = Literal["start", "middle", "end"]
"""Where a single clip of a video is taken."""

FixedSampling = Literal["uniform", Place, "clips"]
"""Sampling strategies that take the same frames every time; `media/sampling.py` draws them."""

Sampling = Literal["random", FixedSampling]
"""All sampling strategies."""

ClipTimes = Literal["presentation", "header"]
"""The rule for the time of a frame; `media/sampling.py` draws both."""

Rotation = Literal["apply", "ignore"]
"""Whether pictures and frames are turned upright, as their file says."""

MediaIds = Literal["stem", "path"]
"""The media id of a file: its name without the ending, or its path without the ending."""

MediaNames = Literal["stem", "name", "path"]
"""The names of media in annotations: the media id, a file name with its ending, or a path from the media's folder."""

_VIDEO_SUFFIXES = """
    .mp4 .m4v .mov .qt .avi .mkv .webm .gif .mpg .mpeg .mpe .m2v .vob .ts .mts .m2ts .flv .f4v .wmv .asf .3gp .3g2
    .ogv .ogg .ogm .rm .rmvb .divx .dv .mxf .nut .y4m .h264 .264 .hevc .h265
    .m2t .m1v .m2p .mp2v .mpv .mod .tod .trp .tp .wtv .dvr-ms .amv .ivf .mjpeg .mjpg
"""
_IMAGE_SUFFIXES = """
    .jpg .jpeg .jpe .jfif .png .apng .bmp .dib .gif .tif .tiff .webp .avif .jp2 .j2k .ppm .pgm .pbm .pnm .tga .ico
    .pcx .sgi .dds .heic .heif .hif
"""
MEDIA_SUFFIXES: Mapping[Kind, frozenset[str]] = {
    "video": frozenset(_VIDEO_SUFFIXES.split()),
    "image": frozenset(_IMAGE_SUFFIXES.split()),
}
"""Lower-case file name endings by kind. `.gif` is in both: a GIF is a video (TGIF) unless images are asked for."""


class PredictionKey(NamedTuple):
    """The media item and text that a prediction belongs to, wherever their record is in a file.

    Args:
        text_digest: see `Example.text_digest`; None if the prediction belongs to the media item alone.
        occurrence: counts records of one media item with the same text, from 1.
    """

    media_id: str
    text_digest: str | None = None
    occurrence: int = 1

    def to_json(self) -> dict[str, Any]:
        """Return the key as it is written: without what is None, and without `occurrence` if it is 1."""
        digest = {} if self.text_digest is None else {"text_digest": self.text_digest}
        return {"media_id": self.media_id, **digest, **({"occurrence": self.occurrence} if self.occurrence > 1 else {})}


def composed(value: Any) -> Any:
    """Return a JSON value with all texts in it, names of fields included, in Unicode's composed form NFC.

    Raises:
        ValueError: two names of one object differ in their form alone.
    """
    if isinstance(value, str):
        return unicodedata.normalize("NFC", value)
    if isinstance(value, dict):
        fields = {composed(name): composed(inner) for name, inner in value.items()}
        if len(fields) < len(value):
            twice = Counter(map(composed, value)).most_common(1)[0][0]
            raise ValueError(f"two names differ in their Unicode form alone: {twice!r}; remove or rename one of them")
        return fields
    # A list of scores may have millions of numbers.
    if isinstance(value, list) and value and not isinstance(value[0], float):
        return [composed(inner) for inner in value]
    return value


def digest_of_texts(context: str | None, texts: Sequence[str]) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of the JSON list [context, *texts] in ASCII."""
    return hashlib.sha256(json.dumps([context, *texts]).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Example:
    """One text record that belongs to one media item.

    Args:
        example_id: the record's own id; None if it has none.
        texts: one entry per text row that the model reads: the question, the caption, or one text per option.
        target: the value that the task learns and scores (an answer, an option index, soft labels); None if unknown.
        answer_type: group by which accuracy is also reported; None if the annotations have no groups.
        context: text that is read before each of `texts`, such as the question that the options answer.
        occurrence: counts the records of a split with this media item, context and texts, from 1.
        drawn_from: the `text_digest` of the record, where a draw has changed its texts.
    """

    example_id: str | None
    media_id: str
    texts: tuple[str, ...]
    target: Any = None
    answer_type: str | None = None
    context: str | None = None
    occurrence: int = 1
    drawn_from: str | None = None

    @property
    def text_digest(self) -> str:
        """The digest of the record's question, options or caption. It does not depend on the target."""
        return self.drawn_from or digest_of_texts(self.context, self.texts)

    @property
    def key(self) -> PredictionKey:
        """The key that a prediction for this example has."""
        return PredictionKey(self.media_id, self.text_digest, self.occurrence)


def with_occurrences(examples: Iterable[Example]) -> list[Example]:
    """Return the examples with their `occurrence`, so that each has another key."""
    seen: dict[tuple[Any, ...], int] = {}
    counted = []
    for example in examples:
        same = (example.media_id, example.context, example.texts)
        seen[same] = count = seen.get(same, 0) + 1
        counted.append(example if count == 1 else dataclasses.replace(example, occurrence=count))
    return counted


@dataclass(frozen=True, slots=True)
class Group:
    """Up to `max_examples_per_group` examples of one media item, which is decoded and encoded once for all of them."""

    media_id: str
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a video, in seconds from its first frame; without `end` up to the end of the video.

    A segment is a media item of its own. Its media id is that of the video and the time as in a media fragment URI
    (W3C, Media Fragments URI 1.0, section 4.2.1): `cat1#t=2.5,7`.
    """

    start: float = 0.0
    end: float | None = None

    def of(self, media_id: str) -> str:
        """Return the media id of this segment of a video."""
        start, end = (
            ("" if value is None else f"{value:.6f}".rstrip("0").rstrip(".")) for value in (self.start, self.end)
        )
        return f"{media_id}#t={start}" + (f",{end}" if end else "")

    @classmethod
    def split(cls, media_id: str) -> tuple[str, Segment | None]:
        """Return the video's media id and the segment, None if the media id names a whole item."""
        # The first test spares the ids of whole items, of which there may be millions, the second one.
        found = _FRAGMENT.fullmatch(media_id) if "#t=" in media_id else None
        if found is None:
            return media_id, None
        return found[1], cls(float(found[2]), float(found[3]) if found[3] else None)


_FRAGMENT = re.compile(r"(.+)#t=(\d+(?:\.\d+)?)(?:,(\d+(?:\.\d+)?))?", re.S)


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """The facts about a video from which clips are sampled: header values and the frames that really decode.

    Header values are kept as the container states them, right or wrong, because the original's choice of frames
    depends on them.

    Args:
        width, height: size of the first frame in pixels, as it is coded.
        num_frames: the header's frame count; 0 if not stated.
        duration: the header's stream duration in units of `time_base`; None if not stated.
        average_rate: the header's frames per second; None if not stated.
        time_base: seconds per unit of time.
        pts: presentation times of all frames that decode, in display order and units of `time_base`.
        complete: False if decoding the whole stream ends in an error.
        orientation: how the file says its frames must be turned to be upright, as an EXIF orientation (1 to 8; 1 is
            upright, 3 upside down, 6 must be turned clockwise, 8 counterclockwise, the others are mirrored).
        size_changes: (frame, height, width) of each frame whose coded size differs from that of the frame before it.
        damage: that error, or what the header states that the file does not have; empty if the video is whole.
        segment: the part of the video from which clips are taken; None takes them from all of it.
    """

    width: int
    height: int
    num_frames: int
    duration: int | None
    average_rate: Fraction | None
    time_base: Fraction
    pts: tuple[int, ...] = field(repr=False)
    complete: bool = True
    orientation: int = 1
    size_changes: tuple[tuple[int, int, int], ...] = ()
    damage: str = ""
    segment: Segment | None = None

    def seconds(self, frame: int) -> float:
        """Return the time at which a frame is shown, as the file states it."""
        return float(self.pts[frame] * self.time_base)

    @property
    def shown_seconds(self) -> float:
        """Seconds from the first to the last frame."""
        return float((self.pts[-1] - self.pts[0]) * self.time_base)

    @property
    def upright_size(self) -> tuple[int, int]:
        """The size (height, width) of the first frame after turning it upright."""
        return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)

    def size_of(self, frame: int) -> tuple[int, int]:
        """Return the coded (height, width) of a frame."""
        place = bisect_right(self.size_changes, frame, key=lambda change: change[0])
        return self.size_changes[place - 1][1:] if place else (self.height, self.width)

    @property
    def failure(self) -> str:
        """The damage of a video that is not whole, as a sentence for messages."""
        if self.complete:
            return self.damage
        of = f" of {self.num_frames}" if self.num_frames > len(self.pts) else ""
        return f"decoding fails after frame {len(self.pts)}{of}" + (f": {self.damage}" if self.damage else "")


@dataclass(frozen=True, slots=True)
class Texts:
    """Text rows as the model reads them.

    Args:
        ids: (N, L) int64 token ids, 0 where padded.
        mask: (N, L) bool, True for real tokens.
        targets: tensors by name, which the task compares with the model's outputs.
        word_positions: (2, M) int64, text row and token of each word that the model has to predict; None if it predicts
            no words.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    targets: Mapping[str, torch.Tensor] = field(default_factory=dict)
    word_positions: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """The input of one forward pass.

    Args:
        frames: (B, K, T, 3, S, S) uint8 RGB, zero where padded; channels are last in memory.
        text_ids: (N, L) int64 token ids, 0 where padded.
        text_mask: (N, L) bool, True for real tokens.
        text_item: (N,) int64, index (0..B-1) of the media item that each text row belongs to.
        examples: the examples of all text rows, in their order.
        targets: tensors by name, made by the task's `collate`; empty where targets are unknown.
        word_positions: (2, M), see `Texts.word_positions`.
        media_ids: the ids of the B media items.
        failed: (group, reason) of groups whose media item cannot be used; no other field includes them.
    """

    frames: torch.Tensor
    text_ids: torch.Tensor
    text_mask: torch.Tensor
    text_item: torch.Tensor
    examples: tuple[Example, ...]
    targets: Mapping[str, torch.Tensor] = field(default_factory=dict)
    word_positions: torch.Tensor | None = None
    media_ids: tuple[str, ...] = ()
    failed: tuple[tuple[Group, str], ...] = ()

    def to(self, device: torch.device) -> Batch:
        """Return the batch on `device`. Copies from pinned memory overlap with compute."""
        return self._moved(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory, but for what is on a GPU already."""
        return self._moved(lambda tensor: tensor if tensor.is_cuda else tensor.pin_memory())

    def _moved(self, move: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        return dataclasses.replace(
            self,
            frames=move(self.frames),
            text_ids=move(self.text_ids),
            text_mask=move(self.text_mask),
            text_item=move(self.text_item),
            targets={name: move(tensor) for name, tensor in self.targets.items()},
            word_positions=None if self.word_positions is None else move(self.word_positions),
        )

    def tensors(self) -> list[torch.Tensor]:
        """Return every tensor of the batch."""
        words = [] if self.word_positions is None else [self.word_positions]
        return [self.frames, self.text_ids, self.text_mask, self.text_item, *self.targets.values(), *words]

    def __repr__(self) -> str:
        shapes = {"frames": self.frames, "text_ids": self.text_ids, **self.targets}
        listed = ", ".join(f"{name}={tuple(tensor.shape)}" for name, tensor in shapes.items())
        return f"Batch({len(self.examples)} examples, {listed})"


@dataclass(frozen=True, slots=True)
class Outputs:
    """The model's raw outputs for a batch, per text row and clip.

    Args:
        logits: (N, K, C) outputs of the head; (N, K, 2) image-text matching scores in pretraining.
        mlm_logits: (M, K, vocabulary size) scores of words at the batch's `word_positions`; None if it has none.
    """

    logits: torch.Tensor
    mlm_logits: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """The prediction of a task for one example, or for a whole media item where every text is scored with every item.

    `fields` are JSON values or float32 arrays.
    """

    key: PredictionKey
    fields: Mapping[str, Any]

    @property
    def media_id(self) -> str:
        return self.key.media_id


@dataclass(frozen=True, slots=True)
class Shard:
    """Share `rank` (0..size-1) of `size` processes that divide the data between them."""

    rank: int = 0
    size: int = 1


ALONE = Shard()


_ENDINGS = frozenset().union(*MEDIA_SUFFIXES.values())


def media_id_of(name: str, names: MediaNames) -> str:
    """Return the media id that an annotation means. With `path` it has the folders, divided by `/`."""
    if names == "stem":
        return name
    name, segment = Segment.split(name)
    # Windows divides the folders of a path in its own way.
    path = PurePosixPath(name.replace("\\", "/"))
    media_id = str(path) if names == "path" else path.name
    if path.suffix.lower() in _ENDINGS:
        media_id = media_id[: -len(path.suffix)]
    return media_id if segment is None else segment.of(media_id)
