"""Decodes with DALI the clips that loading processes left encoded, in the process that owns the GPU."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Sequence

import torch

from clipbert_cli.errors import ClipbertError, DecodeError
from clipbert_cli.loading.collate import Collate, LoadedBatch, stack_frames
from clipbert_cli.loading.dataset import GroupDataset, Item
from clipbert_cli.loading.mixture import MixedDataset
from clipbert_cli.media.backend import CONTAINER_HINT
from clipbert_cli.media.dali.clips import EncodedClips
from clipbert_cli.media.dali.pipeline import DaliDecoder

# If as many media items have failed and none was decoded, DALI itself does not work, for instance without NVDEC.
_MAX_FAILED_AT_FIRST = 8

logger = logging.getLogger("clipbert")


class BatchDecoder:
    """Adds the frames to loaded batches, on the decoder's device. Raises `ClipbertError` if DALI cannot start."""

    # One item that DALI cannot decode fails a whole batch. The batch is then decoded item by item, and PyAV decodes the
    # items that fail alone. If PyAV fails, too, the batch is loaded again without DALI, so that `on_bad_media` means
    # the same with both decoders.

    def __init__(self, dataset: GroupDataset | MixedDataset, collate: Collate) -> None:
        part = dataset.parts[0]
        settings = part.settings
        try:
            self._dali = DaliDecoder(settings.decoder, kind=part.source.kind, frame_size=settings.frame_size)
        except (ImportError, OSError, RuntimeError) as exc:
            raise ClipbertError(f"DALI cannot be started: {exc}", hint="set data.decoder=pyav") from exc
        self._by_pyav = dataset.with_pyav_only()
        self._collate = collate
        self._warned: set[str] = set()
        self._works = False
        device = self._dali.device
        # A stream of its own, so that decoding overlaps with the training step on the default stream.
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, loaded: LoadedBatch) -> LoadedBatch:
        """Return the loaded batch with `batch.frames`, (B, K, T, 3, S, S).

        Raises:
            ClipbertError: DALI failed on the first media items and decoded none.
        """
        if not loaded.clips:
            return loaded
        with torch.cuda.stream(self._stream) if self._stream else contextlib.nullcontext():
            try:
                frames = self._decode(loaded.clips)
            except DecodeError:
                one_by_one = self._decode_one_by_one(loaded)
                if one_by_one is None:
                    return self._collate([self._by_pyav[position] for position in loaded.positions])
                frames = one_by_one
        if self._stream:
            self._stream.synchronize()
        return dataclasses.replace(loaded, batch=dataclasses.replace(loaded.batch, frames=frames), clips=())

    def _decode(self, clips: Sequence[torch.Tensor | EncodedClips]) -> torch.Tensor:
        """Return the frames of B items, (B, K, T, 3, S, S); some of the items may be decoded already."""
        decoded = self._dali.decode([each for each in clips if isinstance(each, EncodedClips)])
        self._works = True
        if len(decoded) == len(clips):
            return decoded
        by_dali = iter(decoded)
        return stack_frames(
            [each.to(decoded.device) if isinstance(each, torch.Tensor) else next(by_dali) for each in clips]
        )

    def _decode_one_by_one(self, loaded: LoadedBatch) -> torch.Tensor | None:
        """Return the frames of all items, by PyAV where DALI fails; None if PyAV does not give the same items."""
        failed = {failure.position for failure in loaded.failed}
        positions = [position for position in loaded.positions if position not in failed]
        frames = []
        for clips, position, media_id in zip(loaded.clips, positions, loaded.batch.media_ids, strict=True):
            if isinstance(clips, torch.Tensor):
                frames.append(clips.to(self._dali.device))
                continue
            try:
                frames.append(self._decode([clips])[0])
            except DecodeError as exc:
                self._warn(media_id, exc)
                item = self._by_pyav[position]
                if not isinstance(item, Item) or item.group.media_id != media_id:
                    return None
                assert isinstance(item.frames, torch.Tensor)
                frames.append(item.frames.to(self._dali.device))
        return stack_frames(frames)

    def _warn(self, media_id: str, error: DecodeError) -> None:
        if not self._works and len(self._warned) >= _MAX_FAILED_AT_FIRST:
            raise ClipbertError(
                f"DALI has decoded none of the first {len(self._warned)} media items; the last: {error}",
                hint=f"set data.decoder=pyav, or give the driver NVDEC ({CONTAINER_HINT})",
            ) from error
        if media_id not in self._warned:
            self._warned.add(media_id)
            logger.warning("%s: %s; PyAV decodes it instead", media_id, error)
