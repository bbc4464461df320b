"""DALI gives the pixels of PyAV and Pillow: exactly on CPU, approximately on a GPU. Skipped without DALI."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from dali_cases import CLIPS, ON_CPU, ON_GPU, VP9, assert_close_pixels, probed
from made_media import image, marked_frame, read_index, video

from clipbert_cli.errors import DecodeError
from clipbert_cli.media.canvas import resize_pad
from clipbert_cli.media.dali.clips import EncodedClips, image_segment, video_segments
from clipbert_cli.media.frames import rgb_frames
from clipbert_cli.media.sampling import FrameIndices


def decoded(data: bytes, clips: FrameIndices, size: int, dtype: torch.dtype, device: str = "cpu") -> torch.Tensor:
    """(K, T, 3, S, S) by DALI."""
    from clipbert_cli.media.dali.pipeline import DaliDecoder

    known = probed(data)
    decoder = ON_CPU if device == "cpu" else ON_GPU
    encoded = video_segments(data, clips, info=known.info, table=known.packets, decoder=decoder)
    assert encoded is not None
    return DaliDecoder(decoder, kind="video", frame_size=size, dtype=dtype).decode([encoded])[0].cpu()


def expected(data: bytes, clips: FrameIndices, size: int, dtype: torch.dtype) -> torch.Tensor:
    """The same by PyAV and torch."""
    known = probed(data)
    wanted = {index for clip in clips for index in clip}
    frames = {
        index: torch.from_numpy(frame.copy())  # (h, w, 3)
        for index, frame in rgb_frames(data, wanted, info=known.info, packets=known.packets, colours="dali")
    }
    canvas = torch.zeros((len(clips), len(clips[0]), 3, size, size), dtype=dtype)
    for k, clip in enumerate(clips):
        for t, index in enumerate(clip):
            canvas[k, t] = resize_pad(frames[index][None], size, dtype=dtype)[0]
    return canvas


@pytest.mark.dali
@pytest.mark.parametrize(
    ("codec", "height", "width"), [("libvpx-vp9", 64, 96), ("libvpx-vp9", 146, 98), ("libvpx", 66, 98)]
)
def test_video_on_cpu_equals_pyav(codec: str, height: int, width: int) -> None:
    data = video(48, **(VP9 | {"codec": codec, "height": height, "width": width}))
    native = max(height, width)  # nothing is resized
    assert torch.equal(decoded(data, CLIPS, native, torch.uint8), expected(data, CLIPS, native, torch.uint8))
    for size in (224, 72):
        for dtype in (torch.float32, torch.uint8):
            assert torch.equal(decoded(data, CLIPS, size, dtype), expected(data, CLIPS, size, dtype))


@pytest.mark.dali
@pytest.mark.parametrize(
    "options", [{}, {"subsampling": 0}, {"progressive": True}, {"grey": True}, {"exif": b"turned"}]
)
def test_jpeg_on_cpu_equals_pillow(options: dict[str, object]) -> None:
    from PIL import Image

    from clipbert_cli.media.dali.pipeline import DaliDecoder
    from clipbert_cli.media.images import decode_image

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
    for size, dtype in ((130, torch.uint8), (448, torch.float32), (448, torch.uint8)):
        dali = DaliDecoder(ON_CPU, kind="image", frame_size=size, dtype=dtype)
        found = dali.decode([image_segment(data, height=90, width=130)])[0, 0]
        assert torch.equal(found, resize_pad(pixels, size, dtype=dtype))


@pytest.mark.dali
def test_a_bad_segment_is_reported_and_the_decoder_still_works() -> None:
    from clipbert_cli.media.dali.pipeline import DaliDecoder

    good = encoded_clips(video(48, **VP9))
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


def encoded_clips(data: bytes) -> EncodedClips:
    known = probed(data)
    assert known.packets is not None
    encoded = video_segments(data, ((20,),), info=known.info, table=known.packets, decoder=ON_CPU)
    assert encoded is not None
    return encoded


# ---------------------------------------------------------------------------------------------- on a GPU


VIDEOS: dict[str, dict[str, Any]] = {
    "h264 with B-frames": {"options": {"g": "12", "bf": "2", "crf": "12"}},
    "hevc": {"codec": "libx265", "options": {"x265-params": "keyint=12:bframes=3:log-level=none"}},
    "vp9": VP9,
}


@pytest.mark.cuda
@pytest.mark.dali
@pytest.mark.parametrize("name", VIDEOS)
def test_video_on_a_gpu_is_close_to_pyav(name: str) -> None:
    data = video(48, height=240, width=320, **VIDEOS[name])
    for size in (320, 448):
        found = decoded(data, CLIPS, size, torch.uint8, "cuda:0")
        assert_close_pixels(found, expected(data, CLIPS, size, torch.uint8))


@pytest.mark.cuda
@pytest.mark.dali
def test_jpeg_on_a_gpu_is_close_to_pillow() -> None:
    from clipbert_cli.media.dali.pipeline import DaliDecoder
    from clipbert_cli.media.images import decode_image

    data = image(marked_frame(77, 90, 130), "jpeg")
    dali = DaliDecoder(ON_GPU, kind="image", frame_size=130)
    found = dali.decode([image_segment(data, height=90, width=130)])[0, 0, 0].cpu()
    assert_close_pixels(found[:, :90], torch.from_numpy(decode_image(data)).permute(2, 0, 1))
