"""Batches that are copied ahead are the batches that were given."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from clipbert_cli.errors import DecodeError
from clipbert_cli.loading import prefetch
from clipbert_cli.loading.prefetch import on_device
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


def check(found: list[tuple[Batch, Batch]], device: str) -> None:
    assert [batch.examples[0].example_id for batch, _ in found] == ["0", "1", "2"]
    for number, (batch, moved) in enumerate(found):
        assert batch.examples is moved.examples
        assert {tensor.device.type for tensor in moved.tensors()} == {device}
        for each in (batch, moved):
            assert [tensor.flatten()[0].item() for tensor in each.tensors()] == [number, number, 1, 0, number]


def test_on_the_cpu_batches_are_asked_for_one_at_a_time() -> None:
    given = iter(batches(3))
    first, _ = next(on_device(given, torch.device("cpu")))
    assert first.examples[0].example_id == "0"
    assert next(given).examples[0].example_id == "1"
    check(list(on_device(batches(3), torch.device("cpu"))), "cpu")


class Log:
    """Stands in for a CUDA stream: notes what happens, in which thread, and copies nothing."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.threads: set[str] = set()

    def given(self, count: int, *, stops_at: int = -1) -> Iterator[Batch]:
        """Yield batches; number `stops_at` comes only after `release`."""
        self.release = threading.Event()
        for number, batch in enumerate(batches(count)):
            if number == stops_at:
                assert self.release.wait(timeout=60)
            self.notes.append(f"given {number} in {threading.current_thread().name}")
            yield batch

    def copy(self, batch: Batch) -> tuple[Batch, Batch, str]:
        number = str(batch.examples[0].example_id)
        self.threads.add(threading.current_thread().name)
        self.notes.append(f"copied {number}")
        return batch, batch, number

    def wait(self, moved: Batch, copied: str) -> None:
        assert moved.examples[0].example_id == copied
        assert threading.current_thread() is threading.main_thread()
        self.notes.append(f"waited {copied}")


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    made = Log()
    monkeypatch.setattr(prefetch, "CopyStream", lambda device: made)
    return made


GPU = torch.device("cuda")


def test_batches_are_copied_by_a_thread_and_waited_for_in_order(log: Log) -> None:
    check(list(on_device(log.given(3), GPU)), "cpu")
    assert [note for note in log.notes if note.startswith("waited")] == ["waited 0", "waited 1", "waited 2"]
    assert log.threads == {"lookahead_0"}
    for number in range(3):
        assert log.notes.index(f"copied {number}") < log.notes.index(f"waited {number}")


def test_the_first_batch_is_taken_by_the_thread_that_forks_loading_processes(log: Log) -> None:
    list(on_device(log.given(2), GPU))
    assert {"given 0 in MainThread", "given 1 in lookahead_0"} < set(log.notes)


@pytest.mark.parametrize("slow", [1, 2])
def test_a_batch_that_is_there_waits_for_no_later_one(slow: int, log: Log) -> None:
    copies = on_device(log.given(3, stops_at=slow), GPU)
    for number in range(slow):
        assert next(copies)[0].examples[0].example_id == str(number)
    log.release.set()
    assert len(list(copies)) == 3 - slow


def test_at_most_three_batches_are_taken_before_the_first_is_done(log: Log) -> None:
    copies = on_device(log.given(3), GPU)
    next(copies)
    for _ in range(1000):
        if "copied 2" in log.notes:
            break
        time.sleep(0.01)
    assert "copied 2" in log.notes
    assert "waited 1" not in log.notes


@pytest.mark.parametrize("count", [0, 1])
def test_few_batches_are_copied_too(count: int, log: Log) -> None:
    assert len(list(on_device(log.given(count), GPU))) == count


@pytest.mark.parametrize("after", [0, 1, 2])
def test_an_error_of_the_loader_comes_in_its_place(after: int, log: Log) -> None:
    def failing() -> Iterator[Batch]:
        yield from log.given(after)
        raise DecodeError("a bad video")

    copies = on_device(failing(), GPU)
    for _ in range(after):
        next(copies)
    with pytest.raises(DecodeError, match="a bad video"):
        next(copies)


def test_where_the_next_batch_depends_on_the_last_one_nothing_is_taken_ahead(log: Log) -> None:
    moved = iter(on_device(log.given(3), torch.device("meta"), ahead=False))
    next(moved)
    assert log.notes == ["given 0 in MainThread"]


@pytest.mark.cuda
def test_on_a_gpu_batches_are_copied_ahead_and_arrive_whole() -> None:
    for given in (batches(3), [batch.pin_memory() for batch in batches(3)]):
        found = list(on_device(given, GPU))
        check([(batch, batch) for batch, _ in found], "cpu")
        check([(moved, moved) for _, moved in found], "cuda")
    assert list(on_device([], GPU)) == []
