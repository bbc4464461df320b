"""The order in which one process reads groups: shuffled and divided into steps for training, in sequence otherwise."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import KW_ONLY, dataclass

from clipbert_cli.loading.dataset import Position
from clipbert_cli.loading.mixture import Mixture
from clipbert_cli.loading.step_layout import StepLayout
from clipbert_cli.types import ALONE, Shard


@dataclass(frozen=True, eq=False)
class TrainingBatches:
    """One process's training batches, step by step, over the epochs of a mixture.

    A process without a group in a step gets the step's first group: without a batch it could not take part in the
    reduction of gradients. Its loss counts zero times (`train/loop.py`).

    Args:
        batch_size: largest number of groups per batch.
        after: number of steps that are already done.
    """

    mixture: Mixture
    _: KW_ONLY
    batch_size: int
    epochs: int
    seed: int
    shard: Shard = ALONE
    after: int = 0

    def __iter__(self) -> Iterator[list[Position]]:
        layout = StepLayout(len(self.mixture), self.mixture.step_size, self.batch_size)
        per_epoch = layout.steps_per_epoch
        for epoch in range(self.after // per_epoch, self.epochs):
            order = self.mixture.order(seed=self.seed, epoch=epoch)
            for step in range(max(self.after, epoch * per_epoch) + 1, (epoch + 1) * per_epoch + 1):
                for batch in layout.batches(step, self.shard) or [layout.step(step)[:1]]:
                    yield [Position(epoch, order[place]) for place in batch]


@dataclass(frozen=True, eq=False)
class OrderedBatches:
    """Every position once, in order; with several processes each takes every `size`-th batch.

    The batches do not depend on the number of processes. So a prediction is the same to the last digit for any number.

    Args:
        done: numbers of batches, counted from 0, that are left out.
    """

    count: int
    _: KW_ONLY
    batch_size: int
    shard: Shard = ALONE
    done: Collection[int] = frozenset()

    @property
    def numbers(self) -> list[int]:
        """The numbers of this process's batches."""
        rest = [number for number in range(math.ceil(self.count / self.batch_size)) if number not in self.done]
        return rest[self.shard.rank :: self.shard.size]

    def __iter__(self) -> Iterator[list[Position]]:
        for number in self.numbers:
            start = number * self.batch_size
            yield [Position(0, index) for index in range(start, min(start + self.batch_size, self.count))]
