"""Resizing and padding."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch
from bounds import JPEG_PIXEL, RESIZED_PIXEL, VIDEO_PIXEL
from goldens import golden_arrays, golden_folder, golden_json, picture
from made_media import clips_of

from clipbert_cli.media.canvas import is_extreme_aspect_ratio, resize_pad, resize_size
from clipbert_cli.media.images import decode_image
from clipbert_cli.media.sampling import ClipSampling

CASES = "transforms/transforms.json"
ARRAYS = "transforms/transforms.npz"


def padded(frames: np.ndarray, size: int) -> np.ndarray:
    return resize_pad(frames, size, dtype=torch.float32).numpy()


@pytest.mark.golden
def test_sizes_are_truncated_as_the_original_truncates() -> None:
    sizes = golden_json(CASES)["resize_size"]
    rows = sizes["rows"] + sizes["float_pitfalls"]
    assert rows
    for height, width, size, *expected in rows:
        assert resize_size(height, width, size) == tuple(expected)


@pytest.mark.golden
def test_small_pictures_equal_the_original() -> None:
    arrays = golden_arrays(ARRAYS)
    for case in golden_json(CASES)["small"]:
        index = case["index"]
        frame = arrays[f"small_in_{index}"]
        assert np.array_equal(frame, picture(case["image_seed"], case["in_h"], case["in_w"]))
        np.testing.assert_allclose(
            padded(frame[None], case["max_size"])[0], arrays[f"small_out_{index}"], rtol=0, atol=RESIZED_PIXEL
        )


@pytest.mark.golden
def test_large_pictures_equal_the_original() -> None:
    for case in golden_json(CASES)["large"]:
        frame = picture(case["image_seed"], case["in_h"], case["in_w"])
        assert zlib.crc32(frame.tobytes()) == case["input_crc32"]
        out = padded(frame[None], case["max_size"])[0]
        np.testing.assert_allclose(
            out.reshape(-1)[:: case["sample_stride"]], case["sample"], rtol=0, atol=RESIZED_PIXEL
        )
        assert out.mean(dtype=np.float64) == pytest.approx(case["mean"], abs=RESIZED_PIXEL)
        assert out.std(dtype=np.float64) == pytest.approx(case["std"], abs=RESIZED_PIXEL)


@pytest.mark.golden
def test_padding_is_zero_at_the_right_and_bottom() -> None:
    arrays, case = golden_arrays(ARRAYS), golden_json(CASES)["chain"]
    out = padded(arrays["chain_in"][None], case["max_size"])[0]
    np.testing.assert_allclose(out, arrays["chain_padded"], rtol=0, atol=RESIZED_PIXEL)


@pytest.mark.golden
def test_picture_files_equal_the_original() -> None:
    files, arrays = golden_json(CASES)["files"], golden_arrays(ARRAYS)
    for record in files["records"]:
        pixels = decode_image((golden_folder() / "transforms/images" / record["file"]).read_bytes())
        assert pixels.shape == (*record["decoded_shape"][:2], 3)
        if record["usable_by_model"]:
            tolerance = JPEG_PIXEL if record["file"].endswith(".jpg") else RESIZED_PIXEL
            out = padded(pixels[None], files["max_size"])[0]
            np.testing.assert_allclose(out, arrays[record["array"]], rtol=0, atol=tolerance)


@pytest.mark.golden
def test_a_video_equals_the_original() -> None:
    case, arrays = golden_json(CASES)["video"], golden_arrays(ARRAYS)
    sampling = ClipSampling(case["strategy"], num_frames=case["num_frames"], fps=case["fps"])
    frames = clips_of((golden_folder() / case["file"]).read_bytes(), sampling)[0]  # (T, h, w, 3)
    np.testing.assert_allclose(
        frames.transpose(0, 3, 1, 2), arrays["video_raw_rgb"].astype(float), rtol=0, atol=VIDEO_PIXEL
    )
    np.testing.assert_allclose(padded(frames, case["max_size"]), arrays[case["array"]], rtol=0, atol=VIDEO_PIXEL)


@pytest.mark.golden
def test_extreme_aspect_ratios_are_those_of_the_original() -> None:
    for height, width, rejected in golden_json(CASES)["extreme_aspect_ratio"]["rows"]:
        assert is_extreme_aspect_ratio(height, width) == rejected


@pytest.mark.parametrize(("height", "width"), [(64, 96), (96, 64), (48, 48), (30, 20)])
def test_uint8_is_one_level_off_the_float_values_at_most(height: int, width: int) -> None:
    frames = np.stack([picture(seed, height, width) for seed in range(3)])
    out = resize_pad(frames, 48)
    assert out.shape == (3, 3, 48, 48)
    assert out.dtype == torch.uint8
    difference = out.numpy() - np.rint(padded(frames, 48))
    assert np.abs(difference).max() <= 1
    assert np.abs(difference).mean() < 0.4


@pytest.mark.usefixtures("dirty_memory")
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize(("height", "width"), [(64, 96), (96, 64), (48, 48), (30, 20), (48, 30), (30, 48)])
def test_only_the_frame_and_zeros_are_on_a_canvas(height: int, width: int, dtype: torch.dtype) -> None:
    grey = np.full((2, height, width, 3), 200, np.uint8)
    inside = torch.zeros(2, 3, 48, 48, dtype=dtype)
    resized = resize_size(height, width, 48)
    inside[..., : resized[0], : resized[1]] = 200
    assert torch.equal(resize_pad(grey, 48, dtype=dtype), inside)


def test_tensors_and_arrays_are_the_same() -> None:
    frames = picture(0, 20, 30)[None]
    assert torch.equal(resize_pad(frames, 16), resize_pad(torch.from_numpy(frames), 16))


def test_a_line_keeps_one_pixel() -> None:
    assert resize_pad(np.full((1, 1, 1000, 3), 9, np.uint8), 64)[0, :, 0].unique().tolist() == [9]
