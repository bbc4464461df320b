"""Scores of sequences at inference: the numbers of `ClipBert.score`, with less work.

Legend: S sequences (one text with one clip), L text tokens, V visual tokens, D width, C classes.

    text (n, L, D) ───► project ─► (n, L, 4D) ─┐ one of each for
    visual (m, V, D) ─► project ─► (m, V, 4D) ─┴► every sequence ─► layers ─► head ─► logits (S, C)
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from clipbert_cli.model.heads import Fused, Scores
from clipbert_cli.model.transformer import Transformer


class SequenceScorer:
    """Scores sequences of one length per call, without padding and without a mask.

    In float32 it uses the model's own weights. In bfloat16 or float16 it uses a copy of the layers in this dtype, made
    once: autocast would convert the weights in every call and keep the residual sums in float32.

    Args:
        dtype: of the layers' weights and activations; pooler and classifier always compute in float32.
    """

    def __init__(self, transformer: Transformer, head: nn.Module, *, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.pool, self.head = transformer.pool, head
        self.num_outputs: int = head.num_outputs  # type: ignore[assignment]  # classes C of every head
        self.transformer = transformer if dtype == torch.float32 else copy.deepcopy(transformer).to(dtype)

    def project(self, tokens: Tensor) -> Tensor:
        """Project text or visual tokens (n, t, D) to (n, t, 4D), see `Transformer.project_first`."""
        return self.transformer.project_first(tokens.to(self.dtype))

    def __call__(self, text: Tensor, visual: Tensor) -> Tensor:
        """Score S pairs of text (S, L, 4D) and visual tokens (S, V, 4D), both from `project`: (S, C) float32."""
        tokens = torch.cat([text, visual], dim=1)  # (S, L+V, 4D)
        # Scores are ranked, so they are float32 whatever the layers are.
        first = self.transformer.fuse_projected(tokens).float()  # (S, 1, D)
        scores: Scores = self.head(Fused(first, self.pool(first)))
        return scores.logits
