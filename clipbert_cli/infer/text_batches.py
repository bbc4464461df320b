"""Which texts go through the transformer together, with which clips, and how many at a time.

Legend: N texts, L text tokens, B media items, K clips, V visual tokens, R text rows, S sequences, D width, C classes.

A row is one text with one media item; it is as many sequences as the item has clips. Sequences of equal length go
through the transformer together, from as many media items as a batch has, in parts that memory allows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from clipbert_cli.model import ClipBert
from clipbert_cli.model.answering import Answerer
from clipbert_cli.model.heads import Scores
from clipbert_cli.types import Outputs, Texts

CPU_TOKENS, CPU_FRAMES = 1024, 4
"""What of a part still lies in a processor's caches when the next layer reads it."""

GPU_TOKENS, GPU_FRAMES = 65_536, 512
"""More at a time than this is not faster."""

_MOST_NUMBERS = 2**31 - 1
"""In what the stem gives at a time: operations of some versions of torch and cuDNN count in 32 bits."""

_OUT_OF_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "unable to find an engine to execute this computation",  # cuDNN, also when memory lacks
)


class Budget:
    """How many units (tokens, frames) go through the model at a time; half as many from when memory runs out."""

    def __init__(self, units: int) -> None:
        self.units = units

    def parts(self, total: int, size: int, work: Callable[[int, int], None], *, at_most: int | None = None) -> None:
        """Call `work(start, stop)` over 0..`total`, things of `size` units each: one at least, `at_most` at a time.

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
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # after the exception: it held what was computed so far
        return False


def is_out_of_memory(exc: RuntimeError) -> bool:
    """Whether it was memory that an operation lacked; only torch's allocator of GPUs has a type of its own for that."""
    return isinstance(exc, torch.OutOfMemoryError) or any(words in str(exc) for words in _OUT_OF_MEMORY)


