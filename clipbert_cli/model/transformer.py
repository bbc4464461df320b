"""BERT's layers, used by training and inference alike.

Legend: S sequences (one text with one clip), L text tokens, V visual tokens, T = L + V, D width, N heads, I inner
width of the feed-forward network.

    text ids (n, L) ─► TextEmbeddings ─► (n, L, D) ─┐
    visual tokens (m, V, D) ────────────────────────┴► tokens (S, T, D) ─► Transformer ─► (S, T, D) ─► pool ─► (S, D)

The numbers are those of BERT (Devlin et al. 2019): exact GELU, and layer norm after each residual sum ("post-norm").
The projections to queries, keys and values are packed into one matrix, in this order.

Inference needs less work for the same numbers. Three methods are for it:
`TransformerLayer.forward` with `only_first` computes only the first token of a layer's output;
`Transformer.project_first` computes the first layer's projections, which depend on one token each, so a text's and a
clip's are computed once, whatever they are fused with;
`Transformer.fuse_projected` runs sequences of such tokens, all of one length, so that no padding and no mask is needed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clipbert_cli.model.bert_sizes import BertSizes

PROJECTIONS = ("query", "key", "value")
"""The thirds of a packed projection, in order."""

PAD = 0
"""BERT's id of the padding token; its embedding gets no gradient."""

# All BERT and ClipBERT checkpoints have two token types. The second one is never used.
TOKEN_TYPES = 2

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,  # exact, not the approximation by tanh
    "gelu_new": functools.partial(nn.GELU, approximate="tanh"),
    "relu": nn.ReLU,
    "silu": nn.SiLU,
}
"""Activations of the feed-forward part, by their names in `config.json`."""


def activation(sizes: BertSizes) -> nn.Module:
    """Return the activation of the feed-forward part, which the masked word head has too."""
    return ACTIVATIONS[sizes.hidden_act]()


def layer_norm(sizes: BertSizes) -> nn.LayerNorm:
    """Return a layer norm over the model's width."""
    return nn.LayerNorm(sizes.hidden_size, eps=sizes.layer_norm_eps)


class TextEmbeddings(nn.Module):
    """Sum of word, position and token type embeddings, then layer norm and dropout; every token has type 0."""

    def __init__(self, sizes: BertSizes) -> None:
        super().__init__()
        width = sizes.hidden_size
        self.word_embeddings = nn.Embedding(sizes.vocab_size, width, padding_idx=PAD)
        self.position_embeddings = nn.Embedding(sizes.max_position_embeddings, width)
        self.token_type_embeddings = nn.Embedding(TOKEN_TYPES, width)
        self.norm = layer_norm(sizes)
        self.dropout = nn.Dropout(sizes.hidden_dropout)

    def forward(self, ids: Tensor) -> Tensor:
        """Embed token ids (n, L) int64 as tokens (n, L, D)."""
        tokens = self.word_embeddings(ids) + self.token_type_embeddings.weight[0]  # (n, L, D)
        tokens = tokens + self.position_embeddings.weight[: ids.shape[1]]  # + (L, D)
        out: Tensor = self.dropout(self.norm(tokens))
        return out


