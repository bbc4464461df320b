"""Batches in a decided order, from loading processes."""

from __future__ import annotations

import dataclasses
import logging
import signal
import warnings
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Sampler

from clipbert_cli.errors import ClipbertError, DecodeError
from clipbert_cli.loading.collate import Collate, CollateGood, Loaded
from clipbert_cli.loading.dali_batches import BatchDecoder
from clipbert_cli.loading.dataset import BadMedia, GroupDataset, Position
from clipbert_cli.loading.lookahead import ahead
from clipbert_cli.loading.mixture import MixedDataset
from clipbert_cli.media.backend import Decoder
from clipbert_cli.types import Batch

logger = logging.getLogger("clipbert")

SIGNALS_IGNORED_BY_WORKERS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Signals that loading processes take no notice of."""


class BatchLoader:
    """Iterates over the batches of `order`. What becomes of bad media says the dataset's `on_bad_media`:

        error     the first one is raised
        skip      its group is left out of the batch
        replace   another group has taken its place; of `bad` each is logged once, as with `skip`
        report    its group stands in `Batch.failed` (evaluation)

    Args:
        workers: loading processes; 0 loads in this one. They leave Ctrl-C, SIGTERM and SIGUSR1 to this process.
        pin_memory: put batches into page-locked memory, for copies that overlap with compute on a GPU.
        max_bad_fraction: of the data's media; when more were bad, `skip` and `replace` stop with an error.
    """

    def __init__(
        self,
        dataset: GroupDataset | MixedDataset,
        collate: Collate,
        order: Sampler[list[Position]],
        *,
        workers: int,
        pin_memory: bool = False,
        max_bad_fraction: float = 1.0,
    ) -> None:
        self.dataset = dataset
        self.bad: dict[str, str] = {}
        """Media that could not be used so far, by id, and why."""
        self._on_bad_media = dataset.parts[0].on_bad_media
        self._max_bad = max_bad_fraction * sum(len({group.media_id for group in part.groups}) for part in dataset.parts)
        self._collate = CollateGood(collate, dataset.parts[0].settings)
        self._decoder: BatchDecoder | None = None
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="This DataLoader will create")  # more than cores: they also wait
            self._loader = DataLoader(
                dataset,
                batch_sampler=order,
                collate_fn=self._collate,
                num_workers=workers,
                pin_memory=pin_memory,
                worker_init_fn=_ignore_interrupts if workers else None,
            )

    def __iter__(self) -> Iterator[Batch]:
        """
        Raises:
            DecodeError: bad media, see `on_bad_media`.
            ClipbertError: the store cannot be read, or a loading process died.
        """
        try:
            for loaded in self._decoded():
                yield self._checked(loaded)
        except RuntimeError as exc:
            if "DataLoader worker" not in str(exc):
                raise
            raise ClipbertError(
                f"a loading process died: {str(exc).splitlines()[0]}",
                hint="lower data.workers (0 loads in the main process), or give more memory (docker: --shm-size)",
            ) from exc

    def _started(self) -> Iterator[Loaded]:
        """The loader's stream, its processes started. They inherit that signals are blocked: one that comes before they
        ignore it (torchrun's goes to whole process groups) would end them, and the run with them."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS_IGNORED_BY_WORKERS)
        try:
            return iter(self._loader)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    @property
    def decoder(self) -> Decoder:
        """What decodes the media, and why."""
        return self.dataset.parts[0].settings.decoder

    def _decoded(self) -> Iterator[Loaded]:
        if self.decoder.name == "pyav":
            yield from self._started()
            return
        started = self._started()  # its processes are forked before this loader has DALI's threads
        self._decoder = self._decoder or BatchDecoder(self.dataset, self._collate)
        for loaded in ahead(self._on_own_device(started)):
            frames = loaded.batch.frames
            if frames.is_cuda:  # made on the decoder's stream and used on this one
                frames.record_stream(torch.cuda.current_stream(frames.device))
            yield loaded

    def _on_own_device(self, started: Iterator[Loaded]) -> Iterator[Loaded]:
        """Decode in a thread of its own, which begins on the first GPU, whatever its process computes on."""
        assert self._decoder is not None
        if self.decoder.place == "cuda":
            torch.cuda.set_device(torch.device(self.decoder.device))
        yield from map(self._decoder, started)

    def _checked(self, loaded: Loaded) -> Batch:
        policy = self._on_bad_media
        for failed in loaded.failed:
            if policy in ("error", "replace") or not isinstance(failed.error, DecodeError):
                raise failed.error
            self._note(BadMedia(failed.group.media_id, failed.error))
        for bad in loaded.replaced:
            self._note(bad)
        if policy == "report":
            reported = tuple((failed.group, str(failed.error)) for failed in loaded.failed)
            return dataclasses.replace(loaded.batch, failed=reported)
        if not loaded.batch.media_ids:
            raise DecodeError(
                f"no media item of a batch can be used; the first: {loaded.failed[0].error}",
                hint="set data.on_bad_media=replace, or take the items out of the annotations",
            )
        return loaded.batch

    def _note(self, bad: BadMedia) -> None:
        if bad.media_id in self.bad:
            return
        self.bad[bad.media_id] = str(bad.error)
        logger.warning("%s (%s)", bad.error, _NOTED[self._on_bad_media])
        if self._on_bad_media != "report" and len(self.bad) > self._max_bad:
            raise DecodeError(
                f"{len(self.bad)} media items cannot be used, more than data.max_bad_fraction allows "
                f"({self._max_bad:g}); the last: {bad.error}",
                hint="see what is wrong with them: clipbert store verify STORE; or raise data.max_bad_fraction",
            ) from bad.error


_NOTED = {"skip": "left out", "replace": "replaced by another", "report": "its predictions are media_error"}


def _ignore_interrupts(_worker: int) -> None:
    for number in SIGNALS_IGNORED_BY_WORKERS:
        signal.signal(number, signal.SIG_IGN)
