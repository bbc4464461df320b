"""The model: encode the clips, embed the text, fuse both, score.

Legend: B media items, K clips, M = B*K, T frames, H W frame, h w grid, N text rows, L text tokens, V visual tokens,
D width, C classes.

    frames (B, K, T, 3, H, W) ─► encode_visual ─► (B, K, V, D) ─┐ rows by text_item
    text_ids (N, L) ───────────► embed_text ────► (N, L, D) ────┴► fuse ─► head ─► logits (N, K, C)

ClipBERT: Lei et al., CVPR 2021, arXiv 2102.06183.
"""

from __future__ import annotations

import copy
import dataclasses

import torch
from torch import Tensor, nn

from clipbert_cli.model.bert_sizes import BertSizes
from clipbert_cli.model.heads import HEADS, Fused, HeadSpec, Scores, in_every_clip
from clipbert_cli.model.hf_encoder import HuggingFaceEncoder
from clipbert_cli.model.hf_files import VisionModel
from clipbert_cli.model.resnet import GridResNet
from clipbert_cli.model.transformer import TextEmbeddings, Transformer, layer_norm, reset_parameters
from clipbert_cli.model.visual_encoder import VisualEncoder
from clipbert_cli.recipe.schema import ModelConfig
from clipbert_cli.types import Batch, Outputs

# Rows and columns that have a position embedding, as in all ClipBERT checkpoints. A cell is 64 pixels wide, so
# data.frame_size is at most 6400.
GRID_SIDE = 100


class VisualEmbeddings(nn.Module):
    """Mean over a clip's frames, plus row and column embeddings of each cell (ClipBERT section 3.1), then layer norm.

    Args:
        sizes: width and dropout.
        sample_size: cells kept at random in training (Pixel-BERT's pixel random sampling); 0 keeps all of them.
    """

    def __init__(self, sizes: BertSizes, *, sample_size: int = 0) -> None:
        super().__init__()
        self.sample_size = sample_size
        self.row_embeddings = nn.Embedding(GRID_SIDE, sizes.hidden_size)
        self.column_embeddings = nn.Embedding(GRID_SIDE, sizes.hidden_size)
        self.token_type_embeddings = nn.Embedding(1, sizes.hidden_size)
        self.norm = layer_norm(sizes)
        self.dropout = nn.Dropout(sizes.hidden_dropout)

    def forward(self, grid: Tensor) -> Tensor:
        """Turn grids (M, T, h, w, D) into visual tokens (M, V, D), in row-major order of the grid.

        Raises:
            ValueError: the grid has more rows or columns than there are embeddings for.
        """
        rows, columns = grid.shape[2:4]
        if max(rows, columns) > GRID_SIDE:
            raise ValueError(
                f"the grid is {rows} x {columns} (rows x columns), but there are position embeddings for "
                f"{GRID_SIDE} rows and {GRID_SIDE} columns: use smaller frames"
            )
        features = grid.mean(dim=1)  # (M, h, w, D)
        features = features + self.row_embeddings.weight[:rows, None]  # + (h, 1, D)
        features = features + self.column_embeddings.weight[:columns]  # + (w, D)
        tokens = features.flatten(1, 2)  # (M, h*w, D)
        cells = self.draw_cells(tokens.shape[1], device=tokens.device)
        if cells is not None:
            # One draw serves all clips of the batch, as in the original: sequences keep one length.
            tokens = tokens[:, cells]  # (M, V, D)
        tokens = tokens + self.token_type_embeddings.weight[0]
        out: Tensor = self.dropout(self.norm(tokens))  # (M, V, D)
        return out

    def draw_cells(self, num_cells: int, *, device: torch.device) -> Tensor | None:
        """Return (V,) int64 sorted cells, the same for the whole batch, or None if all cells are kept.

        All are kept in evaluation, and if there are at most `sample_size` of them.
        """
        if not self.training or not 0 < self.sample_size < num_cells:
            return None
        return torch.randperm(num_cells, device=device)[: self.sample_size].sort().values  # (V,)


