"""The one predict path: validation during training, `infer` over a split and ad hoc questions all come through here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch

from clipbert_cli.batch import Batch, Prediction
from clipbert_cli.engine.distributed import World
from clipbert_cli.engine.precision import Precision
from clipbert_cli.model import ClipBert
from clipbert_cli.task.base import Task


@torch.inference_mode()
def predict(
    model: ClipBert,
    batches: Iterable[Batch],
    task: Task,
    *,
    world: World,
    precision: Precision,
    progress: Callable[[int], None] = lambda examples: None,
) -> Iterator[Prediction]:
    """Yield one prediction per example of `batches`, in their order; of examples whose media failed, the prediction's
    only field is `media_error`, the reason.

    Args:
        progress: called with the number of examples after each batch.
    """
    was_training = model.training
    model.eval()
    try:
        for batch in batches:
            if batch.examples:
                with precision.autocast(world.device):
                    outputs = model(batch.to(world.device))
                yield from task.predict(outputs, batch.examples)
            for example, reason in batch.failed:
                yield Prediction(example.example_id, example.media_id, {"media_error": reason})
            progress(len(batch.examples) + len(batch.failed))
    finally:
        model.train(was_training)
