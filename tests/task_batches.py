"""A batch of every task, small and without media, and the task itself."""

from __future__ import annotations

from typing import Any

import torch

from clipbert_cli.recipe.schema import InferConfig, ObjectiveConfig
from clipbert_cli.task.base import Task
from clipbert_cli.task.registry import task_class
from clipbert_cli.types import Batch, Example

# Items, clips, texts per item (options, or a text and its negatives), text tokens, answers.
ITEMS, CLIPS, TEXTS, LENGTH, ANSWERS = 2, 2, 2, 6, 5


def batch_of(name: str) -> Batch:
    """A batch on the CPU as the task `name` makes it."""
    rows = ITEMS * (TEXTS if name in ("multiple_choice", "retrieval") else 1)
    targets: dict[str, dict[str, torch.Tensor]] = {
        "open_ended_qa": {"labels": torch.zeros(rows, dtype=torch.int64)},
        "image_qa": {"labels": torch.rand(rows, ANSWERS)},
        "multiple_choice": {"labels": torch.zeros(ITEMS, dtype=torch.int64)},
        "retrieval": {"labels": torch.zeros(rows, dtype=torch.int64)},
        "pretraining": {"words": torch.full((rows,), 7), "matches": torch.zeros(rows, dtype=torch.int64)},
    }
    return Batch(
        frames=torch.zeros(ITEMS, CLIPS, 2, 3, 64, 64, dtype=torch.uint8),
        text_ids=torch.ones(rows, LENGTH, dtype=torch.int64),
        text_mask=torch.ones(rows, LENGTH, dtype=torch.bool),
        text_item=torch.arange(ITEMS).repeat_interleave(rows // ITEMS),
        examples=tuple(Example(f"{item}", "", ("",) * (rows // ITEMS)) for item in range(ITEMS)),
        targets=targets[name],
        word_positions=torch.tensor([list(range(rows)), [2] * rows]) if name == "pretraining" else None,
    )


def task_of(name: str, **objective: Any) -> Task:
    """The task `name` for the model's outputs of `batch_of`."""
    return task_class(name)(ObjectiveConfig(num_labels=ANSWERS, num_negatives=1, **objective), InferConfig(), {})
