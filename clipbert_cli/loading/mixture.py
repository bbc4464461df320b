"""A mixture of training splits: the groups that an epoch reads, and their order, so that every step is of one split.

    splits a and b of 5 and 3 groups, steps of 2 groups     a3 a0 | b1 b2 | a4 a1 | b0 b1' | a2 a0'

A split whose groups do not fill its last step starts again (b1', a0'). A single split is read exactly once.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from clipbert_cli.loading.dataset import FailedItem, GroupDataset, Item, Position


@dataclass(frozen=True)
class Mixture:
    """The composition of an epoch.

    Args:
        sizes: groups of each split.
        step_size: groups per step, over all processes and passes.
    """

    sizes: Sequence[int]
    step_size: int

    @property
    def counts(self) -> list[int]:
        """Groups of each split that an epoch reads; multiples of `step_size` if there are several splits."""
        if len(self.sizes) == 1:
            return list(self.sizes)
        return [-(-size // self.step_size) * self.step_size for size in self.sizes]

    def __len__(self) -> int:
        """Return the number of groups that an epoch reads."""
        return sum(self.counts)

    def order(self, *, seed: int, epoch: int) -> list[int]:
        """Return an epoch's groups as positions in the concatenated splits. It depends on (seed, epoch) alone.

        All groups of a split are read before any of them is read again.
        """
        if len(self.sizes) == 1:
            single: list[int] = np.random.default_rng((seed, epoch)).permutation(self.sizes[0]).tolist()
            return single
        steps = []
        first = 0
        for number, (size, count) in enumerate(zip(self.sizes, self.counts, strict=True)):
            # The last number separates the draws of the splits from each other and from that of the steps, 0.
            rng = np.random.default_rng((seed, epoch, 1 + number))
            rounds = [rng.permutation(size) for _ in range(-(-count // size))]
            drawn = first + np.concatenate(rounds)[:count]  # (count,)
            steps += list(drawn.reshape(-1, self.step_size))
            first += size
        shuffled = np.random.default_rng((seed, epoch, 0)).permutation(len(steps))
        return [int(position) for number in shuffled for position in steps[number]]


class MixedDataset:
    """One split, or several ones after each other, each with its own media."""

    def __init__(self, parts: Sequence[GroupDataset]) -> None:
        self.parts = parts
        self.starts = list(itertools.accumulate((len(part) for part in parts), initial=0))

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, position: Position) -> Item | FailedItem:
        part = bisect.bisect_right(self.starts, position.index) - 1
        item = self.parts[part][Position(position.epoch, position.index - self.starts[part])]
        return replace(item, position=position)

    def with_pyav_only(self) -> MixedDataset:
        """Return the same data, with PyAV decoding everything."""
        return MixedDataset([replace(part, settings=replace(part.settings, pyav_only=True)) for part in self.parts])
