"""The model and its optimiser the plain way: the reference that training and inference are compared with.

The model is the one of transformers: its `tvp` has ClipBERT's network. It runs convolutions and batch norms one by one,
writes attention out with its mask, and computes all tokens of every layer. There is no dropout, because the sides of a
comparison could not draw the same random numbers.

Legend: B items, T frames, n texts, L text tokens, V visual tokens, h w grid, D width, C outputs.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from transformers import ResNetConfig, TvpConfig, TvpModel

from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.model.resnet import PIXEL_MEAN
from clipbert_cli.model.transformer import split_projections
from clipbert_cli.model.weights.formats import TVP
from clipbert_cli.recipe.schema import TrainConfig
from clipbert_cli.train.optim import BETAS


def normalised(frames: Tensor) -> Tensor:
    """Return uint8 RGB frames (..., 3, H, W) as float32 BGR, with the published mean subtracted."""
    return (frames.float() - torch.tensor(PIXEL_MEAN, device=frames.device).view(-1, 1, 1)).flip(-3)


class PlainModel(nn.Module):
    """The network of transformers with the weights of a `ClipBert` with a classifier, and a copy of its head.

    It is in evaluation mode, so that batch norms stay fixed. Its stem and its first stage are not trained.
    """

    def __init__(self, model: ClipBert) -> None:
        super().__init__()
        # The first convolution of a block has the stride, as in ClipBERT's CNN.
        cnn = ResNetConfig(out_features=["stage4"], downsample_in_bottleneck=True)
        no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        self.network = TvpModel(TvpConfig(backbone_config=cnn, **no_dropout))
        del self.network.text_prompt, self.network.visual_prompter  # not in ClipBERT's
        del self.network.visual_embeddings.position_embeddings  # never used
        own = split_projections(model.state_dict())
        named = {name: own[place] for name in self.network.state_dict() if (place := TVP.rename(name))}
        missing, _ = self.network.load_state_dict(named, strict=False)
        assert all(name.endswith("num_batches_tracked") for name in missing), missing
        self.head = copy.deepcopy(model.head.layers)
        backbone = self.network.vision_model.backbone
        norms = [part for part in backbone.modules() if isinstance(part, nn.BatchNorm2d)]
        for part in [*norms, backbone.embedder, backbone.encoder.stages[0]]:
            part.requires_grad_(False)
        self.eval()

    def encode(self, frames: Tensor) -> Tensor:
        """Return the visual tokens (B, V, D) of one clip per item, normalised frames (B, T, 3, H, W)."""
        # The network's own module adds the places right for one item alone.
        places = self.network.visual_embeddings
        grid = self.network.vision_model(frames.contiguous()).mean(dim=1)  # (B, h, w, D)
        grid = grid + places.row_position_embeddings.weight[: grid.shape[1], None]
        grid = grid + places.col_position_embeddings.weight[: grid.shape[2]]
        return places.layer_norm(grid.flatten(1, 2) + places.token_type_embeddings.weight[0])

    def answer(self, ids: Tensor, mask: Tensor, visual: Tensor) -> Tensor:
        """Return the logits (n, C) of padded texts (n, L), each with its own visual tokens (n, V, D)."""
        x = torch.cat([self.network.embeddings(ids), visual], dim=1)  # (n, L+V, D)
        seen = torch.cat([mask, mask.new_ones(visual.shape[:2])], dim=1)
        # BERT's code masks with this number and not with minus infinity.
        bias = torch.where(seen, 0.0, -10000.0)[:, None, None]  # (n, 1, 1, L+V)
        return self.head(self.network.pooler(self.network.encoder(x, bias).last_hidden_state))


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
        first, second = BETAS
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
