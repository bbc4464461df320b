"""Make items in a thread ahead of their use, and move batches to the device while earlier ones are computed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from itertools import chain, islice
from typing import Any, TypeVar

import torch

from clipbert_cli.types import Batch

T = TypeVar("T")

_END: Any = object()


def lookahead(items: Iterator[T], *, depth: int = 3) -> Iterator[T]:
    """Yield the same items in the same order, up to `depth` of them made beforehand by a thread.

    An exception of `items`, which is a generator, is raised here, in its place. The thread ends with this iterator: if
    that is closed early, after the item that it is making.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="lookahead")
    try:
        made = deque(pool.submit(next, items, _END) for _ in range(depth))
        while (item := made.popleft().result()) is not _END:
            made.append(pool.submit(next, items, _END))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)


Copying = Callable[[], AbstractContextManager[object]]
"""Gives a context for the time that computing waits for a copy."""


class CopyStream:
    """A CUDA stream for copies to a GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def copy(self, batch: Batch) -> tuple[Batch, Batch, torch.cuda.Event]:
        """Begin to copy a batch, and return it, the copy, and the event at which the copy is complete."""
        # This runs in a thread, which begins on the first GPU; the stream's context also selects its device.
        with torch.cuda.stream(self._stream):
            return batch, batch.pin_memory().to(self._device), self._stream.record_event()

    def wait(self, moved: Batch, copied: torch.cuda.Event) -> None:
        """Make the computing stream wait for a copy, without blocking the CPU."""
        computing = torch.cuda.current_stream(self._device)
        computing.wait_event(copied)
        for tensor in moved.tensors():
            # The memory belongs to the copy stream. Without this note the allocator could give it to the next copy
            # while the computing stream still reads it.
            tensor.record_stream(computing)


def on_device(
    batches: Iterable[Batch], device: torch.device, *, ahead: bool = True, copying: Copying = nullcontext
) -> Iterator[tuple[Batch, Batch]]:
    """Yield each batch with its copy on `device`, in order. On a CPU both are the same batch.

    Args:
        ahead: on a GPU, request and copy up to two batches ahead. A batch that is there waits for no later one.
        copying: wraps the time that computing waits for a copy.
    """
    if ahead and device.type == "cuda":
        yield from _copied_ahead(batches, CopyStream(device), copying)
        return
    for batch in batches:
        with copying():
            moved = batch.to(device)
        yield batch, moved


def _copied_ahead(batches: Iterable[Batch], stream: CopyStream, copying: Copying) -> Iterator[tuple[Batch, Batch]]:
    source = iter(batches)
    # Loading processes start with the first batch. They are forked here and not in the thread, because a fork copies
    # locks that other threads may hold at that moment.
    first = list(islice(source, 1))
    for batch, moved, copied in lookahead(map(stream.copy, chain(first, source)), depth=2):
        with copying():
            stream.wait(moved, copied)
        yield batch, moved
