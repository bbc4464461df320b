"""Items to one Batch: frames stacked, texts as the task makes them, every text row tied to its media."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.utils.data import default_collate

from clipbert_cli.loading.dataset import Item
from clipbert_cli.media.canvas import channels_first, channels_last
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
