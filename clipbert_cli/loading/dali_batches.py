"""Decode with DALI the clips that loading processes left encoded, in the process that owns the GPU."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Mapping, Sequence

import torch

from clipbert_cli.errors import ClipbertError, DecodeError
from clipbert_cli.loading.dataset import (
    CollateTexts,
    Item,
    LoadedBatch,
    Position,
    collate,
    stack_frames,
)
from clipbert_cli.loading.mixture import MixedDataset
from clipbert_cli.media.backend import CONTAINER_HINT
from clipbert_cli.media.dali.clips import EncodedClips
from clipbert_cli.media.dali.pipeline import DaliDecoder

# If as many media items have failed and none was decoded, DALI itself does not work, for instance without NVDEC.
_MAX_FAILED_AT_FIRST = 8

# Levels of 0..255 between the frames of DALI and of PyAV, on average. Rightly decoded ones are less than 1 apart.
# Colours from wrong rows, or memory that nothing was written to, are far more.
MAX_MEAN_DIFFERENCE = 3

logger = logging.getLogger("clipbert")


Kind = tuple[str, int, int]
"""Codec, height and width of media: DALI has one decoder for each."""


class BatchDecoder:
    """Adds the frames to loaded batches, on the decoder's device.

    PyAV decodes in its place
    - media that DALI has failed to decode once,
    - media of a codec and size whose first frames differed from PyAV's,
    - everything, if DALI does not work at all and `data.decoder` is `auto`.

    Raises:
        ClipbertError: DALI cannot start, and the recipe requires it.
    """

    # One item that DALI cannot decode fails a whole batch, which is then decoded item by item. If PyAV fails, too, the
    # batch is loaded again without DALI, so that `on_bad_media` means the same with both decoders.

    def __init__(self, dataset: MixedDataset, texts: CollateTexts) -> None:
        part = dataset.parts[0]
        self._settings = part.settings
        self._by_pyav = dataset.with_pyav_only()
        self._texts = texts
        self._failed: set[str] = set()
        self._compared: dict[Kind, bool] = {}  # whether DALI's frames are those of PyAV
        self._works = False
        self._dali: DaliDecoder | None = None
        decoder = self._settings.decoder
        try:
            self._dali = DaliDecoder(decoder, kind=part.source.kind, frame_size=self._settings.frame_size)
        except (ImportError, OSError, RuntimeError) as exc:
            self._give_up(f"DALI cannot be started: {exc}", exc)
        self._device = torch.device(decoder.device)
        # A stream of its own, so that decoding overlaps with the training step on the default stream.
        self._stream = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None

    def __call__(self, loaded: LoadedBatch) -> LoadedBatch:
        """Return the loaded batch with `batch.frames`, (B, K, T, 3, S, S).

        Raises:
            ClipbertError: DALI failed on the first media items and decoded none, and the recipe requires it.
        """
        if not loaded.encoded:
            return loaded
        with torch.cuda.stream(self._stream) if self._stream else contextlib.nullcontext():
            frames = self._frames(loaded)
            if frames is None:
                return collate([self._by_pyav[position] for position in loaded.positions], self._texts)
        if self._stream:
            self._stream.synchronize()
        return dataclasses.replace(loaded.with_frames(frames), encoded={})

    def _frames(self, loaded: LoadedBatch) -> torch.Tensor | None:
        """Return the frames of B items, (B, K, T, 3, S, S); None if PyAV does not give the same items."""
        failed = {failure.position for failure in loaded.failed}
        positions = [position for position in loaded.positions if position not in failed]
        media_ids = loaded.batch.media_ids
        ready = iter(loaded.batch.frames)
        decoded = self._decode(
            {number: clips for number, clips in loaded.encoded.items() if self._is_for_dali(clips, media_ids[number])},
            media_ids,
        )
        tensors = []
        for number, (position, media_id) in enumerate(zip(positions, media_ids, strict=True)):
            if number not in loaded.encoded:
                frames = next(ready)
            elif (by_dali := decoded.get(number)) is not None and self._is_right(
                loaded.encoded[number], by_dali, position, media_id
            ):
                frames = by_dali
            elif (by_pyav := self._load_by_pyav(position, media_id)) is not None:
                frames = by_pyav
            else:
                return None
            tensors.append(frames.to(self._device))
        return stack_frames(tensors)

    def _is_for_dali(self, clips: EncodedClips, media_id: str) -> bool:
        return self._dali is not None and media_id not in self._failed and self._compared.get(_kind(clips), True)

    def _decode(self, clips: Mapping[int, EncodedClips], media_ids: Sequence[str]) -> dict[int, torch.Tensor]:
        """Return the frames of these items, (K, T, 3, S, S) each, without those that DALI cannot decode."""
        if self._dali is None or not clips:
            return {}
        try:
            decoded = dict(zip(clips, self._dali.decode(list(clips.values())), strict=True))
        except DecodeError as exc:
            if len(clips) > 1:
                # One item that cannot be decoded fails all that are decoded with it.
                alone: dict[int, torch.Tensor] = {}
                for number, each in clips.items():
                    alone |= self._decode({number: each}, media_ids)
                return alone
            self._fail(media_ids[next(iter(clips))], exc)
            return {}
        self._works = True
        return decoded

    def _is_right(self, clips: EncodedClips, frames: torch.Tensor, position: Position, media_id: str) -> bool:
        """Return whether frames of this codec and size are right; the first ones are compared with PyAV's."""
        kind = _kind(clips)
        if kind not in self._compared:
            wanted = self._load_by_pyav(position, media_id)
            if wanted is None:
                return False
            difference = (frames.float() - wanted.to(frames.device).float()).abs().mean().item()
            self._compared[kind] = difference <= MAX_MEAN_DIFFERENCE
            if not self._compared[kind]:
                codec, height, width = kind
                logger.warning(
                    "%s: DALI gives other frames than PyAV (%.0f levels apart on average); PyAV decodes all %s of "
                    "%d x %d pixels",
                    *(media_id, difference, codec, width, height),
                )
        return self._compared[kind]

    def _load_by_pyav(self, position: Position, media_id: str) -> torch.Tensor | None:
        """Return an item's frames, (K, T, 3, S, S); None if it is replaced or left out because PyAV fails, too."""
        item = self._by_pyav[position]
        if not isinstance(item, Item) or item.group.media_id != media_id:
            return None
        assert isinstance(item.frames, torch.Tensor)
        return item.frames

    def _fail(self, media_id: str, error: DecodeError) -> None:
        """Note that DALI cannot decode an item."""
        self._failed.add(media_id)
        if not self._works and len(self._failed) > _MAX_FAILED_AT_FIRST:
            self._give_up(
                f"DALI has decoded none of the first {len(self._failed) - 1} media items; the last: {error}", error
            )
        else:
            logger.warning("%s: %s; PyAV decodes it instead", media_id, error)

    def _give_up(self, problem: str, cause: Exception) -> None:
        """Leave all media to PyAV.

        Raises:
            ClipbertError: the recipe requires DALI.
        """
        if self._settings.decoder.is_required:
            raise ClipbertError(
                problem, hint=f"set data.decoder=pyav, or give the driver NVDEC ({CONTAINER_HINT})"
            ) from cause
        self._dali = None
        logger.warning("%s; PyAV decodes instead. It is faster in loading processes: set data.decoder=pyav", problem)


def _kind(clips: EncodedClips) -> Kind:
    return clips.codec, *clips.coded
