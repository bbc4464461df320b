"""Videos, clips, decoders and a tolerance that the tests of DALI and benchmarks/first_gpu_minutes.py share."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from made_media import video

from clipbert_cli.media.backend import Decoder
from clipbert_cli.media.dali.clips import EncodedClips, video_segments
from clipbert_cli.media.dali.nvdec import USUAL_LIMITS
from clipbert_cli.media.probe import ProbedVideo, probe_video
from clipbert_cli.media.sampling import FrameIndices

VPX: dict[str, Any] = {"container": "webm", "options": {"g": "12", "cpu-used": "8"}}
VP9: dict[str, Any] = {"codec": "libvpx-vp9", **VPX}
VP8: dict[str, Any] = {"codec": "libvpx", **VPX}
OPEN_GOP: dict[str, Any] = {
    "options": {"x264-params": "open-gop=1:bframes=3:b-pyramid=none:keyint=12:min-keyint=12:scenecut=0"}
}
FULL_RANGE: dict[str, Any] = {"pix_fmt": "yuvj420p", "options": {"g": "12"}}
INTERLACED: dict[str, Any] = {"options": {"g": "12", "x264-params": "interlaced=1"}}


def hevc(parameters: str, **size: int) -> dict[str, Any]:
    """The settings of a HEVC video with B-frames."""
    return {"codec": "libx265", "options": {"x265-params": f"keyint=12:bframes=3:log-level=none:{parameters}"}, **size}


ON_A_GPU: dict[str, dict[str, Any]] = {
    "h264": {"options": {"g": "12", "bf": "2"}},
    "h264 slices": {"options": {"g": "12", "x264-params": "slices=4"}},
    "h264 many b": {"options": {"g": "48", "x264-params": "bframes=8:b-pyramid=normal:b-adapt=0"}},
    "h264 matroska": {"container": "matroska", "options": {"g": "16", "bf": "0"}},
    "h264 padded": {"height": 360, "width": 640},
    "h264 padded baseline": {"height": 252, "width": 448, "options": {"profile": "baseline", "g": "12"}},
    "h264 padded on both sides": {"height": 150, "width": 196, "container": "matroska"},
    "hevc": hevc("min-keyint=12"),
    "hevc open group": hevc("open-gop=1:min-keyint=12"),
    "hevc padded": hevc("ctu=32:min-cu-size=32", height=146, width=200),
    "vp8": VP8,
    "vp9": VP9,
    "vp9 small": VP9 | {"height": 144, "width": 176},
}
"""Videos of 240 x 320 pixels, if they state no other size, that a GPU decodes: settings of `made_media.video`."""

LEFT_TO_PYAV: dict[str, dict[str, Any]] = {
    "h264 full range": FULL_RANGE,
    "h264 interlaced": INTERLACED,
    "h264 open group": OPEN_GOP,
    "vp8 odd": VP8 | {"height": 150, "width": 198},
    "mpeg4": {"codec": "mpeg4", "container": "avi", "options": {}},
}
"""Those that a GPU would decode wrongly or not at all."""

LARGE: dict[str, dict[str, Any]] = {
    "h264 1080p": {"height": 1080, "width": 1920, "options": {"g": "12", "preset": "ultrafast"}},
    "hevc 720p": hevc("ctu=64:min-cu-size=32", height=720, width=1280),
}
"""Usual sizes, which take too long for tests; a GPU decodes them."""

VIDEOS = {**ON_A_GPU, **LEFT_TO_PYAV, **LARGE}

ON_A_CPU = tuple(name for name in ON_A_GPU if name.startswith("vp"))
"""Those that DALI decodes on a CPU, too."""

CLIPS: FrameIndices = ((3, 17), (20, 3), (33, 47), (47, 47))
ON_CPU = Decoder("dali", "cpu", "a test", is_required=True)
ON_GPU = Decoder("dali", "cuda:0", "a test", USUAL_LIMITS, is_required=True)


@cache
def made(name: str) -> bytes:
    """The file of 48 frames with this name above."""
    return video(48, **({"height": 240, "width": 320} | VIDEOS[name]))


def probed(data: bytes) -> ProbedVideo:
    found = probe_video(data)
    assert found.packets is not None
    return found


def encoded_clips(data: bytes, decoder: Decoder, clips: FrameIndices = CLIPS) -> EncodedClips | None:
    """What DALI gets of a video; None if PyAV decodes it."""
    known = probe_video(data)
    if known.packets is None:
        return None
    return video_segments(data, clips, info=known.info, table=known.packets, decoder=decoder)


def damaged_clips(encoded: EncodedClips, count: int) -> Iterator[EncodedClips]:
    """The same clips with bits that flip inside the bitstream of one segment, `count` times."""
    rng = random.Random(1)
    for number in range(count):
        place = number % len(encoded.segments)
        segments = list(encoded.segments)
        data = bytearray(segments[place].data)
        for _ in range(1 + number % 20):
            data[rng.randrange(data.find(b"mdat") + 8, len(data))] ^= 1 << rng.randrange(8)
        segments[place] = replace(segments[place], data=bytes(data))
        yield replace(encoded, segments=tuple(segments))


def assert_close_pixels(found: torch.Tensor, wanted: torch.Tensor) -> None:
    difference = (found.float() - wanted.float()).abs()
    assert difference.mean() <= 0.5
    assert np.percentile(difference.numpy(), 99) <= 3