class SequenceScorer:
    """Scores sequences at inference with less work than `ClipBert.score`, without padding and without a mask.

    text (n, L, D) ───► project ─► (n, L, 4D) ─┐ one of each for
    visual (m, V, D) ─► project ─► (m, V, 4D) ─┴► every sequence ─► layers ─► head ─► logits (S, C)

    All S sequences of a call, one text with one clip each, have one length.

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


MOST_NUMBERS = 2**31 - 1
"""The most numbers in one tensor of the visual encoder: some versions of torch and cuDNN count elements in 32 bits."""


class ClipBert(nn.Module):
    """A few short clips and a text to scores, one set per clip.

    Parameters below `visual_encoder.` (its grid layer included) are the visual encoder's, all others the transformer's.

    Args:
        config: sizes; `tokenizer` and the places of weights are not read here.
        head: kind of the head and its number of outputs.
        vision: the visual encoder to build, if `config.visual.kind` is `hf`.
        vocabulary: the digest of the vocabulary whose entries the word embeddings belong to, if it is known.
    """

    visual_encoder: VisualEncoder

    def __init__(
        self,
        config: ModelConfig,
        head: HeadSpec,
        vision: VisionModel | None = None,
        vocabulary: str | None = None,
    ) -> None:
        super().__init__()
        self.sizes = sizes = BertSizes.of(config.bert)
        # With every size, so that a saved model describes itself.
        bert = config.bert.model_copy(update=dataclasses.asdict(sizes))
        self.config = config.model_copy(update={"bert": bert})
        self.head_spec = head
        self.vocabulary = vocabulary
        if vision is None:
            self.visual_encoder = GridResNet(config.visual, sizes.hidden_size)
        else:
            self.visual_encoder = HuggingFaceEncoder(config.visual, sizes.hidden_size, vision)
        self.text_embeddings = TextEmbeddings(sizes)
        self.visual_embeddings = VisualEmbeddings(sizes, sample_size=config.pixel_random_sampling_size)
        self.transformer = Transformer(sizes)
        self.head = HEADS[head.kind](sizes, head.num_outputs)
        for name, module in self.named_children():
            if name != "visual_encoder":
                module.apply(lambda part: reset_parameters(part, sizes.initializer_range))

    def freezable_parts(self) -> dict[str, list[nn.Module]]:
        """Return the parts that `train.freeze` can name."""
        embeddings: list[nn.Module] = [self.text_embeddings, self.visual_embeddings]
        return {
            "visual": [self.visual_encoder],
            **{f"visual.{name}": part for name, part in self.visual_encoder.parts().items()},
            "transformer": [*embeddings, self.transformer],
            "transformer.embeddings": embeddings,
            **{f"transformer.{number}": [layer] for number, layer in enumerate(self.transformer.layers)},
            "head": [self.head],
        }

    def encode_visual(self, frames: Tensor) -> Tensor:
        """Encode frames (B, K, T, 3, H, W), RGB of 0..255, as visual tokens (B, K, V, D).

        Raises:
            ValueError: the grid has more rows or columns than the model has position embeddings for.
        """
        items, clips, length = frames.shape[:3]
        grid = self._encode_frames(frames.flatten(0, 2))  # (B*K*T, h, w, D)
        grid = grid.unflatten(0, (items * clips, length))  # (B*K, T, h, w, D)
        tokens: Tensor = self.visual_embeddings(grid)  # (B*K, V, D)
        return tokens.view(items, clips, *tokens.shape[1:])  # (B, K, V, D)

    def _encode_frames(self, frames: Tensor) -> Tensor:
        """Encode frames (M, 3, H, W) as grids (M, h, w, D), in parts if one tensor inside would be too large."""
        most = max(1, MOST_NUMBERS // self.visual_encoder.frame_memory(max(frames.shape[-2:])).largest)
        parts = [self.visual_encoder(part) for part in frames.split(most)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def embed_text(self, text_ids: Tensor) -> Tensor:
        """Return the sum (N, L, D) of word, position and token type embeddings of token ids (N, L) int64.

        Raises:
            ValueError: the texts are longer than the model has position embeddings for.
        """
        if text_ids.shape[1] > self.sizes.max_position_embeddings:
            raise ValueError(
                f"the texts have {text_ids.shape[1]} tokens, but model.bert.max_position_embeddings is "
                f"{self.sizes.max_position_embeddings}: lower data.max_text_length"
            )
        text: Tensor = self.text_embeddings(text_ids)
        return text

    def fuse(self, text: Tensor, text_mask: Tensor, visual: Tensor) -> Fused:
        """Run text (N, L, D) and visual tokens (N, V, D) through the transformer, text first.

        `text_mask` (N, L) bool hides padding from every position; visual tokens are always visible.
        """
        tokens = torch.cat([text, visual], dim=1)  # (N, L+V, D)
        mask = torch.cat([text_mask, text_mask.new_ones(visual.shape[:2])], dim=1)  # (N, L+V)
        sequence = self.transformer(tokens, mask)  # (N, L+V, D)
        return Fused(sequence, self.transformer.pool(sequence))

    def score(
        self, text: Tensor, text_mask: Tensor, visual: Tensor, *, word_positions: Tensor | None = None
    ) -> Outputs:
        """Fuse every text row with every clip of its media item, and score.

        Args:
            text: (N, L, D) from `embed_text`.
            text_mask: (N, L) bool, True = real token.
            visual: (N, K, V, D) from `encode_visual`, the media item of each text row.
            word_positions: (2, M), text row and token of each word to predict, see `Texts.word_positions`.
        """
        rows, clips = visual.shape[:2]
        text = text.repeat_interleave(clips, dim=0)  # (N*K, L, D)
        text_mask = text_mask.repeat_interleave(clips, dim=0)  # (N*K, L)
        fused = self.fuse(text, text_mask, visual.flatten(0, 1))  # (N*K, L+V, D), (N*K, D)
        words = None if word_positions is None else in_every_clip(word_positions, clips)  # (2, M*K)
        scores = self.head(fused, words=words, word_embeddings=self.text_embeddings.word_embeddings.weight)
        return Outputs(
            logits=scores.logits.unflatten(0, (rows, clips)),  # (N, K, C)
            mlm_logits=None if scores.mlm_logits is None else scores.mlm_logits.unflatten(0, (-1, clips)),  # (M, K, W)
        )

    def scorer(self, dtype: torch.dtype = torch.float32) -> SequenceScorer:
        """Return an object that scores at inference; it explains the arguments."""
        return SequenceScorer(self.transformer, self.head, dtype=dtype)

    def forward(self, batch: Batch) -> Outputs:
        """Score all clips of a batch at once; each media item is encoded once, each text embedded once."""
        visual = self.encode_visual(batch.frames)  # (B, K, V, D)
        text = self.embed_text(batch.text_ids)  # (N, L, D)
        rows = visual[batch.text_item]  # (N, K, V, D)
        return self.score(text, batch.text_mask, rows, word_positions=batch.word_positions)  # (N, K, C)
