"""The visual encoder of kind `hf`: for every family the numbers of transformers' own model.

The models are tiny and random, written and read by transformers itself.
"""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from made_vision_models import CONFIGS, PREPROCESSOR, write_vision_model
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers.image_transforms import normalize, rescale
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from clipbert_cli.errors import RecipeError, WeightsError
from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.model.freezing import PART, freeze
from clipbert_cli.model.heads import HeadSpec
from clipbert_cli.model.hf_encoder import HuggingFaceEncoder, quiet_transformers
from clipbert_cli.model.hf_files import NUMBERS, read_pixels, read_vision_model
from clipbert_cli.model.pretrained import from_pretrained, save_pretrained
from clipbert_cli.model.weights.vision import load_vision_model
from clipbert_cli.recipe.schema import BertConfigSection, ModelConfig, VisualConfig
from clipbert_cli.train.model_options import recompute_activations

FAMILIES = list(CONFIGS)
TWO_TOWERS = [name for name, config in CONFIGS.items() if "vision_config" in config]
SIZES = {name: (56, 84) if name.startswith("dinov2") else (64, 96) for name in FAMILIES}
WIDTH = 24
TOLERANCE = 1e-5


def made_encoder(folder: Path, *, width: int = WIDTH, **settings: Any) -> HuggingFaceEncoder:
    """The encoder of a folder, with its weights, in evaluation mode."""
    config = VisualConfig(kind="hf", weights=str(folder), **settings)
    encoder = HuggingFaceEncoder(config, width, read_vision_model(folder)).eval()
    load_vision_model(encoder, folder)
    return encoder


def frames_of(size: int, *, count: int = 3) -> Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)


def own_features(kind: str, model: Any, frames: Tensor) -> Tensor:
    """The grid (M, h, w, C) of features as transformers gives it, for frames of uint8."""
    mean, std = (torch.tensor(PREPROCESSOR[name]).view(3, 1, 1) for name in ("image_mean", "image_std"))
    pixels = (frames / 255 - mean) / std
    size, options = frames.shape[-1], {}
    if kind in ("siglip", "clip", "vit", "beit", "swin", "swinv2") and size != SIZES[kind][0]:
        options["interpolate_pos_encoding"] = True
    if kind == "siglip2":
        from transformers.models.siglip2.image_processing_pil_siglip2 import convert_image_to_patches

        side = size // 16
        patches = torch.stack([torch.from_numpy(convert_image_to_patches(image.numpy(), 16)) for image in pixels])
        options = {
            "pixel_attention_mask": torch.ones(patches.shape[:2], dtype=torch.int64),
            "spatial_shapes": torch.tensor([[side, side]] * len(patches)),
        }
        pixels = patches
    with torch.no_grad():
        output = model(pixel_values=pixels, **options).last_hidden_state
    if output.ndim == 4:
        return output.permute(0, 2, 3, 1)
    first = {"clip": 1, "vit": 1, "beit": 1, "dinov2": 1, "dinov2_with_registers": 5, "dinov3_vit": 5}
    first["dinov3_convnext"] = 1
    tokens = output[:, first.get(kind, 0) :]
    side = round(tokens.shape[1] ** 0.5)
    return tokens.reshape(len(tokens), side, side, -1)


def expected_grid(kind: str, model: Any, encoder: HuggingFaceEncoder, frames: Tensor) -> Tensor:
    """transformers' features through the encoder's projection."""
    with torch.no_grad():
        return encoder.projection(own_features(kind, model, frames))


# ------------------------------------------------------------------------------------------------ numbers


@pytest.mark.parametrize("kind", FAMILIES)
def test_features_are_those_of_transformers_at_any_size(kind: str, tmp_path: Path) -> None:
    model = write_vision_model(kind, tmp_path)
    encoder = made_encoder(tmp_path)
    for size in SIZES[kind]:
        frames = frames_of(size)
        grid = encoder(frames)
        torch.testing.assert_close(grid, expected_grid(kind, model, encoder, frames), atol=TOLERANCE, rtol=0)
        assert grid.shape[1:3] == (encoder.cells(size), encoder.cells(size))


def made_model(folder: Path) -> ClipBert:
    """A small model with the encoder of a folder."""
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    bert = BertConfigSection(vocab_size=20, max_position_embeddings=16, **sizes)
    config = ModelConfig(visual=VisualConfig(kind="hf", weights=str(folder)), bert=bert)
    return ClipBert(config, HeadSpec("classifier", 3), read_vision_model(folder)).eval()


