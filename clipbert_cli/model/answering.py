"""The transformer and the head as inference runs them: the numbers of `ClipBert.answer`, with less work.

Legend: S sequences (one text with one clip), L text tokens, V visual tokens, T = L + V, D width, H heads, C classes.

    text (n, L, D) ───► first ─► (n, L, 4D) ─┐ one row of each for
    visual (m, V, D) ─► first ─► (m, V, 4D) ─┴► every sequence ─► layers ─► head ─► logits (S, C)

All sequences of a call have the same length: nothing is padded, and attention has no mask. The first layer's queries,
keys and values of a token do not depend on what it is fused with: they are computed once per text and once per clip.
In the last layer only the tokens that the head reads are computed; their keys and values are those of all tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clipbert_cli.model.heads import Fused, Scores

if TYPE_CHECKING:
    from clipbert_cli.model.clipbert import ClipBert


class Answerer:
    """Scores sequences with a model's weights as they are now; what is trained afterwards it does not see.

    Args:
        dtype: of the layers' weights and activations; LayerNorms, softmax, pooler and classifier compute in float32.
        compiled: the layers but the last through `torch.compile`.
    """

    def __init__(self, model: ClipBert, dtype: torch.dtype, *, compiled: bool = False) -> None:
        self.dtype = dtype
        last = len(model.encoder.layer) - 1
        self.layers = [
            Layer(layer, dtype, last=0 < number == last, packed=not compiled)
            for number, layer in enumerate(model.encoder.layer)
        ]
        self.through = _compiled_layer() if compiled else Layer.through
        self.width = model.config.bert.hidden_size
        self.pooler, self.head = model.pooler, model.head
        self.num_outputs = model.head_spec.num_outputs
        self.words: Tensor = model.text_embeddings.word_embeddings.weight

    def first(self, tokens: Tensor) -> Tensor:
        """(n, L, D) -> (n, L, 4D): the tokens, and the first layer's queries, keys and values of each."""
        tokens = tokens.to(self.dtype)
        return torch.cat([tokens, self.layers[0].project(tokens)], dim=-1)

    def __call__(self, text: Tensor, visual: Tensor) -> Scores:
        """Text (S, L, 4D) and visual tokens (S, V, 4D), both from `first` -> logits (S, C)."""
        length = text.shape[1]
        reads = length if self.head.reads_words else 1  # tokens of the last layer that anyone looks at
        first, *others = self.layers
        tokens, projected = torch.cat([text, visual], dim=1).tensor_split((self.width,), dim=-1)
        tokens = first(tokens, projected, reads=tokens.shape[1] if others else reads)  # (S, T, D)
        for layer in others[:-1]:
            tokens = self.through(layer, tokens)  # (S, T, D)
        if others:
            tokens = others[-1].first_tokens(tokens, reads)  # (S, reads, D)
        with self._head_precision(tokens.device):
            tokens = tokens if self.head.reads_words else tokens.float()
            fused = Fused(tokens, self.pooler(tokens))
            scores: Scores = self.head(fused, text_length=length, word_embeddings=self.words)
        return scores

    def _head_precision(self, device: torch.device) -> AbstractContextManager[Any]:
        """Scores that are ranked are float32, whatever the layers are; words are too many for that."""
        low = bool(self.head.reads_words) and self.dtype != torch.float32
        return torch.autocast(device.type, dtype=self.dtype if low else None, enabled=low)


class Product:
    """A linear layer for inference, x W^T + b, and what follows it: GELU, or adding the residual.

    On a CPU in float32, oneDNN does both in one pass, with the weights in the order in which it reads them.

    Args:
        linear: several have their outputs one after the other.
        packed: use oneDNN so where that is possible; a compiler does as much by itself.
    """

    def __init__(self, *linear: nn.Linear, dtype: torch.dtype, packed: bool) -> None:
        self.weight = torch.cat([each.weight.detach() for each in linear]).to(dtype)  # (out, in)
        self.bias = torch.cat([each.bias.detach() for each in linear]).to(dtype)  # (out,)
        self.packed = _packed(self.weight) if packed else None

    def __call__(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        if self.packed is None:
            return F.linear(x, self.weight, self.bias)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        return out

    def gelu(self, x: Tensor) -> Tensor:
        """The exact GELU of the product."""
        if self.packed is None:
            return F.gelu(F.linear(x, self.weight, self.bias))
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "gelu", [], "none")
        return out

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """The product plus `residual` (..., out)."""
        if self.packed is None:
            return F.linear(x, self.weight, self.bias).add_(residual)
        residual = residual.contiguous()
        out: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, residual, self.packed, self.bias, "add")
        return out


