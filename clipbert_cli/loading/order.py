"""Which groups make up which step and which batch, for every process: decided by numbers alone, never by timing.

    epoch's permutation   3 0 6 | 5 1 2 | 4          7 groups, global batch 3: steps 1, 2 and 3
    step 1, two processes   3 0 . 6                  process 0 takes the first half of every step, process 1 the rest
    their batches           3 | 0 . 6                with at most one group a forward pass

The permutation and its cut into steps do not know how many processes there are. So a run may go on with another number
of them, and every step still learns from the same groups.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from torch.utils.data import Sampler

from clipbert_cli.loading.dataset import Position
from clipbert_cli.loading.mixture import Mixture
from clipbert_cli.types import ALONE, Shard


def part(whole: range, number: int, parts: int) -> range:
    """Part `number` of `parts` of a range: in order, lengths differ by at most one, the longer ones first."""
    length, over = divmod(len(whole), parts)
    start = number * length + min(number, over)
    return whole[start : start + length + (number < over)]


@dataclass(frozen=True, slots=True)
class Cut:
    """How epochs of `groups` groups become steps of `global_batch` groups, and these batches of up to `batch_size`.

    An epoch's last step takes what is left. Nothing has to divide anything.
    """

    groups: int
    global_batch: int
    batch_size: int

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.groups / self.global_batch)

    def epoch(self, step: int) -> int:
        """The epoch, from 0, that step `step` (from 1) belongs to."""
        return (step - 1) // self.steps_per_epoch

    def step(self, step: int) -> range:
        """Places in the epoch's permutation that step `step` (from 1) takes."""
        start = (step - 1) % self.steps_per_epoch * self.global_batch
        return range(start, min(start + self.global_batch, self.groups))

    def batches(self, step: int, shard: Shard = ALONE) -> list[range]:
        """The places of one process in that step, batch by batch; none where there are more processes than groups."""
        own = part(self.step(step), shard.rank, shard.size)
        count = math.ceil(len(own) / self.batch_size)
        return [part(own, number, count) for number in range(count)]


class TrainingBatches(Sampler[list[Position]]):
    """One process's batches of the epochs of `mixture`, step by step; a step is `mixture.step_size` groups.

    A process without a group in a step gets the step's first group, so that it has a batch to take part with; what
    it computes counts nothing (`train/loop.py`).

    Args:
        batch_size: most groups of a batch.
        after: steps that are done already.
    """

    def __init__(
        self,
        mixture: Mixture,
        *,
        batch_size: int,
        epochs: int,
        seed: int,
        shard: Shard = ALONE,
        after: int = 0,
    ) -> None:
        self.mixture, self.cut = mixture, Cut(len(mixture), mixture.step_size, batch_size)
        self.epochs, self.seed, self.shard, self.after = epochs, seed, shard, after

    def __iter__(self) -> Iterator[list[Position]]:
        per_epoch = self.cut.steps_per_epoch
        for epoch in range(self.after // per_epoch, self.epochs):
            order = self.mixture.order(seed=self.seed, epoch=epoch)
            for step in range(max(self.after, epoch * per_epoch) + 1, (epoch + 1) * per_epoch + 1):
                for batch in self.cut.batches(step, self.shard) or [self.cut.step(step)[:1]]:
                    yield [Position(epoch, order[place]) for place in batch]


class OrderedBatches(Sampler[list[Position]]):
    """Every position once, in order. Of several processes each takes every `size`-th batch.

    The batches are those of one process, so that a prediction is the same to the last digit however many there are.

    Args:
        done: numbers of batches, from 0, that are left out.
    """

    def __init__(
        self, count: int, *, batch_size: int, shard: Shard = ALONE, done: Collection[int] = frozenset()
    ) -> None:
        self.count, self.batch_size, self.shard, self.done = count, batch_size, shard, done

    @property
    def numbers(self) -> list[int]:
        """Of this process's batches."""
        rest = [number for number in range(-(-self.count // self.batch_size)) if number not in self.done]
        return rest[self.shard.rank :: self.shard.size]

    def __iter__(self) -> Iterator[list[Position]]:
        for number in self.numbers:
            start = number * self.batch_size
            yield [Position(0, index) for index in range(start, min(start + self.batch_size, self.count))]
