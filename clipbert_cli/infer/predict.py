"""The one predict path: validation during training, `infer` over a split and ad hoc questions all come through here.

Legend: B media items, K clips, V visual tokens, N texts, R text rows, D width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import zip_longest

import torch
from torch import Tensor

from clipbert_cli.build import SharedTexts
from clipbert_cli.infer.text_batches import Answers, Budgets, TextBuckets, encode
from clipbert_cli.model import ClipBert
from clipbert_cli.runtime.distributed import World
from clipbert_cli.runtime.precision import Precision, choose_kernels
from clipbert_cli.task.base import Task
from clipbert_cli.types import Batch, Outputs, Prediction, Texts


def predict(
    model: ClipBert,
    batches: Iterable[Batch],
    task: Task,
    *,
    world: World,
    precision: Precision,
    shared: SharedTexts | None = None,
    text_rows: int | None = None,
    compiled: bool = False,
    progress: Callable[[int], None] = lambda done: None,
    alive: Callable[[], None] = lambda: None,
) -> Iterator[Prediction]:
    """Yield one prediction per example, in order of the examples; with `shared` one per media item.

    Every process yields those of all processes, each exactly once, whatever their number. One process yields as it
    computes; several gather at the end.
    Where a media item failed, the predictions' only field is `media_error`, the reason.

    Args:
        batches: this process's: every `world.size`-th (`OrderedBatches`).
        shared: where every text meets every media item; the batches then hold media alone.
        text_rows: most text rows that go through the transformer together, each with all its clips; default: as many
            as are fast and fit into memory.
        compiled: the transformer's layers through `torch.compile`.
        progress: called with the number of predictions after each of this process's batches.
        alive: called several times within a batch; it may raise.
    """
    own = predict_batches(
        model,
        batches,
        task,
        device=world.device,
        precision=precision,
        shared=shared,
        text_rows=text_rows,
        compiled=compiled,
        progress=progress,
        alive=alive,
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
    shared: SharedTexts | None = None,
    text_rows: int | None = None,
    compiled: bool = False,
    progress: Callable[[int], None] = lambda done: None,
    alive: Callable[[], None] = lambda: None,
) -> Iterator[Sequence[Prediction]]:
    """Yield the predictions of each batch.

    Every media item is encoded once, every text of a batch embedded once (of `shared` once and for all).
    """
    choose_kernels()
    was_training = model.training
    model.eval()
    try:
        answerer = model.answerer(precision.dtype, compiled=compiled)
        texts = None if shared is None else TextBuckets.of(model, shared.texts, device)
        budgets: Budgets | None = None
        for batch in batches:
            failures = _failures(batch, every_pair=shared is not None)
            if not batch.media_ids:
                yield failures
                progress(len(failures))
                continue
            if budgets is None:
                budgets = Budgets.of(model, device, frame_size=batch.frames.shape[-1], dtype=precision.dtype)
            moved = batch.to(device)
            with precision.autocast(device):
                visual = encode(model, moved.frames, budgets.frames)  # (B, K, V, D)
            alive()
            most = None if text_rows is None else text_rows * visual.shape[1]
            of_batch = texts or TextBuckets.of(model, Texts(batch.text_ids, batch.text_mask), device)
            answers = Answers(answerer, of_batch, budgets.tokens, most_sequences=most, after=alive)
            if shared is None:
                rows = torch.arange(len(batch.text_item))
                outputs = answers.rows(visual, row_text=rows, row_item=batch.text_item)
            else:
                moved = dataclasses.replace(moved, examples=shared.examples)
                outputs = _wanted_pairs(answers, visual, shared, batch.media_ids)
            predictions = [*failures, *task.predict(outputs, moved)]
            yield predictions
            progress(len(predictions))
    finally:
        model.train(was_training)


def _wanted_pairs(answers: Answers, visual: Tensor, shared: SharedTexts, media_ids: Sequence[str]) -> Outputs:
    """A row for every text of every item, item by item; visual tokens are (B, K, V, D)."""
    count = len(shared.examples)
    if shared.wanted is None:
        pairs = torch.arange(len(visual) * count)  # (R,)
        return answers.rows(visual, row_text=pairs % count, row_item=pairs // count)
    pairs = shared.wanted(media_ids).flatten().nonzero()[:, 0]  # (R,)
    return answers.rows(visual, row_text=pairs % count, row_item=pairs // count, place=pairs, total=len(visual) * count)


def _failures(batch: Batch, *, every_pair: bool) -> list[Prediction]:
    """The predictions of what failed: one an example, or (`every_pair`) one a media item."""
    return [
        Prediction(key, group.media_id, {"media_error": reason})
        for group, reason in batch.failed
        for key in ([group.media_id] if every_pair else [example.example_id for example in group.examples])
    ]
