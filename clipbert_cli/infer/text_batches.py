"""Batches of text rows: which texts go through the transformer together, with which clips, and how many at a time.

Legend: N texts, L text tokens, B media items, K clips, V visual tokens, R text rows, S sequences, M words to predict,
D width, C classes, W vocabulary.

A text row is one text with one media item. It is K sequences, one per clip. Sequences of equal length go through the
transformer together, from all media items of a batch, so that nothing is padded. They go in parts that fit into memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from clipbert_cli.memory import is_out_of_memory
from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.model.heads import Scores, in_every_clip
from clipbert_cli.model.scorer import SequenceScorer
from clipbert_cli.types import Outputs, Texts

CPU_TOKENS, CPU_FRAMES = 1024, 4
"""Parts whose activations are still in a processor's caches when the next layer reads them."""

GPU_TOKENS, GPU_FRAMES = 65_536, 512
"""Parts that already use a whole GPU; larger ones are not faster."""


class Budget:
    """The number of units (tokens or frames) per forward pass. It is halved whenever memory runs out."""

    def __init__(self, units: int) -> None:
        self.units = units

    def parts(self, total: int, size: int, work: Callable[[int, int], None], *, at_most: int | None = None) -> None:
        """Call `work(start, stop)` for consecutive parts of 0..`total`.

        Args:
            size: the units of one thing. A part holds at least one thing.
            at_most: the most things of a part, whatever the budget allows.

        Raises:
            RuntimeError: memory does not suffice for one thing.
        """
        start = 0
        while start < total:
            fitting = max(1, self.units // size)
            stop = min(start + min(fitting, at_most or fitting), total)
            if self._fits(work, start, stop):
                start = stop
            else:
                self.units = (stop - start) * size // 2

    def _fits(self, work: Callable[[int, int], None], start: int, stop: int) -> bool:
        try:
            work(start, stop)
        except RuntimeError as exc:
            if stop - start == 1 or not is_out_of_memory(exc):
                raise
        else:
            return True
        # Outside the handler: the exception's traceback held the tensors that were computed so far.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return False


@dataclass(frozen=True)
class Budgets:
    """The budget of the transformer in tokens, and of the visual encoder in frames."""

    tokens: Budget
    frames: Budget

    @classmethod
    def of(cls, model: ClipBert, device: torch.device, *, frame_size: int, dtype: torch.dtype) -> Budgets:
        """Return what fits into half of a GPU's free memory, as powers of two; on a CPU what fits into its caches."""
        if device.type != "cuda":
            return cls(Budget(CPU_TOKENS), Budget(CPU_FRAMES))
        # Memory that torch has reserved and does not use is free for the next operation, but not in mem_get_info.
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        usable, bytes_each = (torch.cuda.mem_get_info(device)[0] + cached) // 2, dtype.itemsize
        # Per token, a layer holds some 12 tensors of the model's width and 2 of the feed-forward layer's.
        per_token = bytes_each * (12 * model.sizes.hidden_size + 2 * model.sizes.intermediate_size)
        # Per pixel, 3 bytes in uint8 and twice 12 bytes in float32, beside what the visual encoder holds.
        frame = model.visual_encoder.frame_memory(frame_size)
        per_frame = frame_size**2 * 27 + bytes_each * frame.held
        return cls(
            Budget(power_of_two(usable // per_token, at_most=GPU_TOKENS)),
            Budget(power_of_two(usable // per_frame, at_most=GPU_FRAMES)),
        )


def power_of_two(number: int, *, at_most: int) -> int:
    """Return the largest power of two up to `number` and up to `at_most`, at least 1.

    Small differences in free memory then do not change the parts, and with them the rounding of results.
    """
    return 1 << (max(1, min(number, at_most)).bit_length() - 1)


# ------------------------------------------------------------------------------------------------ texts by length


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


# ------------------------------------------------------------------------------------------------ through the model


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
    """Scores text rows.

    Args:
        most_sequences: the most sequences of a part, whatever the budget allows.
        after: called after every part; it may raise.
    """

    scorer: SequenceScorer
    texts: TextBuckets
    budget: Budget
    most_sequences: int | None = None
    after: Callable[[], None] = lambda: None

    def score(
        self,
        visual: Tensor,
        *,
        row_text: Tensor,
        row_item: Tensor,
        place: Tensor | None = None,
        total: int = 0,
        words: Tensor | None = None,
    ) -> Outputs:
        """Return the outputs of R rows; row r is text `row_text[r]` with media item `row_item[r]`.

        Args:
            visual: (B, K, V, D); all indices are on the CPU.
            place: (R,), the position of each row among `total` outputs; the others are 0. Default: R outputs in order.
            words: (2, M), row and token of each word to predict; None predicts none.
        """
        clips = visual.shape[1]
        place, total = (torch.arange(len(row_text)), len(row_text)) if place is None else (place, total)
        visual = self.scorer.project(visual.flatten(0, 1))  # (B*K, V, 4D)
        num_words = 0 if words is None else words.shape[1] * clips
        found = Collected(self.scorer.num_outputs, total * clips, num_words, visual.device)
        for length, rows in self.texts.rows(row_text):
            text = self.scorer.project(self.texts.embedded[length])  # (n, L, 4D)
            # For each row its text, its first clip and its first output; for each of its clips one step further,
            # except in the text.
            starts = torch.stack([self.texts.place[row_text[rows]], row_item[rows] * clips, place[rows] * clips])
            steps = torch.arange(clips) * torch.tensor([[0], [1], [1]])  # (3, K)
            sequences = (starts[:, :, None] + steps[:, None]).flatten(1).to(visual.device)  # (3, r*K)
            own_words = None if words is None else _words_of_sequences(words, rows, clips)
            self._score_sequences(text, visual, sequences, own_words, found)
        return found.outputs(clips)

    def _score_sequences(
        self, text: Tensor, visual: Tensor, sequences: Tensor, words: Tensor | None, found: Collected
    ) -> None:
        """Score sequences of one length.

        Args:
            sequences: (3, S) indices into `text`, `visual` and `found`.
            words: (3, m) from `_words_of_sequences`.
        """

        def work(start: int, stop: int) -> None:
            of_text, of_clip, where = sequences[:, start:stop]
            if words is None:
                found.put(where, self.scorer(text[of_text], visual[of_clip], None))
            else:
                begin, end = torch.searchsorted(words[0], torch.tensor([start, stop])).tolist()
                sequence, token, place = words[:, begin:end].to(visual.device)
                scores = self.scorer(text[of_text], visual[of_clip], torch.stack([sequence - start, token]))
                found.put(where, scores, words=place)
            self.after()

        self.budget.parts(sequences.shape[1], text.shape[1] + visual.shape[1], work, at_most=self.most_sequences)


def _words_of_sequences(words: Tensor, rows: Tensor, clips: int) -> Tensor:
    """Return the words of the rows `rows` in every clip, by sequence.

    Args:
        words: (2, M), row and token of each word.
        rows: (r,), rising; sequence s is row `rows[s // clips]` with clip `s % clips`.

    Returns:
        (3, m) int64: sequence, token, and the position among M*K outputs.
    """
    own = torch.isin(words[0], rows).nonzero()[:, 0]
    place = torch.searchsorted(rows, words[0, own])  # of each word's row in `rows`
    sequence, token = in_every_clip(torch.stack([place, words[1, own]]), clips)
    output, _ = in_every_clip(torch.stack([own, own]), clips)
    return torch.stack([sequence, token, output])[:, sequence.argsort(stable=True)]


class Collected:
    """The scores of S sequences and M*K words, written as they come; 0 where nothing is written."""

    def __init__(self, num_outputs: int, sequences: int, num_words: int, device: torch.device) -> None:
        self.logits = torch.zeros(sequences, num_outputs, device=device)  # (S, C)
        self.num_words = num_words
        self.words: Tensor | None = None

    def put(self, which: Tensor, scores: Scores, *, words: Tensor | None = None) -> None:
        """Write the scores (s, C) of the sequences `which` (s,), and those (m, W) of the words `words` (m,)."""
        self.logits[which] = scores.logits.float()
        if scores.mlm_logits is not None:
            if self.words is None:
                self.words = scores.mlm_logits.new_zeros(self.num_words, scores.mlm_logits.shape[-1])
            self.words[words] = scores.mlm_logits

    def outputs(self, clips: int) -> Outputs:
        """Return the scores by row or word, and clip: (S, C) -> (R, K, C) and (M*K, W) -> (M, K, W)."""
        words = None if self.words is None else self.words.unflatten(0, (-1, clips))  # (M, K, W)
        return Outputs(self.logits.unflatten(0, (-1, clips)), words)  # (R, K, C)
