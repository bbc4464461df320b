"""The CNN: one frame in, one grid of features out.

Legend: M frames, H W frame in pixels, h w grid (H/64, W/64, rounded down layer by layer), D width.

ResNet as detectron2 builds it (`MSRA` models; ClipBERT section 3): the stride of a stage is in the first 1x1
convolution, no stage is dilated, all normalisation is fixed, input is BGR. On top of it the grid layer of
Pixel-BERT / ClipBERT: 3x3 convolution without bias, 2x2 max pool, ReLU.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.resnet.configuration_resnet import ResNetConfig
from transformers.models.resnet.modeling_resnet import (
    ResNetConvLayer,
    ResNetEmbeddings,
    ResNetEncoder,
    ResNetShortCut,
)

from clipbert_cli.recipe.schema import VisualConfig

NORM_EPS = 1e-5
"""Epsilon of detectron2's frozen batch norm."""

PIXEL_DEVIATION = 0.225
"""Deviation of natural images' pixels, as a share of full white (ImageNet); scales the stem's random start."""


class FrozenBatchNorm2d(nn.Module):
    """Batch norm whose four vectors are buffers: y = (x - running_mean) / sqrt(running_var + eps) * weight + bias.

    Starts as the identity (`running_var` is 1 - eps), as detectron2's does.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, *, eps: float = NORM_EPS) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.full((channels,), 1 - eps))

    def affine(self) -> tuple[Tensor, Tensor]:
        """Scale and shift (C,): y = x * scale + shift."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()  # (C,)
        return scale, self.bias - self.running_mean * scale

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, eps={self.eps}"


class ConvNorm(nn.Module):
    """Convolution, fixed norm and perhaps ReLU. The norm's scale goes into the weights and its shift becomes the bias:
    one pass over the activations, and nothing of the norm is kept for the backward pass."""

    def __init__(self, convolution: nn.Conv2d, *, relu: bool) -> None:
        super().__init__()
        self.convolution = convolution
        self.normalization = FrozenBatchNorm2d(convolution.out_channels)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """(M, C, H, W) -> (M, C', H', W')."""
        scale, shift = self.normalization.affine()
        weight = self.convolution.weight * scale.view(-1, 1, 1, 1)
        own = self.convolution
        x = F.conv2d(x, weight, shift, stride=own.stride, padding=own.padding, dilation=own.dilation)
        return x.relu_() if self.relu else x


def normalise(frames: Tensor, mean: Tensor, std: Tensor, *, unit_range: bool | None = None) -> Tensor:
    """Pixels minus mean, divided by deviation.

    Mean and deviation of `unit_range` are meant for pixels of 0..1: then pixels of 0..255 are divided by 255 first,
    uint8 always, floats if their largest value is above 1 (the original's rule, `ImageNorm`).

    Args:
        frames: (..., 3, H, W) uint8 or float, channels in the order of `mean` and `std`.
        mean: (3,) on the frames' device, like `std`.
        unit_range: default: whether every mean is at most 1.

    Returns:
        The same shape, in the frames' float dtype, or float32 where they are integers.
    """
    pixels = frames if frames.is_floating_point() else frames.float()
    if unit_range is None:
        unit_range = bool((mean <= 1).all())
    if unit_range:
        pixels = pixels / (torch.where(pixels.amax() > 1, 255.0, 1.0) if frames.is_floating_point() else 255.0)
    return (pixels - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)


class GridCnn(nn.Module):
    """Frames to grid features.

    Args:
        config: depth, widths and pixel statistics.
        width: D, channels of the grid features.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: VisualConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.unit_range = max(config.pixel_mean) <= 1
        self.register_buffer("pixel_mean", torch.tensor(config.pixel_mean), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(config.pixel_std), persistent=False)
        resnet = ResNetConfig(
            num_channels=3,
            embedding_size=config.stem_size,
            hidden_sizes=list(config.hidden_sizes),
            depths=list(config.depths),
            layer_type=config.layer_type,
            hidden_act="relu",
            downsample_in_first_stage=False,
            downsample_in_bottleneck=True,
        )
        self.stem = ResNetEmbeddings(resnet)
        self.stages = ResNetEncoder(resnet).stages
        self.grid = nn.Conv2d(config.hidden_sizes[-1], width, kernel_size=3, padding=1, bias=False)
        self.pool = nn.MaxPool2d(kernel_size=2, stride=2)
        fold_norms(self)
        self.reset_parameters()

    def named_stages(self) -> dict[str, nn.Module]:
        """The backbone's stages by detectron2's names, in order: stem, res2..res5; each gives (M, C, H, W)."""
        return {"stem": self.stem, **{f"res{number}": stage for number, stage in enumerate(self.stages, start=2)}}

    def parts(self) -> dict[str, nn.Module]:
        """Return the parts that `train.freeze` can name, from the input to the output."""
        stages = {str(number): stage for number, stage in enumerate(self.stages)}
        return {"stem": self.stem, **stages, "grid": self.grid}

    def forward(self, frames: Tensor) -> Tensor:
        """(M, 3, H, W) RGB, uint8 or float of 0..255 -> (M, h, w, D), D innermost, values >= 0."""
        x = normalise(frames, self.pixel_mean, self.pixel_std, unit_range=self.unit_range)
        x = x.flip(1).contiguous(memory_format=torch.channels_last)  # RGB -> BGR, in the layout convolutions like
        for stage in self.named_stages().values():
            x = stage(x)  # (M, C, H/4, W/4) ... (M, C, H/32, W/32)
        x = self.pool(self.grid(x)).relu_()  # (M, D, h, w)
        grid: Tensor = x.permute(0, 2, 3, 1)  # (M, h, w, D)
        return grid

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """A start that keeps activations of order 1 although no norm adapts to the data.

        Kaiming normal (fan in) for every convolution; the stem's is divided by the deviation of its input, and the
        last convolution of a residual branch by the root of the number of blocks (He et al. 2015; Zhang et al. 2019,
        "Fixup", for the second).
        """
        for convolution in self.modules():
            if isinstance(convolution, nn.Conv2d):
                nn.init.kaiming_normal_(convolution.weight, mode="fan_in", nonlinearity="relu")
        full_white = 1.0 if self.unit_range else 255.0
        mean_std = sum(self.config.pixel_std) / len(self.config.pixel_std)
        self.stem.embedder.convolution.weight.div_(PIXEL_DEVIATION * full_white / mean_std)
        for stage in self.stages:
            for block in stage.layers:
                block.layer[-1].convolution.weight.div_(math.sqrt(sum(self.config.depths)))


def fold_norms(module: nn.Module) -> None:
    """Put a `ConvNorm` in the place of every convolution with a norm below `module`; ReLUs overwrite their input."""
    for name, child in module.named_children():
        if isinstance(child, ResNetConvLayer | ResNetShortCut):
            relu = isinstance(getattr(child, "activation", None), nn.ReLU)
            setattr(module, name, ConvNorm(child.convolution, relu=relu))
        elif isinstance(child, nn.ReLU):
            child.inplace = True
        else:
            fold_norms(child)
