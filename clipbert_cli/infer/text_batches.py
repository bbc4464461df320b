"""Batches of text rows: which texts go through the transformer together, with which clips, and how many at a time.

Legend: N texts, L text tokens, B media items, K clips, V visual tokens, R text rows, S sequences, M words to predict,
D width, C classes.

A text row is one text with one media item. It is K sequences, one per clip. Sequences of equal length go through the
transformer together, from all media items of a batch, so that nothing is padded. They go in parts that fit into memory.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from clipbert_cli.memory import fits
from clipbert_cli.model.clipbert import ClipBert, SequenceScorer
from clipbert_cli.types import Batch, Outputs, Texts

CPU_TOKENS, CPU_FRAMES = 1024, 4
"""Parts whose activations are still in a processor's caches when the next layer reads them."""

GPU_TOKENS, GPU_FRAMES = 65_536, 512
"""Parts that already use a whole GPU; larger ones are not faster."""


class Budget:
    """The number of units (tokens or frames) per forward pass. It is halved whenever memory runs out.

    `after` is called after every pass; it may raise.
    """

    def __init__(self, units: int, after: Callable[[], None] = lambda: None) -> None:
        self.units, self.after = units, after

    def parts(self, total: int, size: int, work: Callable[[int, int], None]) -> None:
        """Call `work(start, stop)` for consecutive parts of 0..`total`.

        Args:
            size: the units of one thing. A part holds at least one thing.

        Raises:
            RuntimeError: memory does not suffice for one thing.
        """
        start = 0
        while start < total:
            stop = min(start + max(1, self.units // size), total)
            if fits(functools.partial(work, start, stop), divisible=stop - start > 1):
                start = stop
                self.after()
            else:
                self.units = (stop - start) * size // 2


@dataclass(frozen=True)
class Budgets:
    """The budget of the transformer in tokens, and of the visual encoder in frames."""

    tokens: Budget
    frames: Budget

    @classmethod
    def of(
        cls,
        model: ClipBert,
        device: torch.device,
        *,
        frame_size: int,
        dtype: torch.dtype,
        after: Callable[[], None] = lambda: None,
    ) -> Budgets:
        """Return what fits into half of a GPU's free memory, as powers of two; on a CPU what fits into its caches.

        Args:
            dtype: of the activations.
            after: see `Budget`.
        """
        if device.type != "cuda":
            return cls(Budget(CPU_TOKENS, after), Budget(CPU_FRAMES, after))
        # Memory that torch has reserved and does not use is free for the next operation, but not in mem_get_info.
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        usable, bytes_each = (torch.cuda.mem_get_info(device)[0] + cached) // 2, dtype.itemsize
        # Per token, a layer holds some 12 tensors of the model's width and 2 of the feed-forward layer's.
        per_token = bytes_each * (12 * model.sizes.hidden_size + 2 * model.sizes.intermediate_size)
        # Per pixel, 3 bytes in uint8 and twice 12 bytes in float32, beside what the visual encoder holds.
        frame = model.visual_encoder.frame_memory(frame_size)
        per_frame = frame_size**2 * 27 + bytes_each * frame.held
        return cls(
            Budget(power_of_two(usable // per_token, at_most=GPU_TOKENS), after),
            Budget(power_of_two(usable // per_frame, at_most=GPU_FRAMES), after),
        )


def power_of_two(number: int, *, at_most: int) -> int:
    """Return the largest power of two up to `number` and up to `at_most`, at least 1.

    Small differences in free memory then do not change the parts, and with them the rounding of results.
    """
    return 1 << (max(1, min(number, at_most)).bit_length() - 1)


@dataclass(frozen=True)
class TextBuckets:
    """N texts by their length, embedded once.

    Attributes:
        lengths: (N,) int64, the tokens of each text, on the CPU like `place`.
        place: (N,) int64, the position of each text in its bucket.
        embedded: length L -> (n, L, D), the embeddings of the n texts of that length.
    """

    lengths: Tensor
    place: Tensor
    embedded: dict[int, Tensor]

    @classmethod
    def of(cls, model: ClipBert, texts: Texts, device: torch.device) -> TextBuckets:
        """Embed `texts`, which are on the CPU."""
        lengths = texts.mask.sum(dim=1)  # (N,)
        assert bool((texts.mask == (torch.arange(texts.mask.shape[1]) < lengths[:, None])).all()), "padding in between"
        place = torch.zeros_like(lengths)
        embedded = {}
        for length in lengths.unique().tolist():
            own = (lengths == length).nonzero()[:, 0]  # (n,)
            place[own] = torch.arange(len(own))
            embedded[length] = model.embed_text(texts.ids[own, :length].to(device))  # (n, L, D)
        return cls(lengths, place, embedded)

    def rows(self, row_text: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield (length, indices of the rows whose text has this length); `row_text` (R,) is the text of each row."""
        lengths = self.lengths[row_text]  # (R,)
        for length in lengths.unique().tolist():
            yield length, (lengths == length).nonzero()[:, 0]


def encode(model: ClipBert, frames: Tensor, budget: Budget) -> Tensor:
    """Encode (B, K, T, 3, H, W) frames to (B, K, V, D) visual tokens, a few clips at a time."""
    clips = frames.flatten(0, 1)  # (B*K, T, 3, H, W)
    parts: list[Tensor] = []

    def work(start: int, stop: int) -> None:
        parts.append(model.encode_visual(clips[None, start:stop])[0])  # (s, V, D)

    budget.parts(len(clips), clips.shape[1], work)
    tokens = torch.cat(parts)  # (B*K, V, D)
    return tokens.view(*frames.shape[:2], *tokens.shape[1:])  # (B, K, V, D)


@dataclass(frozen=True)
class RowScorer:
    """Scores text rows."""

    scorer: SequenceScorer
    texts: TextBuckets
    budget: Budget

    def score(self, visual: Tensor, *, row_text: Tensor, row_item: Tensor) -> Outputs:
        """Return the outputs of R rows; row r is text `row_text[r]` with media item `row_item[r]`.

        Args:
            visual: (B, K, V, D); all indices are on the CPU.
        """
        clips = visual.shape[1]
        visual = self.scorer.project(visual.flatten(0, 1))  # (B*K, V, 4D)
        logits = torch.zeros(len(row_text) * clips, self.scorer.num_outputs, device=visual.device)  # (R*K, C)
        for length, rows in self.texts.rows(row_text):
            text = self.scorer.project(self.texts.embedded[length])  # (n, L, 4D)
            # For each row its text, its first clip and its first output; for each of its clips one step further,
            # except in the text.
            starts = torch.stack([self.texts.place[row_text[rows]], row_item[rows] * clips, rows * clips])
            steps = torch.arange(clips) * torch.tensor([[0], [1], [1]])  # (3, K)
            sequences = (starts[:, :, None] + steps[:, None]).flatten(1).to(visual.device)  # (3, r*K)
            self._score_sequences(text, visual, sequences, logits)
        return Outputs(logits.unflatten(0, (-1, clips)))  # (R, K, C)

    def _score_sequences(self, text: Tensor, visual: Tensor, sequences: Tensor, logits: Tensor) -> None:
        """Score sequences of one length; (3, S) are their indices into `text`, `visual` and `logits`."""

        def work(start: int, stop: int) -> None:
            of_text, of_clip, where = sequences[:, start:stop]
            logits[where] = self.scorer(text[of_text], visual[of_clip])

        self.budget.parts(sequences.shape[1], text.shape[1] + visual.shape[1], work)


def score_with_words(model: ClipBert, batch: Batch, visual: Tensor, *, words: Tensor, budget: Budget) -> Outputs:
    """Return the outputs of a batch with words to predict, as in training but for a few text rows at a time.

    Args:
        batch: on the model's device.
        visual: (B, K, V, D).
        words: (2, M), row and token of each word, by rising row; on the CPU.
    """
    parts: list[Outputs] = []

    def work(start: int, stop: int) -> None:
        begin, end = torch.searchsorted(words[0], torch.tensor([start, stop])).tolist()
        own = (words[:, begin:end] - torch.tensor([[start], [0]])).to(visual.device)
        text = model.embed_text(batch.text_ids[start:stop])
        rows = visual[batch.text_item[start:stop]]  # (N, K, V, D)
        parts.append(model.score(text, batch.text_mask[start:stop], rows, word_positions=own))

    size = visual.shape[1] * (batch.text_ids.shape[1] + visual.shape[2])
    budget.parts(len(batch.text_ids), size, work)
    scores = [part.mlm_logits for part in parts if part.mlm_logits is not None]
    # Scores of words are too many for float32.
    return Outputs(torch.cat([part.logits for part in parts]).float(), torch.cat(scores))
