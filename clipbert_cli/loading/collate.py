"""Items to one Batch: frames stacked, texts as the task makes them, every text row tied to its media."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import default_collate

from clipbert_cli.loading.dataset import BadMedia, Failed, Item, MediaSettings, Position
from clipbert_cli.media.canvas import channels_first, channels_last
from clipbert_cli.media.dali.clips import EncodedClips
from clipbert_cli.types import Batch, Example, Texts

_NO_FRAMES = torch.zeros(0, dtype=torch.uint8)


class Collate:
    """Callable for the loading processes.

    Args:
        texts: makes the text rows of a batch's examples: the task's `collate`.
    """

    def __init__(self, texts: Callable[[Sequence[Example]], Texts]) -> None:
        self.texts = texts

    def __call__(self, good: Sequence[Item]) -> Batch:
        """A batch of B items; without frames, (0,), where not all of them are decoded."""
        examples = tuple(example for item in good for example in item.group.examples)
        text_item = [
            number for number, item in enumerate(good) for example in item.group.examples for _ in example.texts
        ]
        texts = self.texts(examples)
        frames = [item.frames for item in good if isinstance(item.frames, torch.Tensor)]
        return Batch(
            frames=stack_frames(frames) if len(frames) == len(good) else _NO_FRAMES,  # (B, K, T, 3, S, S)
            text_ids=texts.ids,
            text_mask=texts.mask,
            text_item=torch.tensor(text_item, dtype=torch.long),
            examples=examples,
            targets=texts.targets,
            media_ids=tuple(item.group.media_id for item in good),
        )


def stack_frames(frames: Sequence[torch.Tensor]) -> torch.Tensor:
    """B times (K, T, 3, S, S) -> (B, K, T, 3, S, S), channels last in memory as theirs are; in a loading process the
    memory is one that can be handed over as it is."""
    stacked: torch.Tensor = default_collate([channels_last(each) for each in frames])
    return channels_first(stacked)


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
