"""Items to one Batch: frames stacked, texts tokenised and padded to the longest, every text row tied to its media."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from clipbert_cli.batch import Batch, Example
from clipbert_cli.data.dataset import Item
from clipbert_cli.data.tokenizer import Tokenizer

CollateTargets = Callable[[Sequence[Example]], Mapping[str, torch.Tensor]]


class Collate:
    """Callable for the loading processes.

    Args:
        tokenizer: makes ids of texts.
        targets: the task's `collate_targets`, or None where there are no targets to learn from.
    """

    def __init__(self, tokenizer: Tokenizer, targets: CollateTargets | None) -> None:
        self.tokenizer = tokenizer
        self.targets = targets

    def __call__(self, good: Sequence[Item]) -> Batch:
        """A batch of B items."""
        examples = tuple(example for item in good for example in item.group.examples)
        text_item = [
            number for number, item in enumerate(good) for example in item.group.examples for _ in example.texts
        ]
        ids, mask = self.tokenizer([text for example in examples for text in example.texts])
        return Batch(
            frames=torch.stack([item.frames for item in good]),  # (B, K, T, 3, S, S)
            text_ids=torch.from_numpy(ids),
            text_mask=torch.from_numpy(mask),
            text_item=torch.tensor(text_item),
            examples=examples,
            targets=self.targets(examples) if self.targets else {},
        )
