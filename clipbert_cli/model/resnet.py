"""The visual encoder of the published model: a ResNet with ClipBERT's grid layer on top.

Legend: M frames, H W frame in pixels, h w grid (H/64, W/64, rounded down layer by layer), C channels.

    frames (M, 3, H, W) ─► stem (M, 64, H/4, W/4) ─► stages.0 ... stages.3 (M, 2048, H/32, W/32) ─► grid (M, h, w, C)

The ResNet is the one that detectron2 calls `MSRA` (He et al. 2015, as Caffe ran it): the stride of a stage is in the
first 1x1 convolution of its first block, no stage is dilated, batch norm never adapts, and the input is BGR. The grid
layer is Pixel-BERT's and ClipBERT's (section 3.1): 3x3 convolution without bias, 2x2 max pool, ReLU.
Parameters of a convolution have detectron2's names (`conv1.weight`, `conv1.norm.running_var`, `shortcut.weight`).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clipbert_cli.model.visual_encoder import FrameMemory, VisualEncoder, normalise
from clipbert_cli.recipe.schema import VisualConfig

NORM_EPS = 1e-5
"""Epsilon of detectron2's frozen batch norm."""

PIXEL_DEVIATION = 0.225
"""Standard deviation of ImageNet's pixels as a fraction of full white; scales the stem's random weights."""

PIXEL_MEAN, PIXEL_STD = (123.675, 116.28, 103.53), (1.0, 1.0, 1.0)
"""Pixel statistics of the published weights: red, green and blue of 0..255."""

BOTTLENECK_REDUCTION = 4
"""A bottleneck block computes its 3x3 convolution with a quarter of its output channels."""


class FrozenBatchNorm2d(nn.Module):
    """Batch norm whose four vectors are buffers: y = (x - running_mean) / sqrt(running_var + eps) * weight + bias.

    It starts as the identity (`running_var` is 1 - eps), as detectron2's does.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.eps = NORM_EPS
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.full((channels,), 1 - NORM_EPS))

    def affine(self) -> tuple[Tensor, Tensor]:
        """Return scale and shift, both (C,), of the same function y = x * scale + shift."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale


