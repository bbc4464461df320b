"""DALI gives the pixels of PyAV and Pillow: exactly on CPU, approximately on a GPU. Skipped without DALI."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch
from dali_cases import (
    CLIPS,
    ON_A_CPU,
    ON_A_GPU,
    ON_CPU,
    ON_GPU,
    VP8,
    VP9,
    assert_close_pixels,
    damaged_clips,
    encoded_clips,
    made,
    probed,
)
from made_media import image, marked_frame, read_index, video
from PIL import Image

from clipbert_cli.errors import DecodeError
from clipbert_cli.media.backend import Decoder
from clipbert_cli.media.canvas import resize_pad
from clipbert_cli.media.dali.clips import EncodedClips, image_segment
from clipbert_cli.media.dali.pipeline import DaliDecoder
from clipbert_cli.media.frames import decode_canvas
from clipbert_cli.media.images import decode_image
from clipbert_cli.media.sampling import FrameIndices

DECODERS = {"cpu": ON_CPU, "cuda": ON_GPU}
ON_DEVICES = [
    pytest.param("cpu", marks=pytest.mark.dali),
    pytest.param("cuda", marks=[pytest.mark.cuda, pytest.mark.dali]),
]


def on_devices(cpu: Iterable[str], gpu: Iterable[str]) -> list[object]:
    """Parameters (name, device), for what each device decodes."""
    return [
        pytest.param(name, *each.values, marks=each.marks, id=f"{name} {each.values[0]}")
        for each, names in zip(ON_DEVICES, (cpu, gpu), strict=True)
        for name in names
    ]


def clips_for(data: bytes, decoder: Decoder, clips: FrameIndices = CLIPS) -> EncodedClips:
    encoded = encoded_clips(data, decoder, clips)
    assert encoded is not None
    return encoded


def expected(data: bytes, size: int) -> torch.Tensor:
    """The frames `CLIPS` by PyAV and torch, (K, T, 3, S, S)."""
    known = probed(data)
    return decode_canvas(data, CLIPS, size, info=known.info, packets=known.packets, colours="dali")


@pytest.mark.dali
@pytest.mark.parametrize("settings", [VP9, VP9 | {"height": 146, "width": 98}, VP8 | {"height": 66, "width": 98}])
def test_video_on_cpu_equals_pyav(settings: dict[str, Any]) -> None:
    data = video(48, **settings)
    for size in (max(probed(data).info.upright_size), 224, 72):
        dali = DaliDecoder(ON_CPU, kind="video", frame_size=size)
        assert torch.equal(dali.decode([clips_for(data, ON_CPU)])[0], expected(data, size))


@pytest.mark.dali
@pytest.mark.parametrize(
    "options", [{}, {"subsampling": 0}, {"progressive": True}, {"grey": True}, {"exif": b"turned"}]
)
def test_jpeg_on_cpu_equals_pillow(options: dict[str, object]) -> None:
    picture = Image.fromarray(marked_frame(77, 90, 130))
    options = dict(options)
    if options.pop("grey", False):
        picture = picture.convert("L")
    if options.get("exif"):
        exif = Image.Exif()
        exif[0x0112] = 6
        options["exif"] = exif
    data = image(picture, "jpeg", **options)
    pixels = decode_image(data)[None]  # (1, 90, 130, 3)
    for size in (130, 448):
        dali = DaliDecoder(ON_CPU, kind="image", frame_size=size)
        found = dali.decode([image_segment(data, height=90, width=130)])[0, 0]
        assert torch.equal(found, resize_pad(pixels, size))


@pytest.mark.dali
def test_a_bad_segment_is_reported_and_the_decoder_still_works() -> None:
    good = clips_for(video(48, **VP9), ON_CPU, ((20,),))
    broken = bytearray(good.segments[0].data)
    broken[len(broken) // 2 :] = bytes(byte ^ 0x5A for byte in broken[len(broken) // 2 :])
    bad = replace(good, segments=(replace(good.segments[0], data=bytes(broken)),))
    beyond = replace(good, segments=(replace(good.segments[0], frames=(40,)),))
    dali = DaliDecoder(ON_CPU, kind="video", frame_size=96)
    before = dali.decode([good])
    for wrong in (bad, beyond, bad):
        with pytest.raises(DecodeError, match="DALI cannot decode it"):
            dali.decode([good, wrong])
        assert torch.equal(dali.decode([good]), before)
    assert read_index(before[0, 0, 0].permute(1, 2, 0).numpy()) == 20


# ------------------------------------------------------------------------- on a GPU, and as far as a CPU goes
#
# DALI resizes here in both cases, as it does on a GPU.


@pytest.mark.parametrize(("name", "device"), on_devices(ON_A_CPU, ON_A_GPU))
def test_a_video_is_close_to_pyavs(name: str, device: str) -> None:
    encoded = clips_for(made(name), DECODERS[device])
    for size in (max(encoded.height, encoded.width), 448, 72):
        dali = DaliDecoder(DECODERS[device], kind="video", frame_size=size, resizes=True)
        assert_close_pixels(dali.decode([encoded])[0].cpu(), expected(made(name), size))


@pytest.mark.parametrize("device", ON_DEVICES)
def test_codecs_and_sizes_take_turns_in_one_decoder(device: str) -> None:
    """NVDEC's decoders are kept and used again, and so is the memory of frames."""
    names = [*(ON_A_CPU if device == "cpu" else ON_A_GPU)]
    dali = DaliDecoder(DECODERS[device], kind="video", frame_size=224, resizes=True)
    for turn in (names, names[::-1], names[1::2] * 2 + names[::2] * 3):
        together = dali.decode([clips_for(made(name), DECODERS[device]) for name in turn]).cpu()
        for name, found in zip(turn, together, strict=True):
            assert_close_pixels(found, expected(made(name), 224))


@pytest.mark.parametrize(("name", "device"), on_devices(("vp8", "vp9"), ("h264", "hevc", "vp8", "vp9")))
def test_damage_inside_the_bitstream_stays_in_its_clips(name: str, device: str) -> None:
    whole = clips_for(made(name), DECODERS[device])
    dali = DaliDecoder(DECODERS[device], kind="video", frame_size=224, resizes=True)
    before = dali.decode([whole])
    for wrong in damaged_clips(whole, 12):
        with contextlib.suppress(DecodeError):
            assert torch.equal(dali.decode([whole, wrong])[0], before[0])
        assert torch.equal(dali.decode([whole]), before)


@pytest.mark.parametrize("device", ON_DEVICES)
@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"subsampling": 1}, {"progressive": True}])
def test_a_jpeg_picture_is_close_to_pillows(options: dict[str, object], device: str) -> None:
    data = image(marked_frame(77, 90, 130), "jpeg", **options)
    for size in (130, 448):
        dali = DaliDecoder(DECODERS[device], kind="image", frame_size=size, resizes=True)
        alone, *others = dali.decode([image_segment(data, height=90, width=130)] * 9)[:, 0, 0].cpu()
        assert_close_pixels(alone, resize_pad(decode_image(data)[None], size)[0])
        assert all(torch.equal(each, alone) for each in others)
