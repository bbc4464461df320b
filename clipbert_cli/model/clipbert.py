"""The model: encode the clips, embed the text, fuse both, answer.

Legend: B media items, K clips, T frames, H W frame, N text rows, L text tokens, V visual tokens, D width, C classes.

    frames (B, K, T, 3, H, W) ─► encode_visual ─► (B, K, V, D) ─┐ rows by text_item
    text_ids (N, L) ───────────► embed_text ────► (N, L, D) ────┴► fuse ─► head ─► logits (N, K, C)

ClipBERT: Lei et al., CVPR 2021, arXiv 2102.06183.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertEmbeddings, BertEncoder, BertPooler

from clipbert_cli.errors import OutputError
from clipbert_cli.files import atomic_path
from clipbert_cli.model.answering import Answerer
from clipbert_cli.model.heads import HEADS, Fused, HeadSpec
from clipbert_cli.model.pretrained import FORMAT_VERSION, read_config
from clipbert_cli.model.resnet import GridResNet
from clipbert_cli.model.visual_embeddings import VisualEmbeddings
from clipbert_cli.model.weights.load import load_weights
from clipbert_cli.model.weights.weight_files import CONFIG_FILE, WEIGHTS_FILE
from clipbert_cli.recipe.schema import BertConfigSection, ModelConfig
from clipbert_cli.types import Batch, Outputs


class ClipBert(nn.Module):
    """A few short clips and a text in, scores out, one set per clip.

    Parameters below `visual_encoder.` (its grid layer included) are the visual encoder's, all others the transformer's.

    Args:
        config: sizes; `tokenizer` and `weights` are not read here.
        head: which head, and how many outputs.
    """

    def __init__(self, config: ModelConfig, head: HeadSpec) -> None:
        super().__init__()
        self.config = config
        self.head_spec = head
        bert = bert_config(config.bert)
        self.visual_encoder = GridResNet(config.visual, config.bert.hidden_size)
        self.text_embeddings = BertEmbeddings(bert)
        self.visual_embeddings = VisualEmbeddings(config.bert, sample_size=config.pixel_random_sampling_size)
        self.encoder = BertEncoder(bert)
        self.pooler = BertPooler(bert)
        self.head = HEADS[head.kind](config, bert, head.num_outputs)
        for name, module in self.named_children():
            if name != "visual_encoder":
                module.apply(lambda part: start_weights(part, config.bert.initializer_range))

    def freezable_parts(self) -> dict[str, list[nn.Module]]:
        """Return the parts that `train.freeze` can name."""
        embeddings: list[nn.Module] = [self.text_embeddings, self.visual_embeddings]
        return {
            "visual": [self.visual_encoder],
            **{f"visual.{name}": [part] for name, part in self.visual_encoder.parts().items()},
            "transformer": [*embeddings, self.encoder, self.pooler],
            "transformer.embeddings": embeddings,
            **{f"transformer.{number}": [layer] for number, layer in enumerate(self.encoder.layer)},
            "head": [self.head],
        }

    def encode_visual(self, frames: Tensor, *, cells: Tensor | None = None) -> Tensor:
        """(B, K, T, 3, H, W) RGB of 0..255 -> (B, K, V, D) visual tokens; `cells` (V,) replaces the random draw.

        Raises:
            ValueError: the grid is larger than the model has position embeddings for.
        """
        items, clips, length = frames.shape[:3]
        grid: Tensor = self.visual_encoder(frames.flatten(0, 2))  # (B*K*T, h, w, D)
        grid = grid.unflatten(0, (items * clips, length))  # (B*K, T, h, w, D)
        tokens: Tensor = self.visual_embeddings(grid, cells=cells)  # (B*K, V, D)
        return tokens.view(items, clips, *tokens.shape[1:])  # (B, K, V, D)

    def embed_text(self, text_ids: Tensor) -> Tensor:
        """(N, L) int64 -> (N, L, D) word, position and token type embeddings.

        Raises:
            ValueError: the texts are longer than the model has position embeddings for.
        """
        if text_ids.shape[1] > self.config.bert.max_position_embeddings:
            raise ValueError(
                f"the texts have {text_ids.shape[1]} tokens, model.bert.max_position_embeddings is "
                f"{self.config.bert.max_position_embeddings}: lower data.max_text_length"
            )
        text: Tensor = self.text_embeddings(text_ids)
        return text

    def fuse(self, text: Tensor, text_mask: Tensor, visual: Tensor) -> Fused:
        """Text (N, L, D) and visual tokens (N, V, D) through the transformer, text first.

        `text_mask` (N, L) bool hides padding from every position; visual tokens are always visible.
        """
        tokens = torch.cat([text, visual], dim=1)  # (N, L+V, D)
        mask = torch.cat([text_mask, text_mask.new_ones(visual.shape[:2])], dim=1)  # (N, L+V)
        sequence = self.encoder(tokens, attention_mask=mask[:, None, None]).last_hidden_state  # (N, L+V, D)
        return Fused(sequence, self.pooler(sequence))

    def answer(self, text: Tensor, text_mask: Tensor, visual: Tensor) -> Outputs:
        """Fuse every text row with every clip of its media item, and score.

        Args:
            text: (N, L, D) from `embed_text`.
            text_mask: (N, L) bool, True = real token.
            visual: (N, K, V, D), the rows of `encode_visual` that the text rows read.
        """
        rows, clips = visual.shape[:2]
        length = text.shape[1]
        text = text.repeat_interleave(clips, dim=0)  # (N*K, L, D)
        text_mask = text_mask.repeat_interleave(clips, dim=0)  # (N*K, L)
        fused = self.fuse(text, text_mask, visual.flatten(0, 1))  # (N*K, L+V, D), (N*K, D)
        scores = self.head(fused, text_length=length, word_embeddings=self.text_embeddings.word_embeddings.weight)
        return Outputs(
            logits=scores.logits.unflatten(0, (rows, clips)),  # (N, K, C)
            mlm_logits=None if scores.mlm_logits is None else scores.mlm_logits.unflatten(0, (rows, clips)),
        )

    def answerer(self, dtype: torch.dtype = torch.float32, *, compiled: bool = False) -> Answerer:
        """`answer` for inference, with the weights as they are now."""
        return Answerer(self, dtype, compiled=compiled)

    def forward(self, batch: Batch) -> Outputs:
        """All clips of a batch at once; each media item is encoded once, each text embedded once."""
        visual = self.encode_visual(batch.frames)  # (B, K, V, D)
        text = self.embed_text(batch.text_ids)  # (N, L, D)
        return self.answer(text, batch.text_mask, visual[batch.text_item])  # (N, K, C)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` (sizes, head, format version) and `model.safetensors` into `folder`.

        Raises:
            OutputError: the folder cannot be written.
        """
        folder = Path(folder)
        description = {
            "format": "clipbert",
            "format_version": FORMAT_VERSION,
            "model": self.config.model_dump(mode="json", exclude={"weights": True, "visual": {"weights"}}),
            "head": dataclasses.asdict(self.head_spec),
        }
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / CONFIG_FILE).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
            with atomic_path(folder / WEIGHTS_FILE) as unfinished:
                save_file(state, unfinished, metadata={"format": "pt"})
        except (OSError, SafetensorError) as error:
            raise OutputError(f"{folder}: the model cannot be written here: {error}") from error

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> ClipBert:
        """The model that `save_pretrained` wrote, in evaluation mode on the CPU.

        Raises:
            WeightsError: no such folder, or its files are not this project's or do not fit each other.
        """
        folder = Path(folder)
        config, head = read_config(folder / CONFIG_FILE)
        model = cls(config, head)
        load_weights(model, folder, parts="all", allow_new_head=False)
        return model.eval()


def bert_config(config: BertConfigSection) -> BertConfig:
    """The same settings in transformers' words; exact GELU, scaled dot product attention."""
    return BertConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        intermediate_size=config.intermediate_size,
        hidden_act="gelu",
        hidden_dropout_prob=config.hidden_dropout,
        attention_probs_dropout_prob=config.attention_dropout,
        max_position_embeddings=config.max_position_embeddings,
        type_vocab_size=config.type_vocab_size,
        initializer_range=config.initializer_range,
        layer_norm_eps=config.layer_norm_eps,
        pad_token_id=0,
        attn_implementation="sdpa",
    )


@torch.no_grad()
def start_weights(module: nn.Module, deviation: float) -> None:
    """BERT's start: normal weights of `deviation`, zero biases, LayerNorms at 1 and 0 (also the padding word's row)."""
    if isinstance(module, nn.Linear | nn.Embedding):
        module.weight.normal_(0, deviation)
    if isinstance(module, nn.LayerNorm):
        module.weight.fill_(1)
    if isinstance(module, nn.Linear | nn.LayerNorm):
        module.bias.zero_()
