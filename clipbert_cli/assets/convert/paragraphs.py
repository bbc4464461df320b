"""Paragraph retrieval: all sentences about one video, joined into one text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from clipbert_cli.assets.convert.base import one_line

Order = Literal["file", "time"]


def paragraphs(sentences: Iterable[tuple[str, str, float]], order: Order) -> list[dict[str, Any]]:
    """One record a video from (video, sentence, start time); videos as they first appear.

    Which order the original joined in is not known. `file` is the order of the source files, which later work uses;
    `time` sorts by start, and keeps the files' order where starts are equal. Sentences without words are dropped.
    """
    videos: dict[str, list[tuple[float, str]]] = {}
    for video, sentence, start in sentences:
        if text := one_line(sentence):
            videos.setdefault(video, []).append((start, text))
    if order == "time":
        for parts in videos.values():
            parts.sort(key=lambda part: part[0])
    return [{"caption": " ".join(text for _, text in parts), "clip_name": video} for video, parts in videos.items()]