def _packed(weight: Tensor) -> Tensor | None:
    """The weight as oneDNN likes it; None where it is not for it, or these operations are not in this torch."""
    operations = ("_reorder_linear_weight", "_linear_pointwise")
    if weight.device.type != "cpu" or weight.dtype != torch.float32 or not torch.backends.mkldnn.is_available():
        return None
    if not all(hasattr(torch.ops.mkldnn, name) for name in operations):
        return None
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
    return packed


class Layer:
    """One transformer layer, of transformers' `BertLayer`.

    Args:
        last: `first_tokens` will be called, not the layer itself.
    """

    def __init__(self, layer: Any, dtype: torch.dtype, *, last: bool, packed: bool = True) -> None:
        attention = layer.attention.self
        self.heads = attention.num_attention_heads
        parts = (attention.query, attention.key, attention.value)
        products = (parts[:1], parts[1:]) if last else (parts,)
        product = functools.partial(Product, dtype=dtype, packed=packed)
        self.projections = [product(*each) for each in products]
        self.output, self.inner = product(layer.attention.output.dense), product(layer.intermediate.dense)
        self.outer = product(layer.output.dense)
        self.norms: tuple[nn.LayerNorm, nn.LayerNorm] = (layer.attention.output.LayerNorm, layer.output.LayerNorm)

    def project(self, tokens: Tensor) -> Tensor:
        """(S, T, D) -> (S, T, 3D): queries, keys and values."""
        (project,) = self.projections
        return project(tokens)

    def __call__(self, tokens: Tensor, projected: Tensor, *, reads: int | None = None) -> Tensor:
        """Tokens (S, T, D) and their projections (S, T, 3D) -> the next layer's tokens, all or the first `reads`."""
        query, key, value = projected.chunk(3, dim=-1)
        return self._mix(tokens[:, :reads], query[:, :reads], key, value)

    def through(self, tokens: Tensor) -> Tensor:
        """(S, T, D) -> the next layer's tokens (S, T, D)."""
        return self(tokens, self.project(tokens))

    def first_tokens(self, tokens: Tensor, reads: int) -> Tensor:
        """(S, T, D) -> the first of the next layer's (S, reads, D); of the others only keys and values are computed."""
        ask, tell = self.projections
        query = ask(tokens[:, :reads])  # (S, reads, D)
        key, value = tell(tokens).chunk(2, dim=-1)  # (S, T, D)
        return self._mix(tokens[:, :reads], query, key, value)

    def _mix(self, tokens: Tensor, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Tokens and their queries (S, t, D), keys and values of all (S, T, D) -> (S, t, D)."""
        parts = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (query, key, value))
        mixed = F.scaled_dot_product_attention(*parts)  # (S, H, t, D/H)
        mixed = mixed.transpose(1, 2).flatten(2)  # (S, t, D)
        tokens = normed(self.output.add(mixed, tokens), self.norms[0])
        return normed(self.outer.add(self.inner.gelu(tokens), tokens), self.norms[1])


@functools.cache
def _compiled_layer() -> Callable[[Layer, Tensor], Tensor]:
    """`Layer.through` compiled once, for all layers and all S and T."""
    return torch.compile(Layer.through, dynamic=True)


def normed(tokens: Tensor, norm: nn.LayerNorm) -> Tensor:
    """LayerNorm in the tokens' dtype, computed in float32."""
    weight, bias = norm.weight.to(tokens.dtype), norm.bias.to(tokens.dtype)
    return F.layer_norm(tokens, norm.normalized_shape, weight, bias, norm.eps)
