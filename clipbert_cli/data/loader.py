"""Batches in a decided order, from loading processes."""

from __future__ import annotations

import signal
from collections.abc import Iterator

from torch.utils.data import DataLoader, Sampler

from clipbert_cli.batch import Batch
from clipbert_cli.data.collate import Collate
from clipbert_cli.data.dataset import GroupDataset, Position
from clipbert_cli.data.mixture import MixedDataset, Mixture
from clipbert_cli.errors import ClipbertError


class TrainingBatches(Sampler[list[Position]]):
    """The positions of `epochs` epochs of `mixture`, cut into batches; an epoch's last batch may be smaller."""

    def __init__(self, mixture: Mixture, *, batch_size: int, epochs: int, seed: int) -> None:
        self.mixture, self.batch_size, self.epochs, self.seed = mixture, batch_size, epochs, seed

    def __iter__(self) -> Iterator[list[Position]]:
        for epoch in range(self.epochs):
            order = self.mixture.order(seed=self.seed, epoch=epoch)
            for start in range(0, len(order), self.batch_size):
                yield [Position(epoch, index) for index in order[start : start + self.batch_size]]


class OrderedBatches(Sampler[list[Position]]):
    """Every position once, in order."""

    def __init__(self, count: int, *, batch_size: int) -> None:
        self.count, self.batch_size = count, batch_size

    def __iter__(self) -> Iterator[list[Position]]:
        for start in range(0, self.count, self.batch_size):
            yield [Position(0, index) for index in range(start, min(start + self.batch_size, self.count))]


class BatchLoader:
    """Iterates over the batches of `order`; raises the first item's error.

    Args:
        workers: loading processes; 0 loads in this one. They leave Ctrl-C to this process.
        pin_memory: put batches into page-locked memory, for copies that overlap with compute on a GPU.
    """

    def __init__(
        self,
        dataset: GroupDataset | MixedDataset,
        collate: Collate,
        order: Sampler[list[Position]],
        *,
        workers: int,
        pin_memory: bool = False,
    ) -> None:
        self.dataset = dataset
        self._loader = DataLoader(
            dataset,
            batch_sampler=order,
            collate_fn=collate,
            num_workers=workers,
            pin_memory=pin_memory,
            worker_init_fn=_ignore_interrupts if workers else None,
        )

    def __iter__(self) -> Iterator[Batch]:
        try:
            for batch in self._loader:
                if isinstance(batch, ClipbertError):
                    raise batch
                yield batch
        except RuntimeError as exc:
            if "DataLoader worker" not in str(exc):
                raise
            raise ClipbertError(
                f"a loading process died: {str(exc).splitlines()[0]}",
                hint="lower data.workers (0 loads in the main process), or give more memory (docker: --shm-size)",
            ) from exc


def _ignore_interrupts(_worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
