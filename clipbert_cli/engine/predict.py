"""The one predict path: validation during training, `infer` over a split and ad hoc questions all come through here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import zip_longest

import torch

from clipbert_cli.batch import Batch, Prediction
from clipbert_cli.engine.distributed import World
from clipbert_cli.engine.precision import Precision
from clipbert_cli.model import ClipBert
from clipbert_cli.task.base import Task


def predict(
    model: ClipBert,
    batches: Iterable[Batch],
    task: Task,
    *,
    world: World,
    precision: Precision,
    progress: Callable[[int], None] = lambda examples: None,
) -> Iterator[Prediction]:
    """Yield one prediction per example, in order of the examples.

    Every process yields those of all processes, each exactly once, whatever their number. One process yields as it
    computes; several gather at the end.

    Args:
        batches: this process's: every `world.size`-th (`OrderedBatches`).
        progress: called with the number of examples after each of this process's batches.
    """
    own = predict_batches(model, batches, task, world=world, precision=precision, progress=progress)
    if world.size == 1:
        for predictions in own:
            yield from predictions
        return
    for turn in zip_longest(*world.gather(list(own)), fillvalue=[]):
        for predictions in turn:
            yield from predictions


@torch.inference_mode()
def predict_batches(
    model: ClipBert,
    batches: Iterable[Batch],
    task: Task,
    *,
    world: World,
    precision: Precision,
    progress: Callable[[int], None],
) -> Iterator[list[Prediction]]:
    """Yield this process's predictions, batch by batch."""
    was_training = model.training
    model.eval()
    try:
        for batch in batches:
            with precision.autocast(world.device):
                outputs = model(batch.to(world.device))
            yield task.predict(outputs, batch.examples)
            progress(len(batch.examples))
    finally:
        model.train(was_training)
