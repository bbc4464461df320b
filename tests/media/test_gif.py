"""Damaged pictures of a GIF are told from whole ones, of several writers."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial

import av
import numpy as np
import pytest
from made_media import marked_frame, video
from PIL import Image

from clipbert_cli.media import damage
from clipbert_cli.media.probe import inspect_video

FRAMES = 12

first_damaged = partial(damage.first_damaged, "gif")


def by_pillow(**options: bool) -> bytes:
    """With a palette for each picture."""
    pictures = [Image.fromarray(marked_frame(index)).quantize(16 + index) for index in range(FRAMES)]
    file = io.BytesIO()
    pictures[0].save(file, "gif", save_all=True, append_images=pictures[1:], comment=b"whole", **options)
    return file.getvalue()


def noisy() -> bytes:
    """With more codes than 12 bits give, two colours."""
    noise = np.random.default_rng(0).integers(0, 2, (FRAMES, 200, 300)).astype(np.uint8) * 255
    pictures = [Image.fromarray(picture).convert("1") for picture in noise]
    file = io.BytesIO()
    pictures[0].save(file, "gif", save_all=True, append_images=pictures[1:], duration=40)
    return file.getvalue()


WRITERS: dict[str, Callable[[], bytes]] = {
    "FFmpeg": lambda: video(FRAMES, container="gif", codec="gif"),
    "Pillow": by_pillow,
    "Pillow, interlaced": lambda: by_pillow(interlace=True),
    "Pillow, optimized": lambda: by_pillow(optimize=True),
    "noise": noisy,
}


def demuxed(data: bytes) -> list[bytes]:
    with av.open(io.BytesIO(data)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


@pytest.mark.parametrize("writer", WRITERS)
def test_whole_pictures_are_told_from_damaged_ones(writer: str) -> None:
    packets = demuxed(WRITERS[writer]())
    assert len(packets) == FRAMES
    assert first_damaged(packets) is None
    rng = np.random.default_rng(0)
    noticed = 0
    for _ in range(60):
        number = int(rng.integers(1, FRAMES))
        changed = bytearray(packets[number])
        changed[int(rng.integers(len(changed) // 2, len(changed) - 8))] ^= 1 << int(rng.integers(8))
        found = first_damaged([*packets[:number], bytes(changed), *packets[number + 1 :]])
        assert found in (None, number)
        noticed += found == number
    assert noticed >= 30  # not a code for another one of the same length
    for cut in (packets[5][:3], packets[5][: len(packets[5]) // 2], b"", bytes(40)):
        assert first_damaged([*packets[:5], cut, *packets[6:]]) == 5


def test_pictures_of_writers_that_give_other_numbers_of_pixels_are_not_judged() -> None:
    packets = demuxed(video(FRAMES, container="gif", codec="gif"))
    one, place = packets[1], packets[1].index(b"\x2c", 8)
    wider = one[: place + 5] + bytes([one[place + 5] + 1]) + one[place + 6 :]
    assert first_damaged([wider] * 3) is None
    assert first_damaged([wider, one]) == 0


def test_a_gif_ends_before_a_damaged_picture() -> None:
    data = video(FRAMES, container="gif", codec="gif")
    assert inspect_video(data).info.complete
    packet = demuxed(data)[7]
    place = data.index(packet) + len(packet) // 2
    info = inspect_video(data[:place] + bytes(8) + data[place + 8 :]).info
    assert (len(info.pts), info.complete) == (7, False)
