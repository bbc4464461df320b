"""Bars, drawn with Pillow: one more dependency for a chart is one too many."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from PIL import Image, ImageDraw

COLOURS = ("#3b6ea5", "#c46d2c", "#7a7a7a", "#5a9a5a", "#8a63a0", "#b8a23a")
LEFT, LONGEST, ROW, TOP = 290, 480, 24, 30


def bars(file: str, title: str, rows: Sequence[tuple[str, float]], *, digits: int = 2) -> None:
    """A bar a row, as long as its value, which stands behind it; rows of one first word have one colour."""
    longest = max((value for _, value in rows), default=0.0) or 1.0
    words = list(dict.fromkeys(_word(name) for name, _ in rows))
    image, draw = _paper(title, len(rows))
    for number, (name, value) in enumerate(rows):
        top, end = TOP + ROW * number, LEFT + LONGEST * value / longest
        draw.text((10, top + 4), name, fill="black")
        draw.rectangle((LEFT, top, end, top + 18), fill=COLOURS[words.index(_word(name)) % len(COLOURS)])
        draw.text((end + 6, top + 4), f"{value:.{digits}f}", fill="black")
    image.save(file)


def shares(file: str, rows: Mapping[str, Mapping[str, float]], said: Callable[[float], str]) -> None:
    """A bar a row, all as long, divided by its parts; the sum, as `said`, stands behind it. Parts that hide in the
    time of others have no place here."""
    parts = list(dict.fromkeys(part for row in rows.values() for part in row))
    image, draw = _paper("", len(rows))
    for number, part in enumerate(parts):
        draw.text((LEFT + 90 * number, 8), part, fill=COLOURS[number % len(COLOURS)])
    for number, (name, row) in enumerate(rows.items()):
        top, left, whole = TOP + ROW * number, float(LEFT), sum(row.values()) or 1.0
        draw.text((10, top + 4), name, fill="black")
        for part, value in row.items():
            right = left + LONGEST * value / whole
            draw.rectangle((left, top, right, top + 18), fill=COLOURS[parts.index(part) % len(COLOURS)])
            left = right
        draw.text((left + 6, top + 4), said(sum(row.values())), fill="black")
    image.save(file)


def _word(name: str) -> str:
    return name.partition(",")[0]


def _paper(title: str, rows: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (LEFT + LONGEST + 90, TOP + ROW * rows + 6), "white")
    draw = ImageDraw.Draw(image)
    draw.text((10, 8), title, fill="black")
    return image, draw
