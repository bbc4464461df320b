"""The input of the first convolution and the visual tokens that enter the transformer equal the golden set's."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import reference
import torch
from bounds import FEATURE, NORMALISED_PIXEL, NORMALISED_SHARE, SCORE
from goldens import golden_arrays, golden_json, picture_batch, text
from torch import Tensor
from torch.nn import functional as F

from clipbert_cli.model.resnet import ConvNorm, GridResNet
from clipbert_cli.model.visual_encoder import normalise
from clipbert_cli.recipe.schema import VisualConfig
from clipbert_cli.task import pooling

pytestmark = pytest.mark.golden


def small_encoder(**changes: object) -> GridResNet:
    return GridResNet(VisualConfig(stem_size=8, hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], **changes), 8)


def first_convolution_input(encoder: GridResNet, frames: Tensor) -> Tensor:
    seen: list[Tensor] = []
    first = next(module for module in encoder.modules() if isinstance(module, ConvNorm))
    first.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    encoder(frames)
    return seen[0]


def test_padded_frames_are_normalised_then_flipped_to_bgr() -> None:
    stored, arrays = golden_json("transforms/transforms.json")["chain"], golden_arrays("transforms/transforms.npz")
    padded = torch.from_numpy(arrays["chain_padded"])[None]
    mean, std = torch.tensor(stored["mean_rgb"]), torch.tensor(stored["std_rgb"])
    normalised = normalise(padded, mean, std, unit_range=False)
    assert np.abs(normalised[0].numpy() - arrays["chain_normalised_rgb"]).max() <= NORMALISED_PIXEL
    encoder = small_encoder(pixel_mean=stored["mean_rgb"], pixel_std=stored["std_rgb"])
    wide = F.pad(padded, (0, 64, 0, 64))  # a frame that leaves something after six halvings
    entered = first_convolution_input(encoder, wide)[..., : padded.shape[-2], : padded.shape[-1]]
    assert np.abs(entered[0].numpy() - arrays["chain_first_conv_input_bgr"]).max() <= NORMALISED_PIXEL
    assert first_convolution_input(encoder, wide)[0, :, -1, -1].tolist() == stored["padding_value_first_conv_input"]


@pytest.mark.parametrize("pixels", ["0_255", "0_1"])
def test_pixels_of_either_range_give_the_same_with_means_of_unit_range(pixels: str) -> None:
    stored = golden_json("transforms/transforms.json")["normaliser_unit_range"]
    frames = torch.tensor(stored[f"input_{pixels}"]).view(stored["shape"])
    mean, std = torch.tensor(stored["mean"]), torch.tensor(stored["std"])
    ours = normalise(frames, mean, std, unit_range=True)
    assert ours.flatten().tolist() == pytest.approx(stored[f"output_for_{pixels}"], abs=NORMALISED_SHARE)
    if pixels == "0_255":
        as_bytes = normalise(frames.to(torch.uint8), mean, std, unit_range=True)
        assert torch.equal(as_bytes, ours)


@functools.cache
def pretraining_grid(image_seed: int, items: int, side: int) -> Tensor:
    """Return the grid (items, h, w, D) of one picture per item. All cases of the set share it."""
    pixels = torch.from_numpy(picture_batch(image_seed, items, 1, side, side))
    with torch.no_grad():
        grid: Tensor = reference.own_model("pretrain").visual_encoder(pixels.flatten(0, 1))
    return grid


@pytest.mark.parametrize("stored", golden_json("model/pixel_sampling.json"), ids=lambda stored: stored["key"])
def test_sampled_tokens_give_the_original_numbers(stored: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = golden_arrays("model/pixel_sampling.npz")
    model = reference.own_model("pretrain")
    model.visual_embeddings.sample_size = stored["requested"]
    model.train(stored["mode"] == "train")
    items = len(stored["n_examples_list"])
    grid = pretraining_grid(stored["image_seed"], items, stored["side"])
    monkeypatch.setattr(model.visual_encoder, "forward", lambda frames: grid)
    rows, length = np.shape(stored["mlm_labels"])
    vocabulary = model.config.bert.vocab_size
    ids, mask = (torch.from_numpy(each) for each in text(stored["text_seed"], rows, length, vocabulary))
    item = torch.arange(items).repeat_interleave(torch.tensor(stored["n_examples_list"]))
    chosen = None if stored["indices"] is None else torch.tensor(stored["indices"])
    monkeypatch.setattr(model.visual_embeddings, "draw_cells", lambda *_, **__: chosen)
    frames = torch.empty(items, 1, 1, 3, stored["side"], stored["side"], dtype=torch.uint8)
    with torch.no_grad():
        visual = model.encode_visual(frames)[item]  # (N, 1, V, D)
        outputs = model.score(model.embed_text(ids), mask, visual, word_positions=reference.every_token(ids))
    mlm_labels, itm_labels = torch.tensor(stored["mlm_labels"]), torch.tensor(stored["itm_labels"])
    assert visual.shape[2] == stored["visual_tokens"]
    ours = {
        "visual_embedding": visual[:, 0, :, ::8],
        "itm_scores": outputs.logits[:, 0],
        "mlm_loss": F.cross_entropy(outputs.mlm_logits[:, 0], mlm_labels.flatten(), reduction="none"),
    }
    for name, values in ours.items():
        expected = arrays[f"{stored['key']}/{name}"]
        assert values.shape == expected.shape
        assert np.abs(values.numpy() - expected).max() <= (FEATURE if name == "visual_embedding" else SCORE), name
    loss = reference.masked_words(outputs.mlm_logits, mlm_labels) + pooling.matching(outputs.logits, itm_labels)
    assert loss.item() == pytest.approx(stored["loss"], abs=SCORE)


@pytest.mark.parametrize("stored", golden_json("model/pixel_sampling.json"), ids=lambda stored: stored["key"])
def test_as_many_tokens_are_drawn_as_the_original_draws(stored: dict) -> None:
    embeddings = reference.own_model("pretrain").visual_embeddings
    embeddings.sample_size = stored["requested"]
    embeddings.train(stored["mode"] == "train")
    _, height, width, _ = pretraining_grid(stored["image_seed"], len(stored["n_examples_list"]), stored["side"]).shape
    drawn = embeddings.draw_cells(height * width, device=torch.device("cpu"))
    # Nothing is drawn where all tokens are kept; the set lists all of them if as many or more were requested.
    found = list(range(height * width)) if drawn is None else drawn.tolist()
    assert len(found) == stored["visual_tokens"]
    assert found == sorted(set(found))
    assert set(found) <= set(range(height * width))
