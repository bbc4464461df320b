"""The visual encoder of kind `hf`: a vision model of Hugging Face's transformers and a linear projection.

Legend: M frames, H W frame in pixels, h w grid, s grid stride, C the model's width, D the transformer's width.

    frames (M, 3, H, W) ─► model ─► tokens (M, 1 + registers + h*w, C) or map (M, C, h, w) ─► grid (M, h, w, C)
                         ─► mean over s x s cells (M, h/s, w/s, C) ─► projection (M, h/s, w/s, D)

The models are transformers' own, so that published weights keep their names and their numbers. What is ours is the
way to their grids of features. `AutoModel` is used and not `AutoBackbone`: the backbones of Swin and ConvNeXt end in
norms that no published weights have. This is the only module that imports transformers, when an encoder is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clipbert_cli.errors import RecipeError, WeightsError
from clipbert_cli.model.hf_files import PREPROCESSOR_FILES, PixelStatistics, VisionModel
from clipbert_cli.model.visual_encoder import FrameMemory, VisualEncoder, normalise
from clipbert_cli.model.weights.weight_files import wrong_file
from clipbert_cli.recipe.schema import VisualConfig, check_heads

STAGED_PATCH_SIZE = 4
"""Patches of the first stage of models whose configuration does not say it."""

MOST_PARAMETERS = 10**10
"""The largest published model of a supported family has 7 billion; more would fill the memory."""

NOT_SAVED = ("_name_or_path", "transformers_version", "architectures", "dtype")
"""Entries of a configuration that say where a model came from, and nothing about it."""


class HuggingFaceEncoder(VisualEncoder):
    """Frames to grids of features by a vision model of transformers, with random weights until `load` is called.

    Args:
        config: the recipe's section: grid stride, and pixel statistics in place of the model's own.
        width: channels D of the grid.
        vision: the model to build.

    Raises:
        WeightsError: transformers cannot build such a model, or nothing says how its pixels are normalised.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: VisualConfig, width: int, vision: VisionModel) -> None:
        super().__init__()
        self.family = vision.family
        self.grid_stride = config.grid_stride
        pixels = chosen_pixels(config, vision)
        self.has_own_pixels = pixels == vision.pixels
        self.register_buffer("pixel_mean", torch.tensor(pixels.mean), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixels.std), persistent=False)
        try:
            # Tensors on this device have shapes and no numbers, so that impossible sizes cost neither memory nor time.
            self._set_backbone(build_backbone(vision, device="meta"))
            self._try_a_frame()
            self._set_backbone(build_backbone(vision))
        # Sizes that do not fit each other, and values of another type, fail wherever they are used first.
        except Exception as error:
            reason, kind = " ".join(str(error).split()), vision.config["model_type"]
            raise wrong_file(vision.source, f"transformers cannot build a {kind} of it: {reason}") from error
        own = {name: value for name, value in self.backbone.config.to_dict().items() if name not in NOT_SAVED}
        self.vision = VisionModel(own, pixels)
        self.projection = nn.Linear(self.channels, width)
        for name, parameter in self.backbone.named_parameters():
            if name.startswith(self.family.unused):
                parameter.requires_grad_(False)

    def _set_backbone(self, backbone: Any) -> None:
        self.backbone = backbone
        sizes = backbone.config
        # Swin's models compute their width; the hidden_size in a file of theirs decides nothing.
        widths = getattr(sizes, "hidden_sizes", None) or [getattr(backbone, "num_features", sizes.hidden_size)]
        self.channels: int = widths[-1]
        stages = len(getattr(sizes, "depths", ()))
        # Models of stages halve the sides of the grid from each stage to the next.
        self.first_patch_size: int = getattr(sizes, "patch_size", STAGED_PATCH_SIZE)
        self.patch_size: int = self.first_patch_size * 2 ** max(stages - 1, 0)

    def _try_a_frame(self) -> None:
        """Encode a frame of 2 x 2 cells on the meta device.

        Raises:
            Exception: of any kind; the model cannot encode frames.
        """
        count = sum(parameter.numel() for parameter in self.backbone.parameters())
        if count > MOST_PARAMETERS:
            raise ValueError(f"its sizes amount to {count:,} parameters, expected at most {MOST_PARAMETERS:,}")
        grid = self.features(torch.empty(1, 3, 2 * self.patch_size, 2 * self.patch_size, device="meta"))
        if grid.shape != (1, 2, 2, self.channels):
            raise ValueError(f"a frame of 2 x 2 cells gives features of shape {tuple(grid.shape)}")

    def forward(self, frames: Tensor) -> Tensor:
        """Encode RGB frames (M, 3, H, W), uint8 or float of 0..255, as grids (M, h, w, D)."""
        grid = self.features(self.pixels(frames))  # (M, h, w, C)
        if self.grid_stride > 1:
            grid = average_cells(grid, self.grid_stride)  # (M, h/s, w/s, C)
        projected: Tensor = self.projection(grid)  # (M, h, w, D)
        return projected

    def features(self, pixels: Tensor) -> Tensor:
        """Return the grids (M, h, w, C) of the model for normalised frames (M, 3, H, W)."""
        height, width = (self.cells(side) for side in pixels.shape[2:])
        output: Tensor = self.backbone(**self.inputs(pixels)).last_hidden_state
        if self.family.shape == "tokens":
            # Class and register tokens come first.
            grid: Tensor = output[:, -height * width :].unflatten(1, (height, width))  # (M, h, w, C)
            return grid
        return output.permute(0, 2, 3, 1)  # (M, h, w, C)

    def pixels(self, frames: Tensor) -> Tensor:
        """Return normalised frames (M, 3, H, W)."""
        return normalise(frames, self.pixel_mean, self.pixel_std, unit_range=True)

    def inputs(self, pixels: Tensor) -> dict[str, Any]:
        """Return the arguments of the model for normalised frames (M, 3, H, W)."""
        if self.family.pixels == "plain":
            return {"pixel_values": pixels}
        if self.family.pixels == "interpolated":
            return {"pixel_values": pixels, "interpolate_pos_encoding": True}
        height, width = (side // self.patch_size for side in pixels.shape[2:])
        patches = pixels.unflatten(3, (width, -1)).unflatten(2, (height, -1))  # (M, 3, h, p, w, p)
        patches = patches.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)  # (M, h*w, p*p*3)
        # All frames have one size, so one row of position embeddings serves all of them.
        shapes = torch.tensor([[height, width]])
        return {"pixel_values": patches, "pixel_attention_mask": None, "spatial_shapes": shapes}

    def cells(self, side: int) -> int:
        """Return the number of cells of the model's grid along a side of a frame."""
        return -(-side // self.patch_size) if self.family.pads else side // self.patch_size

    def check_frame_size(self, frame_size: int) -> None:
        """Refuse frames that do not consist of whole patches.

        Raises:
            RecipeError: `frame_size` is no multiple of the patch size of a model that drops what is left over.
        """
        if not self.family.pads and frame_size % self.patch_size:
            near = max(1, round(frame_size / self.patch_size)) * self.patch_size
            raise RecipeError(
                f"data.frame_size is {frame_size}: it must be a multiple of the encoder's patches, {self.patch_size}",
                hint=f"set data.frame_size to {near}",
            )

    def parts(self) -> dict[str, list[nn.Module]]:
        """Return the stem, the blocks or stages by number, the norm after them, and the projection.

        `backbone` is everything but the projection, which is new and has to learn.
        """
        container = self.family.blocks.partition(".")[0]
        before: list[nn.Module] = []
        after: list[nn.Module] = []
        for name, module in self.backbone.named_children():
            if name == container:
                before, after = after, []
            else:
                after.append(module)
        numbered = self.backbone.get_submodule(self.family.blocks).children()
        blocks = {str(number): [block] for number, block in enumerate(numbered)}
        return {"backbone": [self.backbone], "stem": before, **blocks, "norm": after, "projection": [self.projection]}

    def describe(self, frame_size: int) -> str:
        """Return the family and the grid: `siglip2, 224 pixels (native 256), grid 14 x 14`."""
        native = getattr(self.backbone.config, "image_size", frame_size)
        own = "" if native == frame_size else f" (native {native})"
        side = self.cells(frame_size)
        stride = f", averaged {self.grid_stride} x {self.grid_stride}" if self.grid_stride > 1 else ""
        name = self.backbone.config.model_type.removesuffix("_vision_model")
        pixels = "" if self.has_own_pixels else ", pixel statistics of the recipe"
        return f"{name}, {frame_size} pixels{own}, grid {side} x {side}{stride}{pixels}"

    def frame_memory(self, frame_size: int) -> FrameMemory:
        sizes, tokens = self.backbone.config, self.cells(frame_size) ** 2
        if self.first_patch_size != self.patch_size:
            # The first stage has the most cells, each with four times its width in the feed-forward part.
            first = getattr(sizes, "embed_dim", None) or sizes.hidden_sizes[0]
            pixels = (frame_size // self.first_patch_size) ** 2
            return FrameMemory(held=pixels * first * 12, largest=pixels * first * 4)
        inner = getattr(sizes, "intermediate_size", None) or int(self.channels * getattr(sizes, "mlp_ratio", 4))
        return FrameMemory(held=tokens * (8 * self.channels + 2 * inner), largest=tokens * inner)


def average_cells(grid: Tensor, stride: int) -> Tensor:
    """Average squares of s x s cells of grids (M, h, w, C); at the border they may be smaller."""
    channels_first = grid.permute(0, 3, 1, 2)  # (M, C, h, w)
    pooled = F.avg_pool2d(channels_first, stride, ceil_mode=True, count_include_pad=False)  # (M, C, h/s, w/s)
    return pooled.permute(0, 2, 3, 1)  # (M, h/s, w/s, C)


def chosen_pixels(config: VisualConfig, vision: VisionModel) -> PixelStatistics:
    """Return the pixel statistics of the recipe, of 0..255 or 0..1, where it has any, else the model's own.

    Raises:
        WeightsError: neither has any.
    """
    if config.pixel_mean is not None and config.pixel_std is not None:
        scale = 1 if max(config.pixel_mean) <= 1 else 255
        mean, std = ([each / scale for each in three] for three in (config.pixel_mean, config.pixel_std))
        return PixelStatistics((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))
    if vision.pixels is None:
        raise WeightsError(
            f"{vision.source}: beside it is no {' or '.join(PREPROCESSOR_FILES)}, which say how pixels are normalised",
            hint="download the whole folder of the model, or set model.visual.pixel_mean and pixel_std",
        )
    return vision.pixels


def build_backbone(vision: VisionModel, *, device: str = "cpu") -> Any:
    """Return transformers' model with random weights."""
    # Not under the device: importing them imports torch's compiler, which torch 2.7 cannot import under another one.
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.for_model(**{**vision.config, **vision.family.config})
    check_heads(config.to_dict())
    with quiet_transformers(), torch.device(device):
        return AutoModel.from_config(config, **vision.family.options).float()


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers, which reports on stderr what our own report says."""
    from transformers.utils import logging

    verbosity, shows_progress = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shows_progress:
            logging.enable_progress_bar()
