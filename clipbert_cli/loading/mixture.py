"""Several training splits mixed: which groups an epoch reads, and in which order, so that every step is of one split.

    two splits of 5 and 3 groups, steps of 2     a3 a0 | b1 b2 | a4 a1 | b0 b1' | a2 a0'

A split whose groups do not fill its last step starts over (b1', a0'); one split alone is read exactly once.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Dataset

from clipbert_cli.loading.dataset import Failed, GroupDataset, Item, Position


@dataclass(frozen=True)
class Mixture:
    """How an epoch is put together.

    Args:
        sizes: groups of each split.
        step_size: groups of a step, of all processes and passes together.
        ratios: how often each split is drawn; None: in proportion to `sizes`, so that an epoch reads each about once.
    """

    sizes: Sequence[int]
    step_size: int
    ratios: Sequence[float] | None = None

    @property
    def counts(self) -> list[int]:
        """Groups that an epoch reads of each split; of several splits a multiple of `step_size`."""
        if len(self.sizes) == 1:
            return list(self.sizes)
        ratios = self.ratios or self.sizes
        wanted = [sum(self.sizes) * ratio / sum(ratios) for ratio in ratios]
        return [max(1, -(-round(count) // self.step_size)) * self.step_size for count in wanted]

    def __len__(self) -> int:
        """Groups of an epoch."""
        return sum(self.counts)

    def order(self, *, seed: int, epoch: int) -> list[int]:
        """Positions in the concatenated splits; depends on (seed, epoch) alone.

        A split that is drawn more often than it has groups is read whole before any of its groups comes again.
        """
        if len(self.sizes) == 1:
            alone: list[int] = np.random.default_rng((seed, epoch)).permutation(self.sizes[0]).tolist()
            return alone
        steps = []
        first = 0
        for number, (size, count) in enumerate(zip(self.sizes, self.counts, strict=True)):
            rng = np.random.default_rng((seed, epoch, 1 + number))
            rounds = [rng.permutation(size) for _ in range(-(-count // size))]
            drawn = first + np.concatenate(rounds)[:count]  # (count,)
            steps += list(drawn.reshape(-1, self.step_size))
            first += size
        shuffled = np.random.default_rng((seed, epoch, 0)).permutation(len(steps))
        return [int(position) for number in shuffled for position in steps[number]]


class MixedDataset(Dataset[Item | Failed]):
    """The splits behind each other, each with its own media."""

    def __init__(self, parts: Sequence[GroupDataset]) -> None:
        self.parts = parts
        self.starts = list(itertools.accumulate((len(part) for part in parts), initial=0))

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, position: Position) -> Item | Failed:
        part = bisect.bisect_right(self.starts, position.index) - 1
        item = self.parts[part][Position(position.epoch, position.index - self.starts[part])]
        return dataclasses.replace(item, position=position)

    def with_pyav_only(self) -> MixedDataset:
        """The same data, everything decoded where it is read."""
        return MixedDataset([part.with_pyav_only() for part in self.parts])
