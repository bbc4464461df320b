"""The order in which one process reads groups: shuffled and divided into steps for training, in sequence otherwise.

    epoch's permutation     3 0 6 | 5 1 2 | 4        7 groups, global batch 3: steps 1, 2 and 3
    step 1, two processes   3 0 . 6                  process 0 takes the first half of every step, process 1 the rest
    their batches           3 | 0 . 6                with at most one group per forward pass

The permutation and its division into steps do not depend on the number of processes. So a run may be resumed with
another number of them, and every step still learns from the same groups.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import KW_ONLY, dataclass

from clipbert_cli.loading.dataset import Position
from clipbert_cli.loading.mixture import Mixture
from clipbert_cli.types import ALONE, Shard


@dataclass(frozen=True, slots=True)
class StepLayout:
    """Epochs of `groups` groups in steps of `global_batch` groups, and these in batches of up to `batch_size` groups.

    An epoch's last step has the groups that are left. No number needs to divide another.
    """

    groups: int
    global_batch: int
    batch_size: int

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.groups / self.global_batch)

    def epoch(self, step: int) -> int:
        """Return the epoch, counted from 0, of step `step`, counted from 1."""
        return (step - 1) // self.steps_per_epoch

    def step(self, step: int) -> range:
        """Return the positions in the epoch's permutation of step `step`, counted from 1."""
        start = (step - 1) % self.steps_per_epoch * self.global_batch
        return range(start, min(start + self.global_batch, self.groups))

    def batches(self, step: int, shard: Shard = ALONE) -> list[range]:
        """Return the positions of one process in that step, one range per batch.

        The list is empty where a step has fewer groups than there are processes and none is left for this one.
        """
        own = nth_part(self.step(step), shard.rank, shard.size)
        count = math.ceil(len(own) / self.batch_size)
        return [nth_part(own, number, count) for number in range(count)]


def nth_part(whole: range, number: int, count: int) -> range:
    """Return part `number` of `count` consecutive parts of a range. Lengths differ by one at most, longest first."""
    length, rest = divmod(len(whole), count)
    start = number * length + min(number, rest)
    return whole[start : start + length + (number < rest)]


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
