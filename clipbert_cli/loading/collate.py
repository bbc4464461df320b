"""Make one Batch of several items: frames stacked, text rows made by the task, each row linked to its media item.

B media items, K clips, T frames, S canvas side, N text rows, L text tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import default_collate

from clipbert_cli.loading.dataset import BadMedia, FailedItem, Item, Position
from clipbert_cli.media.canvas import channels_first, channels_last
from clipbert_cli.media.dali.clips import EncodedClips
from clipbert_cli.types import Batch, Example, Texts

CollateTexts = Callable[[Sequence[Example]], Texts]
"""Makes the text rows of a batch's examples: the task's `collate`."""


@dataclass(frozen=True, slots=True)
class LoadedBatch:
    """A batch of the usable items, and the items that are not usable.

    Args:
        batch: without frames, (0,) uint8, if there are no usable items, and as long as `clips` is not empty.
        failed: items without any usable media item.
        replaced: media items in whose place another group is in the batch.
        positions: those of all items, in their order, failed ones included.
        clips: one entry per item of `batch` if DALI has to decode some of them, else empty.
    """

    batch: Batch
    failed: tuple[FailedItem, ...]
    replaced: tuple[BadMedia, ...]
    positions: tuple[Position, ...]
    clips: tuple[torch.Tensor | EncodedClips, ...] = ()

    def pin_memory(self) -> LoadedBatch:
        """Return it with the batch in page-locked memory. The DataLoader of torch calls this hook."""
        return dataclasses.replace(self, batch=self.batch.pin_memory())


def collate(items: Sequence[Item | FailedItem], texts: CollateTexts) -> LoadedBatch:
    """Return the batch of B usable items, whose text rows `texts` makes; B may be 0. The loading processes call it."""
    usable = [item for item in items if isinstance(item, Item)]
    encoded = any(isinstance(item.frames, EncodedClips) for item in usable)
    return LoadedBatch(
        _batch(usable, texts, encoded=encoded),
        failed=tuple(item for item in items if isinstance(item, FailedItem)),
        replaced=tuple(bad for item in usable for bad in item.instead_of),
        positions=tuple(item.position for item in items),
        clips=tuple(item.frames for item in usable) if encoded else (),
    )


def _batch(items: Sequence[Item], texts: CollateTexts, *, encoded: bool) -> Batch:
    examples = tuple(example for item in items for example in item.group.examples)
    text_item = [number for number, item in enumerate(items) for example in item.group.examples for _ in example.texts]
    rows = texts(examples)
    frames = [] if encoded else [item.frames for item in items if isinstance(item.frames, torch.Tensor)]
    return Batch(
        frames=stack_frames(frames) if frames else torch.zeros(0, dtype=torch.uint8),  # (B, K, T, 3, S, S)
        text_ids=rows.ids,
        text_mask=rows.mask,
        text_item=torch.tensor(text_item, dtype=torch.long),
        examples=examples,
        targets=rows.targets,
        word_positions=rows.word_positions,
        media_ids=tuple(item.group.media_id for item in items),
    )


def stack_frames(frames: Sequence[torch.Tensor]) -> torch.Tensor:
    """Stack B times (K, T, 3, S, S) to (B, K, T, 3, S, S), channels last in memory as before."""
    # In a loading process `default_collate` writes into shared memory, so that the batch is not copied again when it is
    # sent to the main process.
    stacked: torch.Tensor = default_collate([channels_last(each) for each in frames])
    return channels_first(stacked)
