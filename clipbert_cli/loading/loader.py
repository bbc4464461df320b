"""Load batches in a given order, with loading processes."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Iterator, Sequence

import torch

from clipbert_cli.errors import DecodeError
from clipbert_cli.loading.dali_batches import BatchDecoder
from clipbert_cli.loading.dataset import (
    Allocate,
    CollateTexts,
    FailedItem,
    LoadedBatch,
    Position,
    collate,
)
from clipbert_cli.loading.mixture import MixedDataset
from clipbert_cli.loading.prefetch import lookahead
from clipbert_cli.loading.processes import load
from clipbert_cli.media.backend import Decoder
from clipbert_cli.printable import plural
from clipbert_cli.types import Batch

logger = logging.getLogger("clipbert")


class BatchLoader:
    """The batches of `order`. The dataset's `on_bad_media` decides what happens to undecodable media:

        error     the first error is raised
        skip      the group is left out of the batch, and the media item is logged once
        replace   another group is in its place, and the media item is logged once
        report    the group is in `Batch.failed` (evaluation)

    Args:
        texts: makes the text rows of a batch.
        workers: number of loading processes; 0 loads in this process. They ignore Ctrl-C, SIGHUP, SIGTERM and SIGUSR1.
        max_bad_fraction: part of the data's media; if more are bad, `skip` and `replace` raise an error.

    Attributes:
        bad: media_id -> reason, of the media items that could not be used so far.
    """

    def __init__(
        self,
        dataset: MixedDataset,
        texts: CollateTexts,
        order: Iterable[Sequence[Position]],
        *,
        workers: int,
        max_bad_fraction: float = 1.0,
    ) -> None:
        self.dataset = dataset
        self.bad: dict[str, str] = {}
        self._on_bad_media = dataset.parts[0].on_bad_media
        self._max_bad = max_bad_fraction * sum(len({group.media_id for group in part.groups}) for part in dataset.parts)
        self._texts = texts
        self._order = order
        self._workers = workers
        self._decoder: BatchDecoder | None = None

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches.

        Raises:
            DecodeError: bad media, see `on_bad_media`.
            ClipbertError: the store cannot be read, or a loading process failed.
        """
        for loaded in self._decoded():
            yield self._checked(loaded)

    @property
    def decoder(self) -> Decoder:
        """The decoder of the media, and why it was chosen."""
        return self.dataset.parts[0].settings.decoder

    def _decoded(self) -> Iterator[LoadedBatch]:
        loaded_batches = (
            load(self._make, self._order, workers=self._workers) if self._workers else map(self._make, self._order)
        )
        if self.decoder.name == "pyav":
            yield from loaded_batches
            return
        # Processes are forked before DALI starts its threads, because a fork copies locks that threads may hold.
        self._decoder = self._decoder or BatchDecoder(self.dataset, self._texts)
        for loaded in lookahead(self._on_own_device(loaded_batches)):
            frames = loaded.batch.frames
            if frames.is_cuda:
                # Made on the decoder's stream and used on this one: the allocator must not reuse the memory too early.
                frames.record_stream(torch.cuda.current_stream(frames.device))
            yield loaded

    def _make(self, positions: Sequence[Position], allocate: Allocate | None = None) -> LoadedBatch:
        return collate([self.dataset[position] for position in positions], self._texts, allocate)

    def _on_own_device(self, started: Iterator[LoadedBatch]) -> Iterator[LoadedBatch]:
        """Decode batches; runs in the thread of `lookahead`."""
        assert self._decoder is not None
        # A new thread begins on the first GPU, whatever GPU its process uses.
        if self.decoder.device_type == "cuda":
            torch.cuda.set_device(torch.device(self.decoder.device))
        yield from map(self._decoder, started)

    def _checked(self, loaded: LoadedBatch) -> Batch:
        """Return the batch after applying `on_bad_media` to its failed items."""
        policy = self._on_bad_media
        for failed in loaded.failed:
            if policy in ("error", "replace") or not isinstance(failed.error, DecodeError):
                raise failed.error
            self._note(failed)
        for bad in loaded.replaced:
            self._note(bad)
        if policy == "report":
            reported = tuple((failed.group, str(failed.error)) for failed in loaded.failed)
            return dataclasses.replace(loaded.batch, failed=reported)
        if not loaded.batch.media_ids:
            raise DecodeError(
                f"none of a batch's media items can be used; the first: {loaded.failed[0].error}",
                hint="set data.on_bad_media=replace, or remove these items from the annotations",
            )
        return loaded.batch

    def _note(self, bad: FailedItem) -> None:
        if bad.group.media_id in self.bad:
            return
        self.bad[bad.group.media_id] = str(bad.error)
        logger.warning("%s (%s)", bad.error, _NOTED[self._on_bad_media])
        if self._on_bad_media != "report" and len(self.bad) > self._max_bad:
            raise DecodeError(
                f"{plural(len(self.bad), 'media item')} cannot be used, more than data.max_bad_fraction allows "
                f"({self._max_bad:g}); the last: {bad.error}",
                hint="clipbert store verify STORE names all of a store, clipbert pack FOLDER STORE all of a folder; or "
                "raise data.max_bad_fraction",
            ) from bad.error


_NOTED = {"skip": "left out", "replace": "replaced by another", "report": "its predictions are media_error"}
