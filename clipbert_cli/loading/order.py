"""The order in which a process reads groups: shuffled and cut into steps for training, one after another else."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from torch.utils.data import Sampler

from clipbert_cli.loading.dataset import Position
from clipbert_cli.loading.mixture import Mixture
from clipbert_cli.loading.step_layout import StepLayout
from clipbert_cli.types import ALONE, Shard


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
        self.mixture, self.layout = mixture, StepLayout(len(mixture), mixture.step_size, batch_size)
        self.epochs, self.seed, self.shard, self.after = epochs, seed, shard, after

    def __iter__(self) -> Iterator[list[Position]]:
        per_epoch = self.layout.steps_per_epoch
        for epoch in range(self.after // per_epoch, self.epochs):
            order = self.mixture.order(seed=self.seed, epoch=epoch)
            for step in range(max(self.after, epoch * per_epoch) + 1, (epoch + 1) * per_epoch + 1):
                for batch in self.layout.batches(step, self.shard) or [self.layout.step(step)[:1]]:
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
