"""The items that a loading process makes: one group of examples with the clips of its media item; batches of items.

B media items, K clips, T frames, S canvas side, N text rows, L text tokens.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Literal

import numpy as np
import torch

from clipbert_cli.errors import ClipbertError, DecodeError
from clipbert_cli.media.backend import PYAV, Decoder
from clipbert_cli.media.canvas import channels_first, channels_last, check_aspect_ratio, resize_pad
from clipbert_cli.media.dali.clips import EncodedClips, image_segment, video_segments
from clipbert_cli.media.ffmpeg import MAX_PIXELS, check_pixels, limited_to
from clipbert_cli.media.frames import decode_canvas
from clipbert_cli.media.images import decode_image, jpeg_size
from clipbert_cli.media.packets import Buffer, PacketTable
from clipbert_cli.media.sampling import ClipSampling, select
from clipbert_cli.store.source import MediaSource, named
from clipbert_cli.types import Batch, Example, Group, Rotation, Texts, VideoInfo

OnBadMedia = Literal["error", "skip", "replace", "report"]

# More bad media items in a row than this are no accident: the position fails.
_MAX_REPLACEMENTS = 20


@dataclass(frozen=True, slots=True)
class Position:
    """A group's index and the epoch that reads it; together with the seed they decide every random draw."""

    epoch: int
    index: int


@dataclass(frozen=True, slots=True)
class Item:
    """One group and its clips.

    Args:
        frames: (K, T, 3, S, S) uint8 RGB, channels last in memory; or the encoded clips, if DALI decodes them.
        instead_of: the items that were drawn for this position before, whose media cannot be used.
    """

    position: Position
    group: Group
    frames: torch.Tensor | EncodedClips
    instead_of: tuple[FailedItem, ...] = ()


@dataclass(frozen=True, slots=True)
class FailedItem:
    """One group whose media item cannot be used, or whose store cannot be read."""

    position: Position
    group: Group
    error: ClipbertError


@dataclass(frozen=True, slots=True)
class MediaSettings:
    """The settings that turn a media item into frames.

    Args:
        sampling: which clips are taken from a video.
        frame_size: side of the square canvas in pixels.
        max_pixels: images and frames with more pixels are refused.
        rotation: whether videos and images are turned upright, as their file says; the original does not.
        black_frames: replace every frame by a black one, for a baseline that sees nothing.
        decoder: the run's decoder; also decides the colour conversion.
        pyav_only: let PyAV decode everything, in the colours of `decoder`.
    """

    sampling: ClipSampling
    frame_size: int
    max_pixels: int = MAX_PIXELS
    rotation: Rotation = "apply"
    black_frames: bool = False
    decoder: Decoder = PYAV
    pyav_only: bool = False

    @property
    def uses_dali(self) -> bool:
        """True if clips that DALI can decode stay encoded, for the process that owns the GPU."""
        return self.decoder.name == "dali" and not self.pyav_only and not self.black_frames


@dataclass(eq=False, repr=False)
class GroupDataset:
    """The groups of one split; an item decodes the group's media item and samples its clips.

    With `on_bad_media="replace"` another group takes the place of one whose media item fails, drawn by (seed, epoch,
    index) alone. `draw` is what the task draws anew from a group's texts each time, such as a negative caption.
    """

    # A failure is returned as `FailedItem` instead of being raised, because an exception loses its type between
    # processes. The loader decides what happens.

    groups: Sequence[Group]
    source: MediaSource
    settings: MediaSettings
    _: KW_ONLY
    seed: int
    on_bad_media: OnBadMedia = "error"
    draw: Callable[[Group, np.random.Generator], Group] | None = None

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, position: Position) -> Item | FailedItem:
        drawn = (self.seed, position.epoch, position.index)
        item = self._load(position, self.groups[position.index], np.random.default_rng(drawn))
        bad: list[FailedItem] = []
        while isinstance(item, FailedItem) and self.on_bad_media == "replace" and len(bad) < _MAX_REPLACEMENTS:
            # A store that cannot be read is no bad media item: replacing it would hide that the disk is gone.
            if not isinstance(item.error, DecodeError):
                break
            bad.append(item)
            # The number after `drawn` separates this draw from that of the texts below.
            rng = np.random.default_rng((*drawn, 2, len(bad)))
            item = self._load(position, self.groups[int(rng.integers(len(self.groups)))], rng)
        if isinstance(item, FailedItem):
            return item
        group = item.group
        if self.draw is not None:
            group = self.draw(group, np.random.default_rng((*drawn, 1)))
        return Item(position, group, item.frames, tuple(bad))

    def _load(self, position: Position, group: Group, rng: np.random.Generator) -> Item | FailedItem:
        try:
            return Item(position, group, load_clips(self.source, group.media_id, self.settings, rng))
        except ClipbertError as exc:
            return FailedItem(position, group, exc)


