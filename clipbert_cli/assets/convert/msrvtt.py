"""The official split of MSR-VTT, by the videos' numbers."""

from __future__ import annotations

import re

from clipbert_cli.assets.convert.base import integer, stem
from clipbert_cli.errors import AnnotationError

SPLITS = {"train": range(6513), "val": range(6513, 7010), "test": range(7010, 10000)}
SEVEN_K = range(7010)  # official train and val


def video_name(value: str | int, where: str) -> str:
    """`6513`, `video6513`, `msr6513` or `video6513.mp4` -> `video6513`."""
    match = re.fullmatch(r"(?:video|msr)?(\d+)", stem(str(value)))
    if match is None or integer(match[1], where, "video") not in range(10000):
        raise AnnotationError(f"{where}: video is {value!r}: video0 to video9999 was expected")
    return f"video{int(match[1])}"


def number(video: str) -> int:
    return int(video.removeprefix("video"))
