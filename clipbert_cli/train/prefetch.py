"""Batches on the device before they are needed: copied on a stream of their own while the step before computes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

import torch

from clipbert_cli.train.phases import NullPhases, Phases
from clipbert_cli.types import Batch


def on_device(batches: Iterable[Batch], device: torch.device, phases: Phases | None = None) -> Iterator[Batch]:
    """The same batches, in order, on `device`: the one place where training's batches are moved. On a GPU each is asked
    for one batch ahead, and its copy overlaps with compute where its memory is pinned.

    Args:
        phases: told of every copy.
    """
    return (_copied_ahead if device.type == "cuda" else _copied)(batches, device, phases or NullPhases())


def _copied(batches: Iterable[Batch], device: torch.device, phases: Phases) -> Iterator[Batch]:
    for batch in batches:
        with phases.phase("copy"):
            moved = batch.to(device)
        yield moved


def _copied_ahead(batches: Iterable[Batch], device: torch.device, phases: Phases) -> Iterator[Batch]:
    copies = torch.cuda.Stream(device)
    ahead: Batch | None = None
    for batch in chain(batches, (None,)):
        moved = None
        if batch is not None:
            with phases.phase("copy"), torch.cuda.stream(copies):
                moved = batch.to(device)
        if ahead is not None:
            yield ahead
        if moved is not None:
            with phases.phase("copy"):
                _hand_over(moved, copies, device)
        ahead = moved


def _hand_over(batch: Batch, copies: torch.cuda.Stream, device: torch.device) -> None:
    """Let the computing stream wait for the copies, and keep their memory until it is done with them."""
    computing = torch.cuda.current_stream(device)
    computing.wait_stream(copies)
    for tensor in batch.tensors():
        tensor.record_stream(computing)
