"""The model and its optimiser in plain torch: the reference that training and inference are compared with.

It runs convolutions and batch norms one by one, writes attention out with its mask, and computes all tokens of every
layer. Its parameters have the names of `clipbert_cli.model.ClipBert`, so that it can load the same weights. There is no
dropout, because the sides of a comparison could not draw the same random numbers.

Legend: B items, M images, T frames, n texts, L text tokens, V visual tokens, h w grid, D width, C outputs.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clipbert_cli.model.bert_sizes import BertSizes
from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.model.resnet import PIXEL_MEAN
from clipbert_cli.model.transformer import split_projections
from clipbert_cli.recipe.schema import ModelConfig, TrainConfig, VisualConfig


def normalised(frames: Tensor) -> Tensor:
    """Return uint8 RGB frames (..., 3, H, W) as float32 BGR, with the published mean subtracted."""
    return (frames.float() - torch.tensor(PIXEL_MEAN, device=frames.device).view(-1, 1, 1)).flip(-3)


# ------------------------------------------------------------------------------------------------ the CNN


class ConvNorm(nn.Conv2d):
    """Convolution, frozen batch norm, and optionally ReLU."""

    def __init__(self, inputs: int, outputs: int, size: int = 1, stride: int = 1, *, relu: bool = True) -> None:
        super().__init__(inputs, outputs, size, stride, size // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs).requires_grad_(False)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(super().forward(x))
        return F.relu(x) if self.relu else x


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; the first convolution has the stride, as in ClipBERT's CNN."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        inner = outputs // 4
        branch = {"conv1": ConvNorm(inputs, inner, 1, stride), "conv2": ConvNorm(inner, inner, 3)}
        self.branch = nn.Sequential(OrderedDict(branch, conv3=ConvNorm(inner, outputs, relu=False)))
        self.shortcut = ConvNorm(inputs, outputs, 1, stride, relu=False) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.branch(x) + self.shortcut(x))


def stage(inputs: int, outputs: int, depth: int, stride: int) -> nn.Sequential:
    """Return `depth` blocks; the first one has the stride and widens the features."""
    others = [Bottleneck(outputs, outputs, 1) for _ in range(depth - 1)]
    return nn.Sequential(Bottleneck(inputs, outputs, stride), *others)


class PlainResNet(nn.Module):
    """ResNet and grid layer: normalised images (M, 3, H, W) -> features (M, h, w, D)."""

    def __init__(self, config: VisualConfig, width: int) -> None:
        super().__init__()
        self.stem = nn.ModuleDict({"conv1": ConvNorm(3, config.stem_size, 7, 2)})
        widths = [config.stem_size, *config.hidden_sizes]
        self.stages = nn.ModuleList(
            stage(widths[number], widths[number + 1], depth, 2 if number else 1)
            for number, depth in enumerate(config.depths)
        )
        self.grid = nn.Conv2d(widths[-1], width, 3, padding=1, bias=False)
        for part in [self.stem, self.stages[0]]:
            part.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.stem["conv1"](x), 3, 2, 1)
        for each in self.stages:
            x = each(x)
        return F.relu(F.max_pool2d(self.grid(x), 2)).permute(0, 2, 3, 1)


# ------------------------------------------------------------------------------------------------ the model


class PlainModel(nn.Module):
    """The CNN, the transformer and a classifier with `outputs` classes."""

    def __init__(self, config: ModelConfig, outputs: int) -> None:
        super().__init__()
        self.config = config
        bert = self.sizes = BertSizes.of(config.bert)
        width = bert.hidden_size

        def norm() -> nn.LayerNorm:
            return nn.LayerNorm(width, eps=1e-12)

        def layer() -> nn.ModuleDict:
            narrow = {name: nn.Linear(width, width) for name in ("query", "key", "value", "attention_output")}
            intermediate = nn.Linear(width, bert.intermediate_size)
            output = nn.Linear(bert.intermediate_size, width)
            norms = {"attention_norm": norm(), "output_norm": norm()}
            return nn.ModuleDict({**narrow, "intermediate": intermediate, "output": output, **norms})

        self.visual_encoder = PlainResNet(config.visual, width)
        self.text_embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(bert.vocab_size, width, padding_idx=0),
                "position_embeddings": nn.Embedding(bert.max_position_embeddings, width),
                "token_type_embeddings": nn.Embedding(2, width),
                "norm": norm(),
            }
        )
        self.visual_embeddings = nn.ModuleDict(
            {
                "row_embeddings": nn.Embedding(100, width),
                "column_embeddings": nn.Embedding(100, width),
                "token_type_embeddings": nn.Embedding(1, width),
                "norm": norm(),
            }
        )
        layers = nn.ModuleList(layer() for _ in range(bert.num_hidden_layers))
        self.transformer = nn.ModuleDict({"layers": layers, "pooler": nn.Linear(width, width)})
        hidden = 2 * width
        self.head = nn.ModuleDict(
            {"layers": nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, outputs))}
        )

    @classmethod
    def of(cls, model: ClipBert) -> PlainModel:
        """Return a plain model with the weights of `model`, in evaluation mode so that batch norms stay fixed."""
        plain = cls(model.config, model.head_spec.num_outputs).eval()
        missing, unexpected = plain.load_state_dict(split_projections(model.state_dict()), strict=False)
        assert not unexpected, unexpected
        assert all(name.endswith("num_batches_tracked") for name in missing), missing
        return plain

    def encode(self, frames: Tensor) -> Tensor:
        """Return the visual tokens (B, V, D) of one clip per item, normalised frames (B, T, 3, H, W)."""
        places = self.visual_embeddings
        grid = self.visual_encoder(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]).mean(dim=1)  # (B, h, w, D)
        grid = grid + places["row_embeddings"].weight[: grid.shape[1], None]
        grid = grid + places["column_embeddings"].weight[: grid.shape[2]]
        return places["norm"](grid.flatten(1, 2) + places["token_type_embeddings"].weight[0])

    def answer(self, ids: Tensor, mask: Tensor, visual: Tensor) -> Tensor:
        """Return the logits (n, C) of padded texts (n, L), each with its own visual tokens (n, V, D)."""
        words = self.text_embeddings
        text = words["word_embeddings"](ids) + words["position_embeddings"].weight[: ids.shape[1]]
        text = words["norm"](text + words["token_type_embeddings"].weight[0])
        x = torch.cat([text, visual], dim=1)  # (n, L+V, D)
        seen = torch.cat([mask, mask.new_ones(visual.shape[:2])], dim=1)
        # BERT's code masks with this number and not with minus infinity.
        bias = torch.where(seen, 0.0, -10000.0)[:, None, None]  # (n, 1, 1, L+V)
        for layer in self.transformer["layers"]:
            x = self._transform(layer, x, bias)
        return self.head["layers"](self.transformer["pooler"](x[:, 0]).tanh())

    def _transform(self, layer: Any, x: Tensor, bias: Tensor) -> Tensor:
        heads = self.sizes.num_attention_heads
        query, key, value = (
            layer[name](x).unflatten(-1, (heads, -1)).transpose(1, 2) for name in ("query", "key", "value")
        )
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1]) + bias
        mixed = (scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2)
        x = layer["attention_norm"](layer["attention_output"](mixed) + x)
        wide = F.gelu(layer["intermediate"](x))
        return layer["output_norm"](layer["output"](wide) + x)


# ------------------------------------------------------------------------------------------------ the optimiser


class PlainAdamW:
    """BERT's AdamW, one parameter at a time; the weight decay uses the updated value, as BERT's code does."""

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        self.config, self.steps = config, 0
        self.state: dict[Tensor, tuple[Tensor, Tensor]] = {}
        self.decays: dict[nn.Parameter, float] = {}  # parameters that are trained -> their weight decay
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                self.decays[parameter] = 0.0 if "bias" in name or "norm" in name else config.weight_decay

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters with their `grad`."""
        self.steps += 1
        first, second = self.config.betas
        size = self.config.learning_rate * math.sqrt(1 - second**self.steps) / (1 - first**self.steps)
        for parameter, decay in self.decays.items():
            gradient = parameter.grad
            if parameter not in self.state:
                self.state[parameter] = (torch.zeros_like(parameter), torch.zeros_like(parameter))
            mean, square = self.state[parameter]
            mean.mul_(first).add_(gradient, alpha=1 - first)
            square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
            parameter.addcdiv_(mean, square.sqrt().add_(self.config.eps), value=-size)
            if decay:
                parameter.add_(parameter, alpha=-self.config.learning_rate * decay)