@pytest.mark.parametrize("kind", FAMILIES)
def test_each_clip_of_a_batch_is_encoded_as_if_it_were_alone(kind: str, tmp_path: Path) -> None:
    write_vision_model(kind, tmp_path)
    model = made_model(tmp_path)
    load_vision_model(model.visual_encoder, tmp_path)  # type: ignore[arg-type]
    size = SIZES[kind][0]
    frames = torch.randint(0, 256, (2, 3, 2, 3, size, size), dtype=torch.uint8)  # B K T C H W
    with torch.no_grad():
        together = model.encode_visual(frames)
        alone = [[model.encode_visual(frames[b : b + 1, k : k + 1]) for k in range(3)] for b in range(2)]
    assert together.shape == (2, 3, model.visual_encoder.cells(size) ** 2, WIDTH)  # type: ignore[operator]
    expected = torch.cat([torch.cat(clips, dim=1) for clips in alone])
    torch.testing.assert_close(together, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("kind", TWO_TOWERS)
def test_a_vision_tower_saved_alone_is_the_same(kind: str, tmp_path: Path) -> None:
    whole, alone = tmp_path / "whole", tmp_path / "alone"
    write_vision_model(kind, whole)
    write_vision_model(kind, alone, tower_alone=True)
    frames = frames_of(64)
    torch.manual_seed(0)
    first = made_encoder(whole)
    torch.manual_seed(0)
    second = made_encoder(alone)
    assert torch.equal(first(frames), second(frames))


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_trained_parameter_has_a_gradient_and_recomputation_has_the_same(kind: str, tmp_path: Path) -> None:
    write_vision_model(kind, tmp_path)
    encoder = made_encoder(tmp_path)
    recomputing = copy.deepcopy(encoder)
    recompute_activations(recomputing.parts())
    frames = frames_of(SIZES[kind][0], count=2)
    gradients = []
    for each in (encoder, recomputing):
        each(frames).square().sum().backward()
        gradients.append({name: one.grad for name, one in each.named_parameters() if one.requires_grad})
    assert [name for name, gradient in gradients[0].items() if gradient is None] == []
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


@pytest.mark.parametrize("kind", FAMILIES)
def test_parts_cover_the_encoder_and_freezing_changes_no_number(kind: str, tmp_path: Path) -> None:
    model = write_vision_model(kind, tmp_path)
    encoder = made_encoder(tmp_path)
    parts = {f"visual.{name}": part for name, part in encoder.parts().items()}
    assert all(map(PART.fullmatch, parts))
    names = [name for name in parts if name != "visual.backbone"]
    covered = [id(one) for name in names for module in parts[name] for one in module.parameters()]
    assert sorted(covered) == sorted(id(one) for one in encoder.parameters())
    freeze(encoder, parts, ["visual.stem", "visual.0-1"])
    frames = frames_of(SIZES[kind][0])
    encoder(frames).sum().backward()
    for module in (*parts["visual.stem"], *parts["visual.0"], *parts["visual.1"]):
        assert all(one.grad is None for one in module.parameters())
    assert any(one.grad is not None for one in parts["visual.2"][0].parameters())
    torch.testing.assert_close(encoder(frames), expected_grid(kind, model, encoder, frames), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("kind", FAMILIES)
def test_bfloat16_is_close(kind: str, tmp_path: Path) -> None:
    """bfloat16 has 8 bits: features of order 1 differ by some hundredths."""
    model = write_vision_model(kind, tmp_path)
    encoder = made_encoder(tmp_path)
    frames = frames_of(SIZES[kind][0])
    with torch.autocast("cpu", torch.bfloat16):
        grid = encoder(frames).float()
    expected = expected_grid(kind, model, encoder, frames)
    assert (grid - expected).norm() < 0.05 * expected.norm()


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning"
)  # the compiler's
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("kind", ["siglip", "siglip2", "convnext"])
def test_a_compiled_encoder_gives_the_same(kind: str, tmp_path: Path) -> None:
    """One family per shape of output, and the one whose patches are cut here."""
    model = write_vision_model(kind, tmp_path)
    encoder = made_encoder(tmp_path)
    frames = frames_of(64)
    grid = torch.compile(encoder.forward)(frames)
    torch.testing.assert_close(grid, expected_grid(kind, model, encoder, frames), atol=TOLERANCE, rtol=0)


def test_frames_need_not_be_square(tmp_path: Path) -> None:
    model = write_vision_model("dinov2", tmp_path)
    encoder = made_encoder(tmp_path)
    frames = torch.randint(0, 256, (2, 3, 56, 84), dtype=torch.uint8)
    mean, std = encoder.pixel_mean.view(3, 1, 1), encoder.pixel_std.view(3, 1, 1)
    with torch.no_grad():
        tokens = model(pixel_values=(frames / 255 - mean) / std).last_hidden_state[:, 1:]
    grid = encoder(frames)
    assert grid.shape == (2, 4, 6, WIDTH)
    torch.testing.assert_close(grid, encoder.projection(tokens).reshape(grid.shape), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(("stride", "side"), [(1, 6), (2, 3), (4, 2)])
def test_grid_stride_averages_cells_before_the_projection(stride: int, side: int, tmp_path: Path) -> None:
    model = write_vision_model("siglip", tmp_path)
    encoder = made_encoder(tmp_path, grid_stride=stride)
    frames = frames_of(96)
    features = own_features("siglip", model, frames)  # (M, 6, 6, C)
    pieces = [range(start, min(start + stride, 6)) for start in range(0, 6, stride)]
    means = torch.stack(
        [
            torch.stack([features[:, list(rows)][:, :, list(columns)].mean(dim=(1, 2)) for columns in pieces], dim=1)
            for rows in pieces
        ],
        dim=1,
    )
    assert means.shape[1:3] == (side, side)
    torch.testing.assert_close(encoder(frames), encoder.projection(means), atol=TOLERANCE, rtol=0)


# ------------------------------------------------------------------------------------------------ description


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_saved_description_builds_an_equal_encoder(kind: str, tmp_path: Path) -> None:
    write_vision_model(kind, tmp_path)
    encoder = made_encoder(tmp_path)
    again = HuggingFaceEncoder(VisualConfig(kind="hf"), WIDTH, encoder.vision).eval()
    again.load_state_dict(encoder.state_dict())
    frames = frames_of(SIZES[kind][1])
    assert torch.equal(again(frames), encoder(frames))
    assert str(tmp_path) not in str(encoder.vision)


def test_the_description_names_size_and_grid(tmp_path: Path) -> None:
    write_vision_model("siglip", tmp_path)
    encoder = made_encoder(tmp_path, grid_stride=2)
    assert encoder.describe(64) == "siglip, 64 pixels, grid 4 x 4, averaged 2 x 2"
    assert encoder.describe(96) == "siglip, 96 pixels (native 64), grid 6 x 6, averaged 2 x 2"


@pytest.mark.parametrize(
    ("kind", "size", "better"),
    [
        ("siglip", 72, 64),
        ("dinov2", 64, 70),
        ("dinov3_vit", 100, 96),
        ("convnext", 72, 64),
        ("dinov3_convnext", 90, 96),
    ],
)
def test_frames_of_part_of_a_patch_are_refused(kind: str, size: int, better: int, tmp_path: Path) -> None:
    write_vision_model(kind, tmp_path)
    encoder = made_encoder(tmp_path)
    with pytest.raises(RecipeError, match=f"data.frame_size is {size}: it must be a multiple") as caught:
        encoder.check_frame_size(size)
    assert caught.value.hint == f"set data.frame_size to {better}"
    encoder.check_frame_size(better)


@pytest.mark.parametrize("kind", ["swin", "swinv2"])
def test_the_width_of_swin_is_the_one_that_its_model_computes(kind: str, tmp_path: Path) -> None:
    write_vision_model(kind, tmp_path)
    states(hidden_size=3)(tmp_path)
    assert made_encoder(tmp_path).channels == 128


@pytest.mark.parametrize("kind", ["swin", "swinv2"])
@pytest.mark.parametrize("size", [72, 100, 65])
def test_models_that_pad_take_any_size(kind: str, size: int, tmp_path: Path) -> None:
    write_vision_model(kind, tmp_path)
    encoder = made_encoder(tmp_path)
    encoder.check_frame_size(size)
    side = encoder.cells(size)
    assert encoder(frames_of(size)).shape == (3, side, side, WIDTH)


# ------------------------------------------------------------------------------------------------ pixels

PROCESSORS = {
    "siglip": "SiglipImageProcessorPil",
    "siglip2": "Siglip2ImageProcessorPil",
    "clip": "CLIPImageProcessorPil",
    "dinov2": "BitImageProcessorPil",
    "dinov2_with_registers": "BitImageProcessorPil",
    "vit": "ViTImageProcessorPil",
    "swin": "ViTImageProcessorPil",
    "swinv2": "ViTImageProcessorPil",
    "beit": "BeitImageProcessorPil",
    "convnext": "ConvNextImageProcessorPil",
    "convnextv2": "ConvNextImageProcessorPil",
}
"""Family -> its processor that runs without torchvision."""

# The processor of DINOv3 needs torchvision. It writes null for the steps that it leaves out.
DINOV3_PROCESSOR = {
    "image_processor_type": "DINOv3ViTImageProcessor",
    **dict.fromkeys(("crop_size", "do_center_crop", "do_convert_rgb", "input_data_format", "do_flip_channel_order")),
    **dict.fromkeys(("do_resize", "do_rescale", "do_normalize"), True),
    "image_mean": IMAGENET_DEFAULT_MEAN,
    "image_std": IMAGENET_DEFAULT_STD,
    "rescale_factor": 1 / 255,
    "resample": 2,
    "size": {"height": 224, "width": 224},
}


@pytest.mark.parametrize("kind", PROCESSORS)
def test_pixels_are_those_of_the_familys_own_processor(kind: str, tmp_path: Path) -> None:
    write_vision_model(kind, tmp_path)
    processor = getattr(transformers, PROCESSORS[kind])()
    (tmp_path / "preprocessor_config.json").unlink()
    processor.save_pretrained(tmp_path)
    encoder = made_encoder(tmp_path)
    frames = frames_of(64, count=2)
    images = [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in frames]
    pixels = encoder.pixels(frames)
    if kind == "siglip2":
        # It cuts patches itself, and resizes to as many as it is told.
        found = processor(images, max_num_patches=16, return_tensors="pt")["pixel_values"]
        pixels = encoder.inputs(pixels)["pixel_values"]
    else:
        found = processor(images, do_resize=False, do_center_crop=False, return_tensors="pt")["pixel_values"]
    one_level = 1 / 255 / float(encoder.pixel_std.min())
    assert (pixels - found).abs().max() <= one_level
    assert (pixels - found).abs().mean() < one_level / 100


@pytest.mark.parametrize("kind", ["dinov3_vit", "dinov3_convnext"])
def test_pixels_of_dinov3_follow_its_processors_steps(kind: str, tmp_path: Path) -> None:
    """It rescales pixels, resizes, which changes nothing on a canvas of that size, and normalises."""
    write_vision_model(kind, tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(DINOV3_PROCESSOR))
    encoder = made_encoder(tmp_path)
    frames = frames_of(224, count=2)
    rescaled = [rescale(frame, DINOV3_PROCESSOR["rescale_factor"]) for frame in frames.numpy()]
    found = np.stack([normalize(frame, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD) for frame in rescaled])
    torch.testing.assert_close(encoder.pixels(frames), torch.from_numpy(found), atol=1e-5, rtol=0, check_dtype=False)


@pytest.mark.parametrize(
    ("changes", "mean", "std"),
    [
        ({}, PREPROCESSOR["image_mean"], PREPROCESSOR["image_std"]),
        ({"do_rescale": False, "image_mean": [123.0, 116.0, 103.0], "image_std": [58.0, 57.0, 57.5]}, None, None),
        (
            {"rescale_factor": 1 / 127.5, "image_mean": [1.0, 1.0, 1.0], "image_std": [1.0, 1.0, 1.0]},
            [0.5] * 3,
            [0.5] * 3,
        ),
        ({"do_normalize": False}, [0.0] * 3, [1.0] * 3),
        # null leaves a setting to the default of the processor's class.
        ({"do_normalize": None}, PREPROCESSOR["image_mean"], PREPROCESSOR["image_std"]),
        ({"do_rescale": None}, PREPROCESSOR["image_mean"], PREPROCESSOR["image_std"]),
        ({"rescale_factor": None}, PREPROCESSOR["image_mean"], PREPROCESSOR["image_std"]),
    ],
)
def test_preprocessor_settings_become_pixel_statistics(
    changes: dict[str, Any], mean: list[float] | None, std: list[float] | None, tmp_path: Path
) -> None:
    values = {**PREPROCESSOR, **changes}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(values))
    found = read_pixels(tmp_path)
    assert found is not None
    assert found.mean == pytest.approx(mean or [each / 255 for each in values["image_mean"]])
    assert found.std == pytest.approx(std or [each / 255 for each in values["image_std"]])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rescale_factor": "a"}, "rescale_factor is 'a': it must be a valid number"),
        ({"rescale_factor": 0}, "rescale_factor is 0: it must be greater than 0"),
        ({"rescale_factor": 1e-320}, "expected finite numbers"),
        ({"image_std": [1, 0, 1]}, "expected finite numbers, and deviations greater than 0"),
        ({"image_mean": None}, "'image_mean' is missing"),
        ({"image_mean": 0.5}, "image_mean is 0.5: it must be a valid list"),
        ({"image_mean": ["a", 1, 1]}, r"image_mean is \['a', 1, 1\]: it must be a valid number"),
        ({"do_rescale": 0}, "do_rescale is 0: it must be a valid boolean"),
        ({"do_normalize": "no"}, "do_normalize is 'no': it must be a valid boolean"),
        ({"do_flip_channel_order": True}, "do_flip_channel_order is True: it must be False"),
    ],
)
def test_preprocessor_settings_of_another_kind_are_refused(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({**PREPROCESSOR, **changes}))
    with pytest.raises(WeightsError, match=says) as caught:
        read_pixels(tmp_path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_processor_of_images_and_texts_names_its_image_processor(tmp_path: Path) -> None:
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": PREPROCESSOR}))
    found = read_pixels(tmp_path)
    assert found is not None
    assert found.mean == pytest.approx(PREPROCESSOR["image_mean"])


def test_the_recipe_may_set_other_pixel_statistics(tmp_path: Path) -> None:
    write_vision_model("vit", tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    encoder = made_encoder(tmp_path, pixel_mean=[10.0, 20.0, 30.0], pixel_std=[2.0, 4.0, 5.0])
    frames = frames_of(64)
    mean, std = torch.tensor([10.0, 20.0, 30.0]).view(3, 1, 1), torch.tensor([2.0, 4.0, 5.0]).view(3, 1, 1)
    torch.testing.assert_close(encoder.pixels(frames), (frames - mean) / std, atol=1e-4, rtol=1e-5)


# ------------------------------------------------------------------------------------------------ loading


def test_the_report_names_what_is_loaded_new_and_ignored(tmp_path: Path) -> None:
    write_vision_model("siglip", tmp_path)
    encoder = HuggingFaceEncoder(VisualConfig(kind="hf"), WIDTH, read_vision_model(tmp_path))
    report = load_vision_model(encoder, tmp_path)
    assert set(report.loaded) == {f"visual_encoder.backbone.{name}" for name in encoder.backbone.state_dict()}
    assert report.new == ("visual_encoder.projection.weight", "visual_encoder.projection.bias")
    ignored = report.ignored
    assert all(name.startswith(("text_model.", "logit_")) for name in ignored["the text tower and its like"])
    assert all(name.startswith(("vision_model.head.", "head.")) for name in ignored["poolers and heads"])
    assert "new: visual_encoder.projection.weight, visual_encoder.projection.bias" in report.summary()


@pytest.mark.parametrize("kind", ["vit", "dinov2", "swin", "convnext"])
def test_a_classifier_gives_its_body(kind: str, tmp_path: Path) -> None:
    """Published weights of these families are those of classifiers, whose names have a prefix."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **CONFIGS[kind], num_labels=7)
    classifier = transformers.AutoModelForImageClassification.from_config(config)
    classifier.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    encoder = made_encoder(tmp_path)
    body = getattr(classifier, classifier.base_model_prefix)
    for name, value in encoder.backbone.state_dict().items():
        torch.testing.assert_close(value, body.state_dict()[name], msg=name)


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def no_preprocessor(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()


def text_model(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": 30522}))


def unknown_family(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "levit"}))


def damaged_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def states(**values: object) -> Callable[[Path], None]:
    """Return a function that changes values of a folder's config.json."""

    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **values}))

    return change


