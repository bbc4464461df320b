"""Groups of examples with their decoded clips: what a loading process makes of one position of the data."""

from __future__ import annotations

import copy
import dataclasses
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeGuard

import numpy as np
import torch
from torch.utils.data import Dataset

from clipbert_cli.errors import ClipbertError, DecodeError
from clipbert_cli.media.backend import PYAV, Decoder
from clipbert_cli.media.canvas import check_aspect_ratio, resize_pad
from clipbert_cli.media.dali.clips import EncodedClips, image_piece, video_pieces
from clipbert_cli.media.ffmpeg import MAX_PIXELS, check_pixels
from clipbert_cli.media.frames import Encoded, decode_canvas
from clipbert_cli.media.images import decode_image, jpeg_size
from clipbert_cli.media.packets import PacketTable
from clipbert_cli.media.sampling import ClipSampling, select
from clipbert_cli.store.source import MediaSource
from clipbert_cli.types import Group, VideoInfo

OnBadMedia = Literal["error", "skip", "replace", "report"]

_REPLACEMENTS = 20
"""Draws before a position is given up: more than that many bad ones in a row are no accident."""


@dataclass(frozen=True, slots=True)
class Position:
    """Which group in which epoch; together with the seed it decides every random draw."""

    epoch: int
    index: int


@dataclass(frozen=True, slots=True)
class BadMedia:
    """A media item that cannot be used, and why."""

    media_id: str
    error: DecodeError


@dataclass(frozen=True, slots=True)
class Item:
    """One group and its clips, (K, T, 3, S, S) uint8 RGB, channels last in memory, or what DALI is to decode;
    `instead_of` names those that it replaces at its `position`."""

    position: Position
    group: Group
    frames: torch.Tensor | EncodedClips
    instead_of: tuple[BadMedia, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """One group whose media item failed."""

    position: Position
    group: Group
    error: ClipbertError


@dataclass(frozen=True, slots=True)
class MediaSettings:
    """How a media item becomes frames.

    Args:
        sampling: which clips of a video.
        frame_size: side of the square canvas in pixels.
        max_pixels: larger pictures and frames are refused.
        exif_rotation: turn pictures as their EXIF data say (the original does not).
        black_frames: every frame is black, for a baseline that sees nothing.
        decoder: of the run; decides colours, and what is handed over undecoded.
        pyav_only: hand nothing over.
    """

    sampling: ClipSampling
    frame_size: int
    max_pixels: int = MAX_PIXELS
    exif_rotation: bool = False
    black_frames: bool = False
    decoder: Decoder = PYAV
    pyav_only: bool = False

    @property
    def hands_over(self) -> bool:
        """Whether DALI decodes what it can."""
        return self.decoder.name == "dali" and not self.pyav_only and not self.black_frames


def load_clips(
    source: MediaSource, media_id: str, settings: MediaSettings, rng: np.random.Generator | None
) -> torch.Tensor | EncodedClips:
    """A media item's clips, (K, T, 3, S, S) uint8 RGB; an image is one clip of one frame. Not decoded yet where
    `settings.decoder` is DALI and takes them.

    Raises:
        DecodeError: the item cannot be used; the message names it.
        StoreError: it is not there, or the store is broken.
    """
    try:
        info = source.info(media_id)
        with source.reading(media_id) as data:
            if info is None:
                clips = _image_clips(data, settings, checksum=source.checksum(media_id))
            else:
                table = source.packets(media_id)
                if table is None:  # the table has checksums of its own
                    _check_bytes(data, source.checksum(media_id))
                clips = _video_clips(data, settings, rng, info=info, table=table)
    except DecodeError as exc:
        raise DecodeError(f"{source.locate(media_id)}: {exc}", hint=exc.hint) from exc
    if isinstance(clips, torch.Tensor) and settings.black_frames:
        return torch.zeros_like(clips)
    return clips


def _image_clips(data: Encoded, settings: MediaSettings, *, checksum: int | None) -> torch.Tensor | EncodedClips:
    _check_bytes(data, checksum)
    limit, turn = settings.max_pixels, settings.exif_rotation
    # DALI shows damaged files in silence, so it gets those alone that decoded when they were packed.
    if settings.hands_over and checksum is not None and (size := jpeg_size(data, max_pixels=limit, exif_rotation=turn)):
        return image_piece(data, height=size[0], width=size[1])
    pixels = decode_image(data, max_pixels=limit, exif_rotation=turn)
    return resize_pad(pixels[None], settings.frame_size)[None]


def _video_clips(
    data: Encoded,
    settings: MediaSettings,
    rng: np.random.Generator | None,
    *,
    info: VideoInfo,
    table: PacketTable | None,
) -> torch.Tensor | EncodedClips:
    check_aspect_ratio(info.height, info.width)
    check_pixels(info.width, info.height, settings.max_pixels)
    clips = select(info, settings.sampling, rng)
    if settings.hands_over and table is not None:
        pieces = video_pieces(data, clips, info=info, table=table, place=settings.decoder.place)
        if pieces is not None:
            return pieces
    return decode_canvas(
        data,
        clips,
        settings.frame_size,
        info=info,
        packets=table,
        max_pixels=settings.max_pixels,
        colours=settings.decoder.colours,
    )


def _check_bytes(data: Encoded, checksum: int | None) -> None:
    """
    Raises:
        DecodeError: the bytes are not those that had this checksum.
    """
    if checksum is not None and zlib.crc32(data) != checksum:
        raise DecodeError("its bytes are not those that were packed")


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
        item = self._load(position, self.groups[position.index], np.random.default_rng(drawn))
        bad: list[BadMedia] = []
        while isinstance(item, Failed) and self._replaces(item.error) and len(bad) < _REPLACEMENTS:
            bad.append(BadMedia(item.group.media_id, item.error))
            rng = np.random.default_rng((*drawn, 2, len(bad)))
            item = self._load(position, self.groups[int(rng.integers(len(self.groups)))], rng)
        if isinstance(item, Failed):
            return item
        group = item.group
        if self.draw is not None:
            group = self.draw(group, np.random.default_rng((*drawn, 1)))
        return Item(position, group, item.frames, tuple(bad))

    def with_pyav_only(self) -> GroupDataset:
        """The same data, everything decoded where it is read."""
        other = copy.copy(self)
        other.settings = dataclasses.replace(self.settings, pyav_only=True)
        return other

    def _replaces(self, error: ClipbertError) -> TypeGuard[DecodeError]:
        return self.on_bad_media == "replace" and isinstance(error, DecodeError)

    def _load(self, position: Position, group: Group, rng: np.random.Generator) -> Item | Failed:
        try:
            return Item(position, group, load_clips(self.source, group.media_id, self.settings, rng))
        except ClipbertError as exc:
            return Failed(position, group, exc)
