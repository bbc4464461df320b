"""The table of docs/encoders.md: grid, tokens, operations and memory of visual encoders of published sizes.

Weights are random and nothing is downloaded. Memory is what autograd keeps of one clip of one frame for the backward
pass, under bfloat16 autocast on the CPU, whose attention keeps no matrix of scores, like that of a GPU.

    python benchmarks/encoders.py
"""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.model.flops import forward_cost
from clipbert_cli.model.heads import HeadSpec
from clipbert_cli.model.hf_files import PixelStatistics, VisionModel
from clipbert_cli.recipe.schema import ModelConfig, VisualConfig

PIXELS = PixelStatistics((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
PATCHES = {**BASE, "patch_size": 16, "image_size": 224}
DINO = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "mlp_ratio": 4, "patch_size": 14}
BEIT = {"use_relative_position_bias": True, "layer_scale_init_value": 0.1}
SWIN = {"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32], "patch_size": 4}
CONVNEXT = {"hidden_sizes": [128, 256, 512, 1024], "depths": [3, 3, 27, 3]}

# Published model, model type, frame size, and the configuration that decides its sizes.
MODELS: list[tuple[str, str, int, dict[str, Any]]] = [
    ("ResNet-50, grid layer", "resnet", 448, {}),
    ("google/siglip2-base-patch16-224", "siglip_vision_model", 224, PATCHES),
    ("google/siglip2-base-patch16-naflex", "siglip2_vision_model", 256, {**BASE, "patch_size": 16, "num_patches": 256}),
    ("openai/clip-vit-base-patch16", "clip_vision_model", 224, PATCHES),
    ("facebook/dinov2-base", "dinov2", 224, {**DINO, "image_size": 518}),
    ("facebook/dinov2-with-registers-base", "dinov2_with_registers", 224, {**DINO, "image_size": 518}),
    ("facebook/dinov3-vitb16-pretrain-lvd1689m", "dinov3_vit", 224, {**PATCHES, "num_register_tokens": 4}),
    ("google/vit-base-patch16-224-in21k", "vit", 224, PATCHES),
    ("microsoft/beit-base-patch16-224-pt22k", "beit", 224, {**PATCHES, **BEIT}),
    ("microsoft/swin-base-patch4-window7-224", "swin", 224, {**SWIN, "window_size": 7, "image_size": 224}),
    ("microsoft/swinv2-base-patch4-window8-256", "swinv2", 256, {**SWIN, "window_size": 8, "image_size": 256}),
    ("facebook/convnext-base-224", "convnext", 224, CONVNEXT),
    ("facebook/convnextv2-base-22k-224", "convnextv2", 224, CONVNEXT),
]


def model_of(kind: str, config: dict[str, Any]) -> ClipBert:
    """Return a model with BERT-base and a visual encoder with random weights."""
    vision = None if kind == "resnet" else VisionModel({"model_type": kind, **config}, PIXELS)
    visual = VisualConfig(kind="hf" if vision else "resnet")
    return ClipBert(ModelConfig(visual=visual), HeadSpec("classifier", 2), vision)


def kept_bytes(run: Callable[[], Tensor]) -> int:
    """Return the size of what autograd keeps for the backward pass, each storage once and no parameter."""
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        run()
    return sum(sizes.values())


def row(name: str, kind: str, size: int, config: dict[str, Any]) -> str:
    """Return a line of the table."""
    model = model_of(kind, config).train()
    cost = forward_cost(model, num_frames=1, frame_size=size, text_length=20)
    frames = torch.randint(0, 256, (1, 2, 1, 3, size, size), dtype=torch.uint8)
    # Autocast's copies of the weights are kept too, once for all clips.
    kept = kept_bytes(lambda: model.encode_visual(frames)) - kept_bytes(lambda: model.encode_visual(frames[:, :1]))
    parameters = sum(each.numel() for each in model.visual_encoder.parameters())
    return (
        f"| {name} | {parameters / 1e6:.0f} M | {size} | {cost.visual_tokens} | {cost.clip / 1e9:.1f} | "
        f"{cost.pair / 1e9:.1f} | {kept / 2**20:,.0f} |"
    )


def main() -> None:
    ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter).parse_args()
    torch.manual_seed(0)
    print("| model | parameters | pixels | tokens per clip | GFLOP per clip | GFLOP per pair | MiB kept per clip |")
    print("|---|---|---|---|---|---|---|")
    for model in MODELS:
        print(row(*model), flush=True)
    print(f"Result: {len(MODELS)} visual encoders.")


if __name__ == "__main__":
    main()