class Runs:
    """A pickle of it runs code when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("code has run",)


def pickled_code(folder: Path) -> None:
    no_weights(folder)
    torch.save({"embeddings.cls_token": Runs()}, folder / "pytorch_model.bin")


def bad_statistics(folder: Path) -> None:
    (folder / "preprocessor_config.json").write_text(json.dumps({**PREPROCESSOR, "image_std": [0.5, 0.5]}))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (no_weights, "expected model.safetensors or model.safetensors.index.json or pytorch_model.bin"),
        (no_config, "config.json: not found"),
        (no_preprocessor, "is no preprocessor_config.json or processor_config.json, which say how pixels"),
        (text_model, "model_type is 'bert': this is a text model, expected a vision model"),
        (unknown_family, "model_type is 'levit', expected a supported vision model"),
        (damaged_config, "config.json:1: not JSON"),
        (states(intermediate_size=128), "of another shape or type"),
        (states(hidden_act="none such"), "config.json: transformers cannot build a vit of it"),
        (states(hidden_size="wide"), "config.json: hidden_size is 'wide': it must be a valid integer"),
        (
            states(num_attention_heads=0),
            "config.json: num_attention_heads is 0: it must be greater than or equal to 1",
        ),
        (states(patch_size=[16]), r"config.json: patch_size is \[16\]: it must be a valid integer"),
        (states(num_channels=1), "config.json: num_channels is 1: it must be 3"),
        (states(num_hidden_layers=4), r"missing in the file \(16\): visual_encoder.backbone.layers.3"),
        (states(num_hidden_layers=2), r"unexpected in the file \(16\): layers.2"),
        (pickled_code, "holds more than tensors"),
        (bad_statistics, "image_std is .*: List should have at least 3 items"),
    ],
)
def test_what_cannot_be_loaded_is_one_message(
    damage: Callable[[Path], None], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_vision_model("vit", tmp_path)
    capsys.readouterr()
    damage(tmp_path)
    with pytest.raises(WeightsError, match=says) as caught:
        made_encoder(tmp_path)
    assert str(tmp_path) in str(caught.value)
    if damage in (text_model, unknown_family):
        assert "siglip_vision_model" in str(caught.value.hint)
    assert capsys.readouterr() == ("", "")


def numbers_of(config: dict[str, Any]) -> dict[str, Any]:
    """The entries of a configuration that are numbers, or lists of them."""
    return {
        name: value
        for name, value in config.items()
        if isinstance((value[:1] or [None])[0] if isinstance(value, list) else value, int | float)
        and not isinstance(value, bool)
    }


def refusal(folder: Path) -> str:
    """The message about a folder of a vision model; nothing if it encodes a frame in training."""
    try:
        encoder = HuggingFaceEncoder(VisualConfig(kind="hf"), WIDTH, read_vision_model(folder)).train()
    except WeightsError as error:
        return str(error)
    assert encoder(frames_of(2 * encoder.patch_size, count=1)).isfinite().all()
    return ""


def with_numbers(folder: Path, kind: str) -> tuple[dict[str, Any], Callable[[dict[str, Any]], str]]:
    """The numbers of the vision part of a new model, and a function that changes some and returns the refusal."""
    write_vision_model(kind, folder)
    config = json.loads((folder / "config.json").read_text())
    tower = config.get("vision_config", config)
    good = dict(tower)

    def refused(changes: dict[str, Any], check: Callable[[Path], str] = refusal) -> str:
        tower.update({**good, **changes})
        (folder / "config.json").write_text(json.dumps(config))
        return check(folder)

    return numbers_of(good), refused


SIZES_OF_MODELS = {"hidden_size", "num_hidden_layers", "num_attention_heads", "depths", "num_heads", "patch_size"}
UNUSED_NUMBERS = {"out_indices", "encoder_stride", "projection_dim", "pooler_output_size", "num_layers", "vocab_size"}
UNUSED_NUMBERS |= {"auxiliary_channels", "auxiliary_loss_weight", "auxiliary_num_convs", "pool_scales"}
UNUSED_NUMBERS |= {"semantic_loss_ignore_index"}


def reading_refused(folder: Path) -> str:
    try:
        read_vision_model(folder)
    except WeightsError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_impossible_number_is_one_message_that_names_it(kind: str, tmp_path: Path) -> None:
    numbers, refused = with_numbers(tmp_path, kind)
    assert numbers.keys() - NUMBERS.keys() <= UNUSED_NUMBERS
    for name in numbers.keys() & NUMBERS.keys():
        as_value: Callable[[Any], Any] = (
            (lambda bad: [bad, 1]) if isinstance(numbers[name], list) else (lambda bad: bad)
        )
        said = [refused({name: as_value(bad)}, reading_refused) for bad in (-1, "wide", [1, 2], 0, None, 10**10)]
        assert all(each.startswith(f"{tmp_path}/config.json: {name} is ") for each in said if each)
        must = len(said) if name in SIZES_OF_MODELS else 3
        assert all(said[:must]), (name, said)


@pytest.mark.parametrize("kind", FAMILIES)
def test_numbers_that_decide_nothing_end_in_features_or_in_one_message(kind: str, tmp_path: Path) -> None:
    numbers, refused = with_numbers(tmp_path, kind)
    for bad in (-1, "wide", 10**9):
        unused = {name: [bad] if isinstance(numbers[name], list) else bad for name in numbers.keys() & UNUSED_NUMBERS}
        says = refused(unused)
        assert not says or says.startswith(f"{tmp_path}/config.json: transformers cannot build a {kind}")


@pytest.mark.parametrize(
    ("kind", "changes", "says"),
    [
        ("siglip", {"num_attention_heads": 5}, r"num_attention_heads is 5: it must divide hidden_size \(32\)"),
        ("dinov2", {"hidden_size": 31}, r"num_attention_heads is 2: it must divide hidden_size \(31\)"),
        ("dinov3_vit", {"num_attention_heads": 16}, "transformers cannot build a dinov3_vit of it"),
        ("siglip2", {"num_patches": 15}, "transformers cannot build a siglip2_vision_model of it"),
        ("swin", {"num_heads": [3, 2, 2, 4]}, "transformers cannot build a swin of it"),
        ("swinv2", {"num_heads": [1, 2]}, "transformers cannot build a swinv2 of it"),
        ("convnext", {"hidden_sizes": [8]}, "transformers cannot build a convnext of it"),
        ("convnextv2", {"num_stages": 3}, "transformers cannot build a convnextv2 of it"),
        ("vit", {"hidden_size": 65_536, "intermediate_size": 65_536}, "its sizes amount to .* expected at most"),
    ],
)
def test_numbers_that_do_not_fit_each_other_are_one_message(
    kind: str, changes: dict[str, Any], says: str, tmp_path: Path
) -> None:
    _, refused = with_numbers(tmp_path, kind)
    assert re.search(rf"config\.json: .*{says}", refused(changes))


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("num_attention_heads", -1),
        ("num_attention_heads", 5),
        ("hidden_size", 0),
        ("num_hidden_layers", 10**9),
        ("image_size", None),
        ("patch_size", "wide"),
        ("num_channels", 1),
        ("attention_probs_dropout_prob", 7),
        ("mean", [0.5]),
    ],
)
def test_impossible_numbers_of_a_saved_model_are_one_message(name: str, bad: object, tmp_path: Path) -> None:
    write_vision_model("vit", tmp_path / "vit")
    save_pretrained(made_model(tmp_path / "vit"), tmp_path / "saved")
    path = tmp_path / "saved/config.json"
    description = json.loads(path.read_text())
    described = description["vision"]["config"] if name != "mean" else description["vision"]["pixels"]
    described[name] = bad
    path.write_text(json.dumps(description))
    with pytest.raises(WeightsError, match=rf"(?s)^{re.escape(str(path))}: .*{name}"):
        from_pretrained(tmp_path / "saved")


def test_weights_may_be_in_several_files(tmp_path: Path) -> None:
    one, several = tmp_path / "one", tmp_path / "several"
    model = write_vision_model("vit", one)
    shutil.copytree(one, several)
    (several / "model.safetensors").unlink()
    with quiet_transformers():
        model.save_pretrained(several, max_shard_size="20KB")
    assert len(list(several.glob("model-*.safetensors"))) > 1
    expected, found = made_encoder(one).backbone.state_dict(), made_encoder(several).backbone.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    index = several / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("model-00001", "../model-00001"))
    with pytest.raises(WeightsError, match=r"expected a \.safetensors file beside it"):
        made_encoder(several)


def test_weights_may_be_a_torch_file(tmp_path: Path) -> None:
    write_vision_model("vit", tmp_path)
    expected = made_encoder(tmp_path)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    found = made_encoder(tmp_path)
    assert all(
        torch.equal(one, other)
        for one, other in zip(
            found.backbone.state_dict().values(), expected.backbone.state_dict().values(), strict=True
        )
    )
