"""Groups of examples with their decoded clips: what a loading process makes of one position of the data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from clipbert_cli.batch import Group
from clipbert_cli.data.decode import decode_clips
from clipbert_cli.data.sampling import ClipSampling
from clipbert_cli.data.store import MediaSource
from clipbert_cli.data.transforms import resize_pad
from clipbert_cli.errors import ClipbertError, DecodeError


@dataclass(frozen=True, slots=True)
class Item:
    """One group and its clips, (K, T, 3, S, S) uint8 RGB."""

    group: Group
    frames: torch.Tensor


@dataclass(frozen=True, slots=True)
class Position:
    """Which group in which epoch; together with the seed it decides every random draw."""

    epoch: int
    index: int


class GroupDataset(Dataset[Item | ClipbertError]):
    """Decodes a group's media item and samples its clips.

    `draw` is what the task draws anew of a group's texts each time it is read.

    A media item that fails is returned as its error, not raised: an exception that crosses a process boundary loses
    its type, and `loader.py` decides what becomes of it.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        source: MediaSource,
        *,
        sampling: ClipSampling,
        frame_size: int,
        seed: int,
        black_frames: bool = False,
        draw: Callable[[Group, np.random.Generator], Group] | None = None,
    ) -> None:
        self.groups = groups
        self.source = source
        self.sampling = sampling
        self.frame_size = frame_size
        self.seed = seed
        self.black_frames = black_frames
        self.draw = draw

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, position: Position) -> Item | ClipbertError:
        group = self.groups[position.index]
        try:
            clips = self._clips(group.media_id, np.random.default_rng((self.seed, position.epoch, position.index)))
        except DecodeError as exc:
            return DecodeError(f"{self.source.locate(group.media_id)}: {exc}", hint=exc.hint)
        except ClipbertError as exc:
            return exc
        if self.draw is not None:
            group = self.draw(group, np.random.default_rng((self.seed, position.epoch, position.index, 1)))
        return Item(group, clips)

    def _clips(self, media_id: str, rng: np.random.Generator) -> torch.Tensor:
        clips = decode_clips(
            self.source.read(media_id),
            self.sampling,
            kind=self.source.kind,
            info=self.source.info(media_id),
            rng=rng,
        )  # (K, T, h, w, 3)
        num_clips, num_frames = clips.shape[:2]
        frames = resize_pad(clips.reshape(-1, *clips.shape[2:]), self.frame_size, dtype=torch.uint8)  # (K*T, 3, S, S)
        if self.black_frames:
            frames = torch.zeros_like(frames)
        return frames.view(num_clips, num_frames, *frames.shape[1:])  # (K, T, 3, S, S)
