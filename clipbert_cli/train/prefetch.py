"""Move batches to the device before they are needed: the copy of one overlaps with the computation of another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

import torch

from clipbert_cli.train.phases import Phases
from clipbert_cli.types import Batch


def on_device(batches: Iterable[Batch], device: torch.device, phases: Phases) -> Iterator[Batch]:
    """Yield the same batches, in order, on `device`.

    On a GPU each batch is requested one batch ahead and copied on a CUDA stream of its own. The copy overlaps with
    computation only if the batch is in pinned memory.
    """
    return (_copied_ahead if device.type == "cuda" else _copied)(batches, device, phases)


def _copied(batches: Iterable[Batch], device: torch.device, phases: Phases) -> Iterator[Batch]:
    for batch in batches:
        with phases.phase("copy"):
            moved = batch.to(device)
        yield moved


def _copied_ahead(batches: Iterable[Batch], device: torch.device, phases: Phases) -> Iterator[Batch]:
    copy_stream = torch.cuda.Stream(device)
    previous: Batch | None = None
    # The None at the end releases the last batch, which would otherwise stay one batch behind for ever.
    for batch in chain(batches, (None,)):
        moved = None
        if batch is not None:
            with phases.phase("copy"), torch.cuda.stream(copy_stream):
                moved = batch.to(device)
        if previous is not None:
            yield previous
        if moved is not None:
            with phases.phase("copy"):
                _wait_for_copy(moved, copy_stream, device)
        previous = moved


def _wait_for_copy(batch: Batch, copy_stream: torch.cuda.Stream, device: torch.device) -> None:
    """Make the computing stream wait for the copies, without blocking the CPU."""
    computing = torch.cuda.current_stream(device)
    computing.wait_stream(copy_stream)
    for tensor in batch.tensors():
        # The memory belongs to the copy stream. Without this note the allocator could give it to the next copy while
        # the computing stream still reads it.
        tensor.record_stream(computing)