def load_clips(
    source: MediaSource, media_id: str, settings: MediaSettings, rng: np.random.Generator | None
) -> torch.Tensor | EncodedClips:
    """Return a media item's clips, (K, T, 3, S, S) uint8 RGB; an image is one clip of one frame.

    If DALI decodes them, the encoded clips are returned.

    Raises:
        DecodeError: the item cannot be used; the message names it.
        StoreError: the item does not exist, or the store is broken.
    """
    with named(source, media_id), limited_to(settings.max_pixels):
        info = source.info(media_id)
        with source.reading(media_id) as data:
            if info is None:
                clips = _image_clips(data, settings, checksum=source.checksum(media_id))
            else:
                table = source.packets(media_id)
                # A packet table has a checksum per packet, so the packets that are not needed are not read.
                if table is None:
                    _check_bytes(data, source.checksum(media_id))
                clips = _video_clips(data, settings, rng, info=info, table=table)
    if isinstance(clips, torch.Tensor) and settings.black_frames:
        return torch.zeros_like(clips)
    return clips


def _image_clips(data: Buffer, settings: MediaSettings, *, checksum: int | None) -> torch.Tensor | EncodedClips:
    _check_bytes(data, checksum)
    # DALI decodes damaged files without an error. A checksum means that the file decoded when it was packed.
    if settings.uses_dali and checksum is not None and (size := jpeg_size(data, rotation=settings.rotation)):
        return image_segment(data, height=size[0], width=size[1])
    pixels = decode_image(data, rotation=settings.rotation)
    return resize_pad(pixels[None], settings.frame_size)[None]  # (1, 1, 3, S, S)


def _video_clips(
    data: Buffer,
    settings: MediaSettings,
    rng: np.random.Generator | None,
    *,
    info: VideoInfo,
    table: PacketTable | None,
) -> torch.Tensor | EncodedClips:
    check_aspect_ratio(info.height, info.width)
    check_pixels(info.width, info.height)
    if settings.rotation == "ignore":
        info = dataclasses.replace(info, orientation=1)
    clips = select(info, settings.sampling, rng)
    decoder = settings.decoder
    if settings.uses_dali and table is not None:
        encoded = video_segments(data, clips, info=info, table=table, decoder=decoder)
        if encoded is not None:
            return encoded
    return decode_canvas(
        data,
        clips,
        settings.frame_size,
        info=info,
        packets=table,
        colours=decoder.colours,
    )


def _check_bytes(data: Buffer, checksum: int | None) -> None:
    """Raise `DecodeError` if the bytes do not have this checksum; None if it is unknown."""
    if checksum is not None and zlib.crc32(data) != checksum:
        raise DecodeError("its bytes are not those that were packed")


CollateTexts = Callable[[Sequence[Example]], Texts]
"""Makes the text rows of a batch's examples: the task's `collate`."""

Allocate = Callable[[tuple[int, ...]], torch.Tensor]
"""Returns a uint8 tensor of a shape, whose values are written later."""


@dataclass(frozen=True, slots=True)
class LoadedBatch:
    """A batch of the usable items, and the items that are not usable.

    Args:
        batch: its frames are those of the items that are not in `encoded`, in their order; (0,) uint8 without any.
        failed: items without any usable media item.
        replaced: items in whose place another group is in the batch.
        positions: those of all items, in their order, failed ones included.
        encoded: the clips that DALI has to decode, by the number of their item in `batch`.
    """

    batch: Batch
    failed: tuple[FailedItem, ...]
    replaced: tuple[FailedItem, ...]
    positions: tuple[Position, ...]
    encoded: Mapping[int, EncodedClips] = field(default_factory=dict)

    def with_frames(self, frames: torch.Tensor) -> LoadedBatch:
        """Return it with other frames."""
        return dataclasses.replace(self, batch=dataclasses.replace(self.batch, frames=frames))


def collate(items: Sequence[Item | FailedItem], texts: CollateTexts, allocate: Allocate | None = None) -> LoadedBatch:
    """Return the batch of B usable items, whose text rows `texts` makes; B may be 0.

    Args:
        allocate: where the frames are written, as `stack_frames`.
    """
    usable = [item for item in items if isinstance(item, Item)]
    examples = tuple(example for item in usable for example in item.group.examples)
    text_item = [number for number, item in enumerate(usable) for each in item.group.examples for _ in each.texts]
    rows = texts(examples)
    frames = [item.frames for item in usable if isinstance(item.frames, torch.Tensor)]
    batch = Batch(
        frames=stack_frames(frames, allocate) if frames else torch.zeros(0, dtype=torch.uint8),  # (B, K, T, 3, S, S)
        text_ids=rows.ids,
        text_mask=rows.mask,
        text_item=torch.tensor(text_item, dtype=torch.long),
        examples=examples,
        targets=rows.targets,
        word_positions=rows.word_positions,
        media_ids=tuple(item.group.media_id for item in usable),
    )
    return LoadedBatch(
        batch,
        failed=tuple(item for item in items if isinstance(item, FailedItem)),
        replaced=tuple(bad for item in usable for bad in item.instead_of),
        positions=tuple(item.position for item in items),
        encoded={number: item.frames for number, item in enumerate(usable) if isinstance(item.frames, EncodedClips)},
    )


def stack_frames(frames: Sequence[torch.Tensor], allocate: Allocate | None = None) -> torch.Tensor:
    """Stack B times (K, T, 3, S, S) to (B, K, T, 3, S, S), channels last in memory as before.

    Args:
        allocate: makes the memory, (B, K, T, S, S, 3); by default it is torch's own.
    """
    rows = [channels_last(each) for each in frames]
    return channels_first(torch.stack(rows, out=allocate((len(rows), *rows[0].shape)) if allocate else None))
