"""What enters the CNN and which cells enter the transformer, as the golden set says."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import torch
from bounds import SCORE
from goldens import golden_arrays, golden_json, picture_batch, text
from torch import Tensor
from torch.nn import functional as F

from clipbert_cli.model import ClipBert, HeadSpec
from clipbert_cli.model.resnet import ConvNorm, GridResNet, normalise
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
    normalised = normalise(padded, mean, std)
    assert np.abs(normalised[0].numpy() - arrays["chain_normalised_rgb"]).max() <= 1e-4
    encoder = small_encoder(pixel_mean=stored["mean_rgb"], pixel_std=stored["std_rgb"])
    wide = F.pad(padded, (0, 64, 0, 64))  # a frame that leaves something after six halvings
    entered = first_convolution_input(encoder, wide)[..., : padded.shape[-2], : padded.shape[-1]]
    assert np.abs(entered[0].numpy() - arrays["chain_first_conv_input_bgr"]).max() <= 1e-4
    assert first_convolution_input(encoder, wide)[0, :, -1, -1].tolist() == stored["padding_value_first_conv_input"]


@pytest.mark.parametrize("pixels", ["0_255", "0_1"])
def test_pixels_of_either_range_give_the_same_with_means_of_unit_range(pixels: str) -> None:
    stored = golden_json("transforms/transforms.json")["normaliser_unit_range"]
    frames = torch.tensor(stored[f"input_{pixels}"]).view(stored["shape"])
    ours = normalise(frames, torch.tensor(stored["mean"]), torch.tensor(stored["std"]))
    assert ours.flatten().tolist() == pytest.approx(stored[f"output_for_{pixels}"], abs=1e-6)
    if pixels == "0_255":
        as_bytes = normalise(frames.to(torch.uint8), torch.tensor(stored["mean"]), torch.tensor(stored["std"]))
        assert torch.equal(as_bytes, ours)


@pytest.mark.parametrize("stored", golden_json("model/pixel_sampling.json"), ids=lambda stored: stored["key"])
def test_sampled_cells_give_the_original_numbers(stored: dict, golden_model) -> None:
    arrays = golden_arrays("model/pixel_sampling.npz")
    config = reference.model_config(
        "tiny", dropout=0.0, attention_dropout=0.0, pixel_random_sampling_size=stored["requested"]
    )
    donor = reference.with_head(golden_model("tiny"), "pretrain", "tiny")
    model = ClipBert(config, HeadSpec("pretraining", 2))
    model.load_state_dict(donor.state_dict())
    model.train(stored["mode"] == "train")
    rows, length = np.shape(stored["mlm_labels"])
    ids, mask = (torch.from_numpy(each) for each in text(stored["text_seed"], rows, length, config.bert.vocab_size))
    items = len(stored["n_examples_list"])
    pixels = torch.from_numpy(picture_batch(stored["image_seed"], items, 1, stored["side"], stored["side"]))
    item = torch.arange(items).repeat_interleave(torch.tensor(stored["n_examples_list"]))
    chosen = None if stored["indices"] is None else torch.tensor(stored["indices"])
    with torch.no_grad():
        visual = model.encode_visual(pixels[:, None], cells=chosen)[item]  # (N, 1, V, D)
        outputs = model.answer(model.embed_text(ids), mask, visual)
    mlm_labels, itm_labels = torch.tensor(stored["mlm_labels"]), torch.tensor(stored["itm_labels"])
    assert visual.shape[2] == stored["visual_tokens"]
    ours = {
        "visual_embedding": visual[:, 0, :, ::8],
        "itm_scores": outputs.logits[:, 0],
        "mlm_loss": F.cross_entropy(outputs.mlm_logits.flatten(0, 2), mlm_labels.flatten(), reduction="none"),
    }
    for name, values in ours.items():
        expected = arrays[f"{stored['key']}/{name}"]
        assert values.shape == expected.shape
        assert np.abs(values.numpy() - expected).max() <= reference.tolerance_of(name, expected), name
    loss = pooling.masked_words(outputs.mlm_logits, mlm_labels) + pooling.matching(outputs.logits, itm_labels)
    assert loss.item() == pytest.approx(stored["loss"], abs=SCORE)
    if chosen is not None and len(chosen) == stored["requested"]:  # a draw of our own has the same form
        drawn = model.visual_embeddings.draw_cells(pixels.shape[-1] ** 2 // 64**2, device=pixels.device)
        assert drawn.shape == chosen.shape
