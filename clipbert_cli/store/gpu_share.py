"""The share of a store's media that a GPU's video decoder takes, and why it does not take the others."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from clipbert_cli.media.backend import Decoder
from clipbert_cli.media.dali.clips import why_not
from clipbert_cli.media.dali.nvdec import USUAL_LIMITS
from clipbert_cli.printable import plural
from clipbert_cli.store.lmdb_store import LmdbStore
from clipbert_cli.store.records import video_info_of
from clipbert_cli.store.source import MediaSource
from clipbert_cli.types import Kind

USUAL_GPU = Decoder("dali", "cuda", "a usual GPU", USUAL_LIMITS)
"""Stands for a GPU where none is: what is packed here may be trained on elsewhere."""

MOST_ITEMS = 500
"""Items of a source that are looked at before a training; more would delay its start."""

LEAST_SHARE = 0.5
"""With a smaller share `auto` leaves all media to PyAV, which decodes them in the colours that the original has."""


@dataclass(frozen=True)
class GpuShare:
    """Counts of media that were looked at: those that the GPU takes, and the others by reason."""

    kind: Kind
    taken: int
    reasons: Mapping[str, int]

    @classmethod
    def of(cls, kind: Kind, reasons: Iterable[str]) -> GpuShare:
        """Count what `why_not_on_gpu` says of each item."""
        counted = Counter(reasons)
        taken = counted.pop("", 0)
        return cls(kind, taken, dict(counted.most_common()))

    @property
    def seen(self) -> int:
        return self.taken + sum(self.reasons.values())

    def describe(self) -> str:
        """Return one sentence's end, such as `18 of 20 videos; not 2: its colours have full range`."""
        listed = [f"not {count}: {reason}" for reason, count in self.reasons.items()]
        return "; ".join([f"{self.taken} of {plural(self.seen, self.kind)}", *listed])

    def to_json(self) -> dict[str, Any]:
        return {"seen": self.seen, "taken": self.taken, "reasons": dict(self.reasons)}


def why_not_on_gpu(store: LmdbStore, media_id: str, decoder: Decoder = USUAL_GPU) -> str:
    """Return why a GPU does not decode an item, "" if it does, as far as its media record says."""
    record = store.record(media_id)
    if record is None:
        return "it has no media record"
    if store.kind == "image":
        return "" if record["format"] == "JPEG" else f"it is {record['format']}, not JPEG"
    return why_not(video_info_of(record), store.packets(media_id), decoder)


def share_of(media: Iterable[tuple[MediaSource, Iterable[str]]], decoder: Decoder = USUAL_GPU) -> GpuShare | None:
    """Look at up to `MOST_ITEMS` items of the sources, evenly spaced; None where there are no media records to read."""
    items = [
        (source, media_id)
        for source, media_ids in media
        if isinstance(source, LmdbStore) and source.has_records
        for media_id in dict.fromkeys(media_ids)
    ]
    if not items:
        return None
    step = -(-len(items) // MOST_ITEMS)
    return GpuShare.of(
        items[0][0].kind, (why_not_on_gpu(store, media_id, decoder) for store, media_id in items[::step])
    )


def suited(decoder: Decoder, share: GpuShare | None) -> Decoder:
    """Return a GPU's decoder with the share of media that it takes; PyAV if `auto` chose it and the share is low."""
    if share is None:
        return decoder
    if decoder.is_required or share.taken >= LEAST_SHARE * share.seen:
        return dataclasses.replace(decoder, reason=f"{decoder.reason}, which takes {share.describe()}")
    return Decoder(reason=f"data.decoder is auto: the GPU's decoder takes only {share.describe()}")
