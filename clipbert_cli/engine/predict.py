"""The one predict path: validation during training, `infer` over a split and ad hoc questions all come through here.

Legend: B media items, K clips, V visual tokens, N texts, L text tokens, R text rows, D width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import torch
from torch import Tensor

from clipbert_cli.batch import Batch, Example, Outputs, Prediction, Texts
from clipbert_cli.engine.distributed import World
from clipbert_cli.engine.precision import Precision
from clipbert_cli.model import ClipBert
from clipbert_cli.task.base import Task


@dataclass(frozen=True)
class SharedTexts:
    """The texts of a split that every media item is scored with, in the order of `examples`."""

    examples: tuple[Example, ...]
    texts: Texts


def predict(
    model: ClipBert,
    batches: Iterable[Batch],
    task: Task,
    *,
    world: World,
    precision: Precision,
    shared: SharedTexts | None = None,
    text_rows: int,
    progress: Callable[[int], None] = lambda done: None,
) -> Iterator[Prediction]:
    """Yield one prediction per example, in order of the examples; with `shared` one per media item.

    Every process yields those of all processes, each exactly once, whatever their number. One process yields as it
    computes; several gather at the end.
    Where a media item failed, the predictions' only field is `media_error`, the reason.

    Args:
        batches: this process's: every `world.size`-th (`OrderedBatches`).
        shared: where every text meets every media item; the batches then hold media alone.
        text_rows: most text rows that go through the transformer together, each with all its clips.
        progress: called with the number of predictions after each of this process's batches.
    """
    own = predict_batches(
        model,
        batches,
        task,
        device=world.device,
        precision=precision,
        shared=shared,
        text_rows=text_rows,
        progress=progress,
    )
    if world.size == 1:
        for predictions in own:
            yield from predictions
        return
    for turn in zip_longest(*world.gather(list(own)), fillvalue=()):  # a batch of every process
        for predictions in turn:
            yield from predictions


@torch.inference_mode()
def predict_batches(
    model: ClipBert,
    batches: Iterable[Batch],
    task: Task,
    *,
    device: torch.device,
    precision: Precision,
    shared: SharedTexts | None,
    text_rows: int,
    progress: Callable[[int], None],
) -> Iterator[Sequence[Prediction]]:
    """Yield the predictions of each batch.

    Every media item is encoded once, every text of a batch embedded once (of `shared` once and for all).
    """
    was_training = model.training
    model.eval()
    try:
        with precision.autocast(device):
            text = None if shared is None else model.embed_text(shared.texts.ids.to(device))  # (N, L, D)
        mask = None if shared is None else shared.texts.mask.to(device)  # (N, L)
        for batch in batches:
            failures = _failures(batch, every_pair=shared is not None)
            if not batch.media_ids:
                yield failures
                progress(len(failures))
                continue
            moved = batch.to(device)
            with precision.autocast(device):
                visual = model.encode_visual(moved.frames)  # (B, K, V, D)
                if shared is None:
                    text, mask = model.embed_text(moved.text_ids), moved.text_mask  # (N, L, D), (N, L)
                    row_text = torch.arange(len(text), device=device)
                    row_item = moved.text_item
                else:
                    moved = dataclasses.replace(moved, examples=shared.examples)
                    row_text = torch.arange(len(shared.texts.ids), device=device).repeat(len(visual))
                    row_item = torch.arange(len(visual), device=device).repeat_interleave(len(shared.texts.ids))
                assert text is not None
                assert mask is not None
                outputs = answer_rows(
                    model, text, mask, visual, row_text=row_text, row_item=row_item, text_rows=text_rows
                )
            predictions = [*failures, *task.predict(outputs, moved)]
            yield predictions
            progress(len(predictions))
    finally:
        model.train(was_training)


def _failures(batch: Batch, *, every_pair: bool) -> list[Prediction]:
    """The predictions of what failed: one an example, or (`every_pair`) one a media item."""
    return [
        Prediction(key, group.media_id, {"media_error": reason})
        for group, reason in batch.failed
        for key in ([group.media_id] if every_pair else [example.example_id for example in group.examples])
    ]


def answer_rows(
    model: ClipBert,
    text: Tensor,
    mask: Tensor,
    visual: Tensor,
    *,
    row_text: Tensor,
    row_item: Tensor,
    text_rows: int,
) -> Outputs:
    """The outputs of R rows, row r being text `row_text[r]` with media item `row_item[r]`, `text_rows` at a time.

    Args:
        text: (N, L, D) embeddings; mask: (N, L); visual: (B, K, V, D).
    """
    parts = [
        model.answer(text[texts], mask[texts], visual[items])
        for texts, items in zip(row_text.split(text_rows), row_item.split(text_rows), strict=True)
    ]
    return parts[0] if len(parts) == 1 else Outputs(_joined([part.logits for part in parts]), _mlm(parts))


def _mlm(parts: Sequence[Outputs]) -> Tensor | None:
    logits = [part.mlm_logits for part in parts if part.mlm_logits is not None]
    return _joined(logits) if logits else None


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts))