class TransformerLayer(nn.Module):
    """Self-attention and a feed-forward network, each with dropout, residual sum and layer norm."""

    def __init__(self, sizes: BertSizes) -> None:
        super().__init__()
        width = sizes.hidden_size
        self.width = width
        self.num_heads = sizes.num_attention_heads
        self.attention_dropout = sizes.attention_dropout
        self.qkv = nn.Linear(width, len(PROJECTIONS) * width)
        self.attention_output = nn.Linear(width, width)
        self.attention_norm = layer_norm(sizes)
        self.intermediate = nn.Linear(width, sizes.intermediate_size)
        self.activation = activation(sizes)
        self.output = nn.Linear(sizes.intermediate_size, width)
        self.output_norm = layer_norm(sizes)
        self.dropout = nn.Dropout(sizes.hidden_dropout)

    def forward(self, tokens: Tensor, mask: Tensor | None = None, *, only_first: bool = False) -> Tensor:
        """Run the layer on tokens (S, T, D); return all of them, or only the first, (S, 1, D).

        Args:
            mask: (S, 1, 1, T) bool, True = visible to every token; by default all tokens are visible.
        """
        if not only_first:
            query, key, value = self.qkv(tokens).chunk(3, dim=-1)  # (S, T, D) each
            return self.attend(tokens, query, key, value, mask)
        # Every token has a key and a value, but only the token that is read has a query.
        weight, bias = self.qkv.weight, self.qkv.bias
        query = F.linear(tokens[:, :1], weight[: self.width], bias[: self.width])  # (S, 1, D)
        key, value = F.linear(tokens, weight[self.width :], bias[self.width :]).chunk(2, dim=-1)  # (S, T, D) each
        return self.attend(tokens[:, :1], query, key, value, mask)

    def attend(self, tokens: Tensor, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """Run the layer after its projections: tokens and queries are (S, t, D), keys and values (S, T, D)."""
        query, key, value = (
            each.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for each in (query, key, value)
        )  # (S, N, t or T, D/N)
        dropout = self.attention_dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)  # (S, N, t, D/N)
        mixed = mixed.transpose(1, 2).flatten(2)  # (S, t, D)
        tokens = self.attention_norm(tokens + self.dropout(self.attention_output(mixed)))
        inner = self.activation(self.intermediate(tokens))  # (S, t, I)
        out: Tensor = self.output_norm(tokens + self.dropout(self.output(inner)))  # (S, t, D)
        return out


class Transformer(nn.Module):
    """The layers, and the pooler on the first token."""

    layers: Sequence[TransformerLayer]

    def __init__(self, sizes: BertSizes) -> None:
        super().__init__()
        layers = (TransformerLayer(sizes) for _ in range(sizes.num_hidden_layers))
        self.layers = nn.ModuleList(layers)  # type: ignore[assignment]  # torch does not say what a list holds
        self.pooler = nn.Linear(sizes.hidden_size, sizes.hidden_size)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Run all layers on tokens (S, T, D); mask (S, T) bool is True where a token is visible."""
        mask = mask[:, None, None]  # (S, 1, 1, T)
        for layer in self.layers:
            tokens = layer(tokens, mask)
        return tokens

    def pool(self, sequence: Tensor) -> Tensor:
        """Return the pooled first token ([CLS]) of sequences (S, T, D): (S, D) in -1..1."""
        pooled: Tensor = self.pooler(sequence[:, 0]).tanh()
        return pooled

    def project_first(self, tokens: Tensor) -> Tensor:
        """Return tokens (n, t, D) and their three projections in the first layer, (n, t, 4D)."""
        return torch.cat([tokens, self.layers[0].qkv(tokens)], dim=-1)

    def fuse_projected(self, tokens: Tensor) -> Tensor:
        """Fuse sequences (S, T, 4D) from `project_first`, all tokens visible; return the first token, (S, 1, D)."""
        first, *others = self.layers
        tokens, query, key, value = tokens.chunk(4, dim=-1)  # (S, T, D) each
        if not others:
            return first.attend(tokens[:, :1], query[:, :1], key, value)
        tokens = first.attend(tokens, query, key, value)  # (S, T, D)
        for layer in others[:-1]:
            tokens = layer(tokens)
        out: Tensor = others[-1](tokens, only_first=True)  # (S, 1, D)
        return out


def split_projections(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replace each packed tensor `...qkv.weight` or `...qkv.bias` by three views `...query.weight` and so on.

    Weights of other projects have three tensors per layer; what is written into a view is written into the model.
    """
    split: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        layer, packed, leaf = name.rpartition("qkv.")
        if packed:
            split |= {f"{layer}{part}.{leaf}": view for part, view in zip(PROJECTIONS, tensor.chunk(3), strict=True)}
        else:
            split[name] = tensor
    return split


@torch.no_grad()
def reset_parameters(module: nn.Module, deviation: float) -> None:
    """Draw BERT's initial weights for one module: normal with `deviation`, biases 0, layer norms the identity.

    The row of the padding word is drawn like all others, as in the original.
    """
    if isinstance(module, nn.Linear | nn.Embedding):
        module.weight.normal_(0, deviation)
    if isinstance(module, nn.LayerNorm):
        module.weight.fill_(1)
    if isinstance(module, nn.Linear | nn.LayerNorm):
        module.bias.zero_()
