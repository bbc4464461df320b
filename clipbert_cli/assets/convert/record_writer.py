"""Write the outputs of a conversion, count them and warn of what is odd."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO


@dataclass(frozen=True)
class OutputCount:
    """The size of one output: records and distinct media ids, or the answers of a vocabulary (`media` is None)."""

    records: int
    media: int | None = None


class RecordWriter:
    """Writes the files of one conversion into `folder`, and collects counts and warnings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.counts: dict[str, OutputCount] = {}
        self.warnings: list[str] = []
        self._media: dict[str, set[str]] = {}

    def records(
        self,
        name: str,
        records: Iterable[Mapping[str, Any]],
        *,
        media: str,
        words: tuple[str, ...],
        unique: str | None = None,
    ) -> None:
        """Write a JSONL file without the records that the tasks refuse.

        Args:
            media: the field with the media id.
            words: fields with a text or a list of texts; records that lack words in one of them are left out.
            unique: the field with the record's id; of records with the same id only the first is written.
        """
        media_ids: set[str] = set()
        record_ids: set[Any] = set()
        count = empty = repeated = 0
        with self._open(name) as file:
            for record in records:
                if not all(_has_words(record[field]) for field in words):
                    empty += 1
                elif unique is not None and record[unique] in record_ids:
                    repeated += 1
                else:
                    file.write(json.dumps(record, ensure_ascii=False) + "\n")
                    media_ids.add(record[media])
                    record_ids.add(record[unique] if unique else count)
                    count += 1
        if empty:
            lacks = " or ".join("a blank option" if field == "options" else f"no {field}" for field in words)
            self.warnings.append(f"{name}: {empty:,} records have {lacks}: left out")
        if repeated:
            self.warnings.append(f"{name}: {repeated:,} records have the {unique} of an earlier one: left out")
        self.counts[name] = OutputCount(count, len(media_ids))
        self._media[name] = media_ids

    def _open(self, name: str) -> TextIO:
        # JSON can hold half a UTF-16 surrogate pair, which UTF-8 cannot: a question mark takes its place.
        return open(self.folder / name, "w", encoding="utf-8", errors="replace", newline="\n")

    def vocabulary(self, name: str, labels: Mapping[str, int]) -> None:
        """Write an answer vocabulary."""
        with self._open(name) as file:
            file.write(json.dumps(labels, ensure_ascii=False) + "\n")
        self.counts[name] = OutputCount(len(labels))

    def warn_if_shared(self, name: str, *others: str) -> None:
        """Warn if media of one output are in `others` as well: a model would be tested on what it has trained on."""
        for other in others:
            if both := self._media[name] & self._media[other]:
                self.warnings.append(f"{len(both):,} media are in {name} and in {other}, {min(both)} among them")


def _has_words(value: str | list[str]) -> bool:
    return all(text.strip() for text in ([value] if isinstance(value, str) else value))
