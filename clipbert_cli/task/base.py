"""What a task is. One file, one line of the registry in `runs.py` and one recipe add a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch

from clipbert_cli.batch import Batch, Example, Outputs, Prediction
from clipbert_cli.data.annotations import Record
from clipbert_cli.model.heads import HeadSpec


class Task(Protocol):
    """Owns a record's meaning, the head, the loss, the prediction and the score. No other room asks which task it is.

    `main_metric` names the score, a key of what `score` returns, that decides the best checkpoint; larger is better.
    """

    main_metric: str

    def head(self) -> HeadSpec:
        """The head that the model needs."""
        ...

    def parse(self, record: Record) -> Example:
        """Make an example of a record of any split; raises RecordError naming field, value and requirement."""
        ...

    def parse_training(self, record: Record) -> Example:
        """The same, for a record that training learns from: its target must be there and usable."""
        ...

    def collate_targets(self, examples: Sequence[Example]) -> Mapping[str, torch.Tensor]:
        """What `loss` needs of a batch's examples, tensors by name."""
        ...

    def loss(self, outputs: Outputs, batch: Batch) -> Mapping[str, torch.Tensor]:
        """Scalars by name; `loss` is the one that is back-propagated, a mean over the batch's examples."""
        ...

    def predict(self, outputs: Outputs, examples: Sequence[Example]) -> list[Prediction]:
        """One prediction per example, in their order."""
        ...

    @staticmethod
    def score(fields: Mapping[str, Mapping[str, Any]], examples: Sequence[Example]) -> dict[str, Any]:
        """Metrics of predictions against ground truth; loads no model.

        Args:
            fields: example id -> that prediction's fields, for every one of `examples`.
            examples: the ground truth.

        Raises:
            PredictionsError: a prediction lacks what the score needs.
        """
        ...
