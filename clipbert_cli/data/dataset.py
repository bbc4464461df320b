"""Groups of examples with their decoded clips: what a loading process makes of one position of the data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeGuard

import numpy as np
import torch
from torch.utils.data import Dataset

from clipbert_cli.batch import Group
from clipbert_cli.data.decode import decode_canvas
from clipbert_cli.data.images import decode_image
from clipbert_cli.data.sampling import ClipSampling, select
from clipbert_cli.data.store import MediaSource
from clipbert_cli.data.transforms import check_aspect_ratio, resize_pad
from clipbert_cli.data.video import MAX_PIXELS
from clipbert_cli.errors import ClipbertError, DecodeError

OnBadMedia = Literal["error", "skip", "replace", "report"]

_REPLACEMENTS = 20
"""Draws before a position is given up: more than that many bad ones in a row are no accident."""


@dataclass(frozen=True, slots=True)
class BadMedia:
    """A media item that cannot be used, and why."""

    media_id: str
    error: DecodeError


@dataclass(frozen=True, slots=True)
class Item:
    """One group and its clips, (K, T, 3, S, S) uint8 RGB; `instead_of` names those that it replaces."""

    group: Group
    frames: torch.Tensor
    instead_of: tuple[BadMedia, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """One group whose media item failed."""

    group: Group
    error: ClipbertError


@dataclass(frozen=True, slots=True)
class Position:
    """Which group in which epoch; together with the seed it decides every random draw."""

    epoch: int
    index: int


@dataclass(frozen=True, slots=True)
class MediaSettings:
    """How a media item becomes frames.

    Args:
        sampling: which clips of a video.
        frame_size: side of the square canvas in pixels.
        max_pixels: larger pictures and frames are refused.
        exif_rotation: turn pictures as their EXIF data say (the original does not).
        black_frames: every frame is black, for a baseline that sees nothing.
    """

    sampling: ClipSampling
    frame_size: int
    max_pixels: int = MAX_PIXELS
    exif_rotation: bool = False
    black_frames: bool = False


def load_frames(
    source: MediaSource, media_id: str, settings: MediaSettings, rng: np.random.Generator | None
) -> torch.Tensor:
    """A media item's clips, (K, T, 3, S, S) uint8 RGB; an image is one clip of one frame.

    Raises:
        DecodeError: the item cannot be used; the message names it.
        StoreError: it is not there, or the store is broken.
    """
    try:
        info = source.info(media_id)
        with source.reading(media_id) as data:
            if info is None:
                pixels = decode_image(data, max_pixels=settings.max_pixels, exif_rotation=settings.exif_rotation)
                frames = resize_pad(pixels[None], settings.frame_size)[None]
            else:
                check_aspect_ratio(info.height, info.width)
                frames = decode_canvas(
                    data,
                    select(info, settings.sampling, rng),
                    settings.frame_size,
                    info=info,
                    packets=source.packets(media_id),
                    max_pixels=settings.max_pixels,
                )
    except DecodeError as exc:
        raise DecodeError(f"{source.locate(media_id)}: {exc}", hint=exc.hint) from exc
    return torch.zeros_like(frames) if settings.black_frames else frames


class GroupDataset(Dataset[Item | Failed]):
    """Decodes a group's media item and samples its clips.

    `draw` is what the task draws anew of a group's texts each time it is read.

    A media item that fails is returned as `Failed`, not raised: an exception that crosses a process boundary loses
    its type, and `loader.py` decides what becomes of it. With `on_bad_media="replace"` another group takes its place,
    drawn by (seed, epoch, index) alone.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        source: MediaSource,
        settings: MediaSettings,
        *,
        seed: int,
        on_bad_media: OnBadMedia = "error",
        draw: Callable[[Group, np.random.Generator], Group] | None = None,
    ) -> None:
        self.groups = groups
        self.source = source
        self.settings = settings
        self.seed = seed
        self.on_bad_media = on_bad_media
        self.draw = draw

    @property
    def parts(self) -> Sequence[GroupDataset]:
        """This one alone, see `mixture.MixedDataset`."""
        return (self,)

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, position: Position) -> Item | Failed:
        drawn = (self.seed, position.epoch, position.index)
        item = self._load(self.groups[position.index], np.random.default_rng(drawn))
        bad: list[BadMedia] = []
        while isinstance(item, Failed) and self._replaces(item.error) and len(bad) < _REPLACEMENTS:
            bad.append(BadMedia(item.group.media_id, item.error))
            rng = np.random.default_rng((*drawn, 2, len(bad)))
            item = self._load(self.groups[int(rng.integers(len(self.groups)))], rng)
        if isinstance(item, Failed):
            return item
        group = item.group
        if self.draw is not None:
            group = self.draw(group, np.random.default_rng((*drawn, 1)))
        return Item(group, item.frames, tuple(bad))

    def _replaces(self, error: ClipbertError) -> TypeGuard[DecodeError]:
        return self.on_bad_media == "replace" and isinstance(error, DecodeError)

    def _load(self, group: Group, rng: np.random.Generator) -> Item | Failed:
        try:
            return Item(group, load_frames(self.source, group.media_id, self.settings, rng))
        except ClipbertError as exc:
            return Failed(group, exc)
