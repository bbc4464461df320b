"""What a loading process hands over: a batch of what is good, and what is not."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from clipbert_cli.loading.collate import Collate
from clipbert_cli.loading.dataset import BadMedia, Failed, Item, MediaSettings, Position
from clipbert_cli.media.dali.clips import EncodedClips
from clipbert_cli.types import Batch


@dataclass(frozen=True, slots=True)
class Loaded:
    """A batch of what is good, and what is not.

    Where DALI is to decode, the batch has no frames yet and `clips` holds what becomes of each of its items.
    `positions` are all those of the batch, the failed ones included.
    """

    batch: Batch
    failed: tuple[Failed, ...]
    replaced: tuple[BadMedia, ...]
    positions: tuple[Position, ...]
    clips: tuple[torch.Tensor | EncodedClips, ...] = ()

    def pin_memory(self) -> Loaded:
        """The hook torch's DataLoader calls."""
        return dataclasses.replace(self, batch=self.batch.pin_memory())


class CollateGood:
    """Collates the items that did not fail. A batch of nothing has frames of shape (0, K, T, 3, S, S)."""

    def __init__(self, collate: Collate, settings: MediaSettings) -> None:
        self.collate = collate
        self.settings = settings

    def __call__(self, items: Sequence[Item | Failed]) -> Loaded:
        good = [item for item in items if isinstance(item, Item)]
        encoded = any(isinstance(item.frames, EncodedClips) for item in good)
        return Loaded(
            self.collate(good) if good else self._empty(),
            tuple(item for item in items if isinstance(item, Failed)),
            tuple(bad for item in good for bad in item.instead_of),
            tuple(item.position for item in items),
            tuple(item.frames for item in good) if encoded else (),
        )

    def _empty(self) -> Batch:
        sampling, size = self.settings.sampling, self.settings.frame_size
        none = torch.zeros((0, 1), dtype=torch.int64)
        return Batch(
            frames=torch.zeros((0, sampling.num_clips, sampling.num_frames, 3, size, size), dtype=torch.uint8),
            text_ids=none,
            text_mask=none.bool(),
            text_item=none[:, 0],
            examples=(),
        )
