"""Batches in a decided order, from loading processes."""

from __future__ import annotations

import signal
from collections.abc import Iterator

from torch.utils.data import DataLoader, Sampler

from clipbert_cli.batch import Batch
from clipbert_cli.data.collate import Collate
from clipbert_cli.data.dataset import GroupDataset, Position
from clipbert_cli.data.mixture import MixedDataset
from clipbert_cli.errors import ClipbertError


class BatchLoader:
    """Iterates over the batches of `order`; raises the first item's error.

    Args:
        workers: loading processes; 0 loads in this one. They leave Ctrl-C, SIGTERM and SIGUSR1 to this process.
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
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