class ConvNorm(nn.Conv2d):
    """Convolution without bias, then frozen batch norm, then optionally ReLU; padding keeps the frame's size.

    The norm's scale is folded into the weights and its shift becomes the bias, so that the backward pass keeps nothing
    for the norm. `kept` is what `folded` returns, while it is known to stay the same.
    """

    kept: tuple[Tensor, Tensor] | None = None

    def __init__(self, inputs: int, outputs: int, size: int = 1, *, stride: int = 1, relu: bool = True) -> None:
        super().__init__(inputs, outputs, size, stride, padding=size // 2, bias=False)
        self.norm = FrozenBatchNorm2d(outputs)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """Convolve maps (M, C, H, W) to (M, C', H/stride, W/stride)."""
        # On a CPU this is one pass over the activations instead of two. On a GPU without `train.compile`, cuDNN's
        # convolution has no bias, and adding it is a pass of its own.
        weight, shift = self.kept or self.folded()
        x = F.conv2d(x, weight, shift, self.stride, self.padding, self.dilation)
        return x.relu_() if self.relu else x

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return weight (C', C, size, size) and bias (C',) of the convolution that includes the norm."""
        scale, shift = self.norm.affine()
        return self.weight * scale.view(-1, 1, 1, 1), shift


def bottleneck(inputs: int, outputs: int, stride: int) -> dict[str, ConvNorm]:
    """1x1, 3x3 and 1x1 convolutions, as in ResNet-50; the stride is in the first (detectron2's STRIDE_IN_1X1)."""
    inner = outputs // BOTTLENECK_REDUCTION
    return {
        "conv1": ConvNorm(inputs, inner, 1, stride=stride),
        "conv2": ConvNorm(inner, inner, 3),
        "conv3": ConvNorm(inner, outputs, 1, relu=False),
    }


def basic(inputs: int, outputs: int, stride: int) -> dict[str, ConvNorm]:
    """Two 3x3 convolutions, as in ResNet-18."""
    return {
        "conv1": ConvNorm(inputs, outputs, 3, stride=stride),
        "conv2": ConvNorm(outputs, outputs, 3, relu=False),
    }


BRANCHES: dict[str, Callable[[int, int, int], dict[str, ConvNorm]]] = {"bottleneck": bottleneck, "basic": basic}


class Block(nn.Module):
    """A residual block: a branch of convolutions plus the shortcut, then ReLU.

    The shortcut is a 1x1 convolution where the block changes the shape, otherwise the identity.
    """

    def __init__(self, kind: str, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(OrderedDict(BRANCHES[kind](inputs, outputs, stride)))
        changes_shape = inputs != outputs or stride != 1
        self.shortcut = ConvNorm(inputs, outputs, stride=stride, relu=False) if changes_shape else None

    def forward(self, x: Tensor) -> Tensor:
        """Add branch and shortcut of maps (M, C, H, W): (M, C', H/stride, W/stride)."""
        out: Tensor = self.branch(x)
        out += x if self.shortcut is None else self.shortcut(x)
        return out.relu_()


def stage(kind: str, inputs: int, outputs: int, *, depth: int, stride: int) -> nn.Sequential:
    """Return `depth` blocks, of which the first strides and changes the number of channels."""
    others = [Block(kind, outputs, outputs, 1) for _ in range(depth - 1)]
    return nn.Sequential(Block(kind, inputs, outputs, stride), *others)


class Stem(nn.Module):
    """A 7x7 convolution and a 3x3 max pool, each with stride 2."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, outputs, 7, stride=2)
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Reduce frames (M, 3, H, W) to maps (M, C, H/4, W/4)."""
        out: Tensor = self.pool(self.conv1(x))
        return out


class GridResNet(VisualEncoder):
    """Frames to grids of features: ResNet, then the grid layer, which projects to the transformer's width.

    Args:
        config: depths, widths and pixel statistics.
        width: channels C of the grid.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: VisualConfig, width: int) -> None:
        super().__init__()
        self.config = config
        mean, std = config.pixel_mean or PIXEL_MEAN, config.pixel_std or PIXEL_STD
        self.unit_range = max(mean) <= 1
        self.register_buffer("pixel_mean", torch.tensor(mean), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(std), persistent=False)
        self.stem = Stem(config.stem_size)
        widths = [config.stem_size, *config.hidden_sizes]
        self.stages = nn.ModuleList(
            stage(config.layer_type, inputs, outputs, depth=depth, stride=2 if number else 1)
            for number, (inputs, outputs, depth) in enumerate(zip(widths, widths[1:], config.depths, strict=False))
        )
        self.grid = nn.Conv2d(widths[-1], width, kernel_size=3, padding=1, bias=False)
        self.pool = nn.MaxPool2d(kernel_size=2, stride=2)
        self.reset_parameters()

    def forward(self, frames: Tensor) -> Tensor:
        """RGB frames (M, 3, H, W), uint8 or float of 0..255 -> grid (M, h, w, C) of values >= 0, C innermost."""
        x = normalise(frames, self.pixel_mean, self.pixel_std, unit_range=self.unit_range)
        # RGB -> BGR. Channels last is the layout in which convolutions are fastest; the grid that comes out has C
        # innermost without a copy.
        x = x.flip(1).contiguous(memory_format=torch.channels_last)  # (M, 3, H, W)
        x = self.stem(x)  # (M, C, H/4, W/4)
        for stage in self.stages:  # (M, C, H/4, W/4) ... (M, C, H/32, W/32)
            x = stage(x)
        x = self.pool(self.grid(x)).relu_()  # (M, C, h, w)
        grid: Tensor = x.permute(0, 2, 3, 1)  # (M, h, w, C)
        return grid

    def parts(self) -> dict[str, list[nn.Module]]:
        """Return the stem, the stages by number, and the grid layer."""
        # A whole stage is the unit of recomputation: a block's input is already most of what the block saves.
        stages = {str(number): [stage] for number, stage in enumerate(self.stages)}
        return {"stem": [self.stem], **stages, "grid": [self.grid]}

    @contextmanager
    def weights_kept(self, dtype: torch.dtype = torch.float32) -> Iterator[None]:
        convolutions = [module for module in self.modules() if isinstance(module, ConvNorm)]
        before = [convolution.kept for convolution in convolutions]
        try:
            for convolution in convolutions:
                weight, shift = convolution.folded()
                if dtype != torch.float32:
                    weight, shift = weight.to(dtype), shift.to(dtype)
                convolution.kept = None if weight.requires_grad else (weight, shift)
            yield
        finally:
            for convolution, kept in zip(convolutions, before, strict=True):
                convolution.kept = kept

    def describe(self, frame_size: int) -> str:
        return f"ResNet with {sum(self.config.depths)} blocks"

    def frame_memory(self, frame_size: int) -> FrameMemory:
        # The activations of the first two stages, at a quarter of the pixels, are the largest.
        pixels, stem = frame_size**2 // 4, self.config.stem_size
        return FrameMemory(held=pixels * (stem + self.config.hidden_sizes[0]), largest=pixels * stem)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw random weights that keep activations of order 1, although no norm adapts to the data.

        Every convolution is Kaiming normal (fan in; He et al. 2015). The stem's is divided by the deviation of its
        input, and the last one of a residual branch by the root of the number of blocks (Zhang et al. 2019, "Fixup").
        """
        for convolution in self.modules():
            if isinstance(convolution, nn.Conv2d):
                nn.init.kaiming_normal_(convolution.weight, mode="fan_in", nonlinearity="relu")
        full_white = 1.0 if self.unit_range else 255.0
        std = self.config.pixel_std or PIXEL_STD
        mean_std = sum(std) / len(std)
        self.stem.conv1.weight.div_(PIXEL_DEVIATION * full_white / mean_std)
        for block in self.modules():
            if isinstance(block, Block):
                last: nn.Module = block.branch[-1]
                assert isinstance(last, ConvNorm)
                last.weight.div_(math.sqrt(sum(self.config.depths)))
