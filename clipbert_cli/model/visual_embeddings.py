"""Grids of features to visual tokens.

Legend: M clips (media items times clips), T frames, h w grid, V visual tokens, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clipbert_cli.model.bert_sizes import BertSizes
from clipbert_cli.model.transformer import layer_norm

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