@dataclass(frozen=True)
class Budgets:
    """Of the transformer in tokens, of the CNN in frames."""

    tokens: Budget
    frames: Budget

    @classmethod
    def of(cls, model: ClipBert, device: torch.device, *, frame_size: int, dtype: torch.dtype) -> Budgets:
        """What fits: on a GPU by half of the memory that is free, a power of two; on a CPU by its caches."""
        if device.type != "cuda":
            return cls(Budget(CPU_TOKENS), Budget(CPU_FRAMES))
        config = model.config
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch's, to be used again
        room, bytes_each = (torch.cuda.mem_get_info(device)[0] + cached) // 2, dtype.itemsize
        per_token = bytes_each * (12 * config.bert.hidden_size + 2 * config.bert.intermediate_size)
        # Pixels in uint8 and twice in float32; the first two stages' activations are the largest.
        per_frame = frame_size**2 * (27 + bytes_each * (config.visual.stem_size + config.visual.hidden_sizes[0]) // 4)
        most = min(GPU_FRAMES, _MOST_NUMBERS // (config.visual.stem_size * frame_size**2 // 4))
        return cls(
            Budget(power_of_two(room // per_token, at_most=GPU_TOKENS)),
            Budget(power_of_two(room // per_frame, at_most=most)),
        )


def power_of_two(number: int, *, at_most: int) -> int:
    """The largest one up to `number` and up to `at_most`, at least 1: small differences in memory change nothing."""
    return 1 << (max(1, min(number, at_most)).bit_length() - 1)


# ------------------------------------------------------------------------------------------------ texts by length


@dataclass(frozen=True)
class TextBuckets:
    """N texts, embedded once, by length.

    Attributes:
        lengths: (N,) int64 tokens of each text, on the CPU like `place`.
        place: (N,) int64, where in its bucket each text stands.
        embedded: length L -> (n, L, D), the embeddings of the texts of that length.
    """

    lengths: Tensor
    place: Tensor
    embedded: dict[int, Tensor]

    @classmethod
    def of(cls, model: ClipBert, texts: Texts, device: torch.device) -> TextBuckets:
        """Embed `texts`, which are on the CPU."""
        lengths = texts.mask.sum(dim=1)
        assert bool((texts.mask == (torch.arange(texts.mask.shape[1]) < lengths[:, None])).all()), "padding in between"
        place = torch.zeros_like(lengths)
        embedded = {}
        for length in lengths.unique().tolist():
            own = (lengths == length).nonzero()[:, 0]
            place[own] = torch.arange(len(own))
            embedded[length] = model.embed_text(texts.ids[own, :length].to(device))  # (n, L, D)
        return cls(lengths, place, embedded)

    def rows(self, row_text: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Rows of one length after the other: (L, which rows)."""
        lengths = self.lengths[row_text]
        for length in lengths.unique().tolist():
            yield length, (lengths == length).nonzero()[:, 0]


# ------------------------------------------------------------------------------------------------ through the model


def encode(model: ClipBert, frames: Tensor, budget: Budget) -> Tensor:
    """(B, K, T, 3, H, W) -> (B, K, V, D), a few clips at a time."""
    clips = frames.flatten(0, 1)  # (B*K, T, 3, H, W)
    parts: list[Tensor] = []

    def work(start: int, stop: int) -> None:
        parts.append(model.encode_visual(clips[None, start:stop])[0])  # (s, V, D)

    budget.parts(len(clips), clips.shape[1], work)
    tokens = torch.cat(parts)  # (B*K, V, D)
    return tokens.view(*frames.shape[:2], *tokens.shape[1:])


@dataclass(frozen=True)
class Answers:
    """Texts with media items.

    Args:
        most_sequences: of a part, whatever the budget allows.
        after: called after every part; it may raise.
    """

    answerer: Answerer
    texts: TextBuckets
    budget: Budget
    most_sequences: int | None = None
    after: Callable[[], None] = lambda: None

    def rows(
        self, visual: Tensor, *, row_text: Tensor, row_item: Tensor, place: Tensor | None = None, total: int = 0
    ) -> Outputs:
        """The outputs of R rows, row r being text `row_text[r]` with media item `row_item[r]`; indices are on the CPU.

        Args:
            visual: (B, K, V, D).
            place: (R,), where in the outputs each row stands, of `total` rows; the others are 0. Default: R rows.
        """
        clips = visual.shape[1]
        place, total = (torch.arange(len(row_text)), len(row_text)) if place is None else (place, total)
        visual = self.answerer.first(visual.flatten(0, 1))  # (B*K, V, 4D)
        found = Collected(self.answerer.num_outputs, total * clips, int(self.texts.lengths.max()), visual.device)
        for length, rows in self.texts.rows(row_text):
            text = self.answerer.first(self.texts.embedded[length])  # (n, L, 4D)
            # Which text, which clip, and where in the outputs: a column for each sequence, a row's clips in order.
            starts = torch.stack([self.texts.place[row_text[rows]], row_item[rows] * clips, place[rows] * clips])
            steps = torch.arange(clips) * torch.tensor([[0], [1], [1]])  # (3, K)
            sequences = (starts[:, :, None] + steps[:, None]).flatten(1).to(visual.device)  # (3, r*K)
            self._through(text, visual, sequences, found)
        return found.outputs(clips)

    def _through(self, text: Tensor, visual: Tensor, sequences: Tensor, found: Collected) -> None:
        """Sequences (3, S) of one length: which of `text`, which of `visual`, which of `found`."""

        def work(start: int, stop: int) -> None:
            of_text, of_clip, where = sequences[:, start:stop]
            found.put(where, self.answerer(text[of_text], visual[of_clip]))
            self.after()

        self.budget.parts(sequences.shape[1], text.shape[1] + visual.shape[1], work, at_most=self.most_sequences)


class Collected:
    """The scores of S sequences, put in as they come; 0 where nothing is put.

    Args:
        length: of the longest text.
    """

    def __init__(self, num_outputs: int, sequences: int, length: int, device: torch.device) -> None:
        self.logits = torch.zeros(sequences, num_outputs, device=device)  # (S, C)
        self.length = length
        self.words: Tensor | None = None

    def put(self, which: Tensor, scores: Scores) -> None:
        """The scores (s, C) of the sequences `which` (s,)."""
        self.logits[which] = scores.logits.float()
        if scores.mlm_logits is not None:
            if self.words is None:
                self.words = scores.mlm_logits.new_zeros(len(self.logits), self.length, scores.mlm_logits.shape[-1])
            self.words[which, : scores.mlm_logits.shape[1]] = scores.mlm_logits  # (s, L, W)

    def outputs(self, clips: int) -> Outputs:
        """(S, ...) -> (R, K, ...)."""
        words = None if self.words is None else self.words.unflatten(0, (-1, clips))  # (R, K, L, W)
        return Outputs(self.logits.unflatten(0, (-1, clips)), words)  # (R, K, C)
