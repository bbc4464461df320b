"""transformers' `tvp` layout: a model of ClipBERT's shape, with random weights from transformers itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from running import SHORT, Clipbert, as_options
from transformers import ResNetConfig, TvpConfig, TvpForVideoGrounding, TvpModel

from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.model.heads import HeadSpec
from clipbert_cli.model.hf_encoder import quiet_transformers
from clipbert_cli.model.weights.transfer import load_weights
from clipbert_cli.recipe.schema import BertConfigSection, ModelConfig, VisualConfig

SIZES = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
STAGES = {"hidden_sizes": [16, 16, 24, 32], "depths": [1, 2, 1, 1]}


def small_tvp(kind: type, **sizes: int) -> TvpModel:
    torch.manual_seed(0)
    backbone = ResNetConfig(embedding_size=8, downsample_in_bottleneck=True, out_features=["stage4"], **STAGES)
    grid = {"max_grid_row_position_embeddings": 100, "max_grid_col_position_embeddings": 100}
    prompts = {"visual_prompt_size": 8, "max_img_size": 64, "num_frames": 2}
    positions = {"max_position_embeddings": 24}
    model = kind(TvpConfig(backbone_config=backbone, **{**SIZES, **sizes}, **grid, **prompts, **positions)).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor) * (0.5 if name.endswith("running_var") else 0.05))
    return model


@pytest.mark.parametrize("kind", [TvpModel, TvpForVideoGrounding])
def test_every_entry_has_its_place(kind: type, tmp_path: Path) -> None:
    other = small_tvp(kind)
    with quiet_transformers():
        other.save_pretrained(tmp_path)
    statistics = {"pixel_mean": [0.0, 0.0, 0.0], "pixel_std": [1.0, 1.0, 1.0]}
    visual = VisualConfig(stem_size=8, **STAGES, **statistics)
    bert = BertConfigSection(**SIZES, max_position_embeddings=24)
    model = ClipBert(ModelConfig(visual=visual, bert=bert), HeadSpec("classifier", 3)).eval()
    report = load_weights(model, tmp_path)
    assert report.format == "Hugging Face TVP"
    assert all(name.startswith("head.") for name in report.new)
    assert "set model.visual.pixel_mean to [8.2381, 7.3115, 6.6981] and pixel_std to [9.6335," in report.summary()
    assert len(report.ignored["prompts of video grounding"]) == 5
    body = getattr(other, "model", other)
    # The same grid from the same pixels: blue, green, red in both.
    frames = torch.randint(0, 256, (2, 3, 128, 128), dtype=torch.uint8)
    with torch.no_grad():
        expected = body.vision_model((frames.flip(1) / 255).unsqueeze(1))[:, 0]
        found = model.visual_encoder(frames)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    ids = torch.randint(5, 60, (2, 9))
    with torch.no_grad():
        torch.testing.assert_close(model.embed_text(ids), body.embeddings(ids), atol=1e-5, rtol=0)
        tokens = model.embed_text(ids)
        mine = model.transformer(tokens, torch.ones(2, 9, dtype=torch.bool))
        theirs = body.encoder(tokens, attention_mask=torch.zeros(2, 1, 1, 9))[0]
    torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)


def test_a_recipe_starts_from_the_folder(clipbert: Clipbert, made_data: Path, tmp_path: Path) -> None:
    words = len((made_data / "vocab.txt").read_text().split())
    with quiet_transformers():
        small_tvp(TvpForVideoGrounding, vocab_size=words).save_pretrained(tmp_path)
    sizes = {**SIZES, "vocab_size": words, "max_position_embeddings": 24}
    settings = [*SHORT, *(f"model.bert.{name}={value}" for name, value in sizes.items())]
    settings += ["model.visual.layer_type=bottleneck", "model.visual.stem_size=8"]
    settings += [f"model.visual.{name}={value}" for name, value in STAGES.items()]
    options = as_options([*settings, f"model.weights.checkpoint={tmp_path}"])
    done = clipbert("finetune", "--recipe", "demo_qa", "--data-root", made_data, "--dry-run", *options)
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path / 'model.safetensors'}: Hugging Face TVP, " in done.stderr
    assert "ignored: 5 of prompts of video grounding" in done.stderr
    assert "set model.visual.pixel_mean to " in done.stderr
