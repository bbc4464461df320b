"""Facts about the media items of a split: durations, rates, sizes, formats, and how each is decoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clipbert_cli.errors import ClipbertError
from clipbert_cli.media.images import probe_image
from clipbert_cli.report.charts import Chart, histogram
from clipbert_cli.store.lmdb_store import LmdbStore
from clipbert_cli.store.source import MediaSource

Counts = list[tuple[str, str]]
"""(what, how often) as text, the most frequent first."""


@dataclass(frozen=True)
class MediaFacts:
    """The properties that the media items of a page share, and those that differ.

    Args:
        examined: how many items were looked at.
        problems: (media id, reason) of those that cannot be used.
    """

    examined: int
    charts: list[Chart]
    tables: list[tuple[str, Counts]]
    problems: list[tuple[str, str]]


def media_facts(source: MediaSource, media_ids: Sequence[str]) -> MediaFacts:
    """Look at each media item's record; without records each item is decoded."""
    durations: list[float] = []
    rates: list[float] = []
    found: dict[str, Counter[str]] = {name: Counter() for name in ("size", "format", "decoded by", "damage")}
    problems = []
    for media_id in media_ids:
        try:
            info = source.info(media_id)
            record = (source.record(media_id) if isinstance(source, LmdbStore) else None) or {}
            if info is None and not record:
                image = probe_image(source.read(media_id))
                record = {"height": image.height, "width": image.width, "format": image.format}
        except ClipbertError as exc:
            problems.append((media_id, str(exc)))
            continue
        if info is None:
            height, width = record["height"], record["width"]
        else:
            durations.append(info.shown_seconds)
            if info.average_rate:
                rates.append(float(info.average_rate))
            height, width = info.upright_size
            found["damage"][info.failure or "none"] += 1
        found["size"][f"{width} x {height}"] += 1
        found["format"][_text(record.get("codec") or record.get("format"))] += 1
        found["decoded by"][_text(record.get("decode"))] += 1
    charts = [
        histogram("video durations", durations, x_label="seconds"),
        histogram("frames per second", rates, x_label="frames per second"),
    ]
    tables = [(name, most_frequent(counter)) for name, counter in found.items() if counter]
    return MediaFacts(len(media_ids), [chart for chart in charts if chart], tables, problems)


def most_frequent(counter: Counter[str], limit: int = 12) -> Counts:
    """Return the most frequent entries, and how many others there are."""
    rows = [(name, f"{count:,}") for name, count in counter.most_common(limit)]
    rest = sum(counter.values()) - sum(count for _, count in counter.most_common(limit))
    return rows + ([(f"{len(counter) - limit:,} others", f"{rest:,}")] if rest else [])


def _text(value: Any) -> str:
    return str(value) if value else "unknown without media records"
