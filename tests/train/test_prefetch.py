"""Batches that are copied ahead are the batches that were given."""

from __future__ import annotations

import pytest
import torch

from clipbert_cli.train.phases import NullPhases
from clipbert_cli.train.prefetch import on_device
from clipbert_cli.types import Batch, Example


def batches(count: int) -> list[Batch]:
    return [
        Batch(
            frames=torch.full((1, 1, 1, 3, 64, 64), number, dtype=torch.uint8),
            text_ids=torch.tensor([[number]]),
            text_mask=torch.tensor([[True]]),
            text_item=torch.tensor([0]),
            examples=(Example(str(number), "m", ("?",)),),
            targets={"labels": torch.tensor([number])},
        )
        for number in range(count)
    ]


def check(found: list[Batch], device: str) -> None:
    assert [batch.examples[0].example_id for batch in found] == ["0", "1", "2"]
    for number, batch in enumerate(found):
        assert {tensor.device.type for tensor in batch.tensors()} == {device}
        assert [tensor.flatten()[0].item() for tensor in batch.tensors()] == [number, number, 1, 0, number]


def test_on_the_cpu_batches_are_asked_for_one_at_a_time() -> None:
    given = iter(batches(3))
    first = next(on_device(given, torch.device("cpu"), NullPhases()))
    assert first.examples[0].example_id == "0"
    assert next(given).examples[0].example_id == "1"
    check(list(on_device(batches(3), torch.device("cpu"), NullPhases())), "cpu")


@pytest.mark.cuda
def test_on_a_gpu_batches_are_copied_ahead_and_arrive_whole() -> None:
    pinned = [batch.pin_memory() for batch in batches(3)]
    check(list(on_device(pinned, torch.device("cuda"), NullPhases())), "cuda")
    assert list(on_device([], torch.device("cuda"), NullPhases())) == []
