"""Pixels of videos and images."""

from __future__ import annotations

import dataclasses
import io

import av
import numpy as np
import pytest
import torch
from made_media import clips_of, image, info_of, marked_frame, read_index, video
from PIL import Image

from clipbert_cli.errors import DecodeError
from clipbert_cli.media.canvas import empty_canvas, resize_into, resize_pad, upright
from clipbert_cli.media.ffmpeg import limited_to
from clipbert_cli.media.frames import decode_canvas, decode_frames
from clipbert_cli.media.images import decode_image, jpeg_size, probe_image
from clipbert_cli.media.sampling import ClipSampling, select


def test_clips_are_the_selected_frames() -> None:
    data = video(90)
    info = info_of(data)
    sampling = ClipSampling("random", 6, 3, 3.0)
    clips = clips_of(data, sampling, np.random.default_rng(1))
    assert clips.shape == (6, 3, 64, 96, 3)
    assert clips.dtype == np.uint8
    expected = select(info, sampling, np.random.default_rng(1))
    assert tuple(tuple(read_index(frame) for frame in clip) for clip in clips) == expected


def test_decoding_stops_at_the_last_wanted_frame() -> None:
    whole = video(90)
    info = info_of(whole)
    damaged = whole[: len(whole) // 2] + bytes(300) + whole[len(whole) // 2 + 300 :]
    assert not info_of(damaged).complete
    assert read_index(decode_frames(damaged, ((0, 5),), info=info)[0, 1]) == 5


def test_an_error_before_a_wanted_frame_is_reported() -> None:
    whole = video(90)
    damaged = whole[: len(whole) // 2] + bytes(300) + whole[len(whole) // 2 + 300 :]
    with pytest.raises(DecodeError):
        decode_frames(damaged, ((0, 89),), info=info_of(whole))


def test_an_index_beyond_the_video_is_refused() -> None:
    data = video(10)
    with pytest.raises(DecodeError, match="10 frames decode"):
        decode_frames(data, ((0, 10),), info=info_of(data))


def test_information_of_other_bytes_is_noticed() -> None:
    with pytest.raises(DecodeError, match="another file"):
        decode_frames(video(30), ((3,),), info=info_of(video(30, times=range(0, 60, 2))))
    longer = info_of(video(60))
    with pytest.raises(DecodeError, match="decoding ends before"):
        decode_frames(video(30), ((3, 50),), info=longer)


def bt601(y: int, u: int, v: int) -> list[float]:
    """ITU-R BT.601, limited range."""
    luma, blue, red = 1.164384 * (y - 16), u - 128, v - 128
    return [luma + 1.596027 * red, luma - 0.391762 * blue - 0.812968 * red, luma + 2.017232 * blue]


@pytest.mark.parametrize("tag", ["unspecified", "bt709"])
def test_colours_are_bt601_whatever_the_stream_says(tag: str) -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        colours = {} if tag == "unspecified" else {"x264-params": f"colormatrix={tag}:colorprim={tag}:transfer={tag}"}
        stream.options = {"qp": "0", **colours}
        frame = av.VideoFrame(64, 64, "yuv420p")
        for plane, value in zip(frame.planes, (120, 90, 200), strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        frame.pts = 0
        output.mux(stream.encode(frame))
        output.mux(stream.encode())
    pixels = clips_of(file.getvalue(), ClipSampling("start", num_frames=1))
    assert np.abs(pixels[0, 0] - np.array(bt601(120, 90, 200))).max() <= 2  # With ITU-R BT.709 it is up to 36.


def test_reading_costs_no_more_than_the_unique_frames() -> None:
    data = video(30)
    info = info_of(data)
    clips = decode_frames(data, ((4, 4), (4, 2)), info=info)
    assert [[read_index(frame) for frame in clip] for clip in clips] == [[4, 4], [4, 2]]


@pytest.mark.usefixtures("dirty_memory")
@pytest.mark.parametrize("height", [64, 160])  # landscape and portrait
@pytest.mark.parametrize("bytes_at_once", [1, 50_000, 2**24])
def test_a_canvas_holds_the_frames_resized(height: int, bytes_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipbert_cli.media.frames._BYTES_RESIZED_TOGETHER", bytes_at_once)
    data = video(30, height=height)
    info, clips = info_of(data), ((4, 9, 4), (4, 2, 29))
    frames = decode_frames(data, clips, info=info)
    canvas = decode_canvas(data, clips, 72, info=info)
    assert torch.equal(canvas.flatten(0, 1), resize_pad(frames.reshape(6, *frames.shape[2:]), 72))


# Images


GREY = np.arange(0, 240, 4, dtype=np.uint8).reshape(6, 10)
COLOUR = np.stack([GREY, 255 - GREY, GREY // 2], axis=-1)


def test_grey_and_palette_images_become_rgb() -> None:
    assert np.array_equal(decode_image(image(GREY)), np.repeat(GREY[..., None], 3, axis=2))
    palette = Image.fromarray(COLOUR).quantize(60)
    assert np.array_equal(decode_image(image(palette)), np.asarray(palette.convert("RGB")))
    bits = Image.fromarray(GREY > 100)
    assert set(np.unique(decode_image(image(bits)))) == {0, 255}


def test_sixteen_bits_are_scaled_to_eight() -> None:
    deep = (np.arange(60, dtype=np.uint32).reshape(6, 10) * 1100).astype(np.uint16)
    expected = np.rint(deep / 257).astype(np.uint8)
    assert np.array_equal(decode_image(image(deep))[..., 1], expected)
    assert np.array_equal(decode_image(image(deep, "tiff"))[..., 0], expected)


def test_transparent_pixels_lie_on_white() -> None:
    layers = np.dstack([COLOUR, np.full(GREY.shape, 255, np.uint8)])
    layers[0, :, 3] = 0
    pixels = decode_image(image(layers))
    assert (pixels[0] == 255).all()
    assert np.array_equal(pixels[1:], COLOUR[1:])
    keyed = image(Image.fromarray(COLOUR), transparency=tuple(int(value) for value in COLOUR[2, 3]))
    assert (decode_image(keyed)[2, 3] == 255).all()
    assert np.array_equal(decode_image(keyed)[3:], COLOUR[3:])


def test_cmyk_is_converted() -> None:
    cmyk = Image.fromarray(np.full((8, 8, 3), (200, 40, 90), np.uint8)).convert("CMYK")
    pixels = decode_image(image(cmyk, "jpeg", quality=95))
    assert np.abs(pixels.astype(int) - (200, 40, 90)).max() <= 4


def test_an_animated_image_gives_its_first_frame() -> None:
    first, second = (Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (10, 240))
    data = image(first, "gif", save_all=True, append_images=[second])
    assert (decode_image(data) == 10).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_and_canvases_are_turned_alike(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = image(marked_frame(1), "png", exif=exif)
    assert np.array_equal(decode_image(data), marked_frame(1))
    turned = decode_image(data, rotation="apply")
    ours = upright(torch.from_numpy(marked_frame(1)).movedim(-1, 0), orientation).movedim(0, -1)
    assert np.array_equal(ours.numpy(), turned)
    # Turning after resizing gives the pixels of turning before.
    resized = empty_canvas(1, size=48, frame=turned.shape[:2])
    resize_into(resized[0], marked_frame(1), orientation=orientation)
    assert (resized.int() - resize_pad(turned[None], 48).int()).abs().max() <= 1


@pytest.mark.parametrize("orientation", [0, 9, 99, 255, 65_535])
def test_an_orientation_without_a_meaning_counts_as_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = image(marked_frame(1), "jpeg", exif=exif)
    assert probe_image(data).orientation == 1
    assert np.array_equal(decode_image(data, rotation="apply"), decode_image(data))
    assert jpeg_size(data, rotation="apply") == marked_frame(1).shape[:2]


def test_floating_point_pixels_are_refused() -> None:
    data = image(Image.fromarray(np.zeros((4, 4), np.float32)), "tiff")
    with pytest.raises(DecodeError, match="floating point"):
        decode_image(data)


def test_images_beyond_the_pixel_cap_are_refused_before_decoding() -> None:
    with pytest.raises(DecodeError, match="more than 100 pixels"), limited_to(100):
        decode_image(image(marked_frame(1)))
    bomb = image(Image.new("1", (20_000, 9_000)))  # 22 kB that would be half a gigabyte of RGB
    with pytest.raises(DecodeError, match="pixels"):
        decode_image(bomb)


def test_a_video_information_prints_no_frame_times() -> None:
    info = info_of(video(30))
    assert "pts" not in repr(dataclasses.replace(info, complete=False))
