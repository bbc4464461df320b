"""Steps and batches by numbers alone: nothing twice, nothing missing, the same steps for any number of processes."""

from __future__ import annotations

import itertools

import pytest

from clipbert_cli.loading.dataset import Position
from clipbert_cli.loading.mixture import Mixture
from clipbert_cli.loading.order import OrderedBatches, TrainingBatches
from clipbert_cli.loading.step_layout import StepLayout, nth_part
from clipbert_cli.types import Shard


def shards(size: int) -> list[Shard]:
    return [Shard(rank, size) for rank in range(size)]


def training(count: int, step: int, batch_size: int, shard: Shard, *, epochs: int = 2, after: int = 0) -> list:
    mixture = Mixture([count], step)
    return list(TrainingBatches(mixture, batch_size=batch_size, epochs=epochs, seed=7, shard=shard, after=after))


@pytest.mark.parametrize(("length", "parts"), [(10, 3), (3, 3), (2, 3), (0, 2), (7, 1)])
def test_parts_cover_a_range_in_order_and_differ_by_at_most_one(length: int, parts: int) -> None:
    found = [nth_part(range(length), number, parts) for number in range(parts)]
    assert [place for each in found for place in each] == list(range(length))
    sizes = [len(each) for each in found]
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("groups", [1, 7, 8, 13])
@pytest.mark.parametrize(("step", "batch_size"), [(4, 4), (4, 3), (6, 1), (5, 2)])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_every_group_of_an_epoch_is_in_one_batch_of_one_process(
    groups: int, step: int, batch_size: int, size: int
) -> None:
    layout = StepLayout(groups, step, batch_size)
    for number in range(1, layout.steps_per_epoch + 1):
        batches = [batch for shard in shards(size) for batch in layout.batches(number, shard)]
        assert all(1 <= len(batch) <= batch_size for batch in batches)
        assert sorted(itertools.chain(*batches)) == list(layout.step(number))
    steps = [place for number in range(1, layout.steps_per_epoch + 1) for place in layout.step(number)]
    assert steps == list(range(groups))
    assert [layout.epoch(number) for number in (1, layout.steps_per_epoch, layout.steps_per_epoch + 1)] == [0, 0, 1]


def test_one_process_alone_reads_whole_batches() -> None:
    assert [len(batch) for batch in training(10, 4, 4, Shard(), epochs=1)] == [4, 4, 2]
    assert [len(batch) for batch in training(10, 8, 4, Shard(), epochs=1)] == [4, 4, 2]


@pytest.mark.parametrize("size", [2, 3])
def test_a_step_has_the_same_groups_for_any_number_of_processes(size: int) -> None:
    alone = training(13, 6, 6, Shard())
    together = [training(13, 6, 6, shard) for shard in shards(size)]
    for number, step in enumerate(alone):
        assert [each for own in together for each in own[number]][: len(step)] == step


def test_a_process_without_a_share_takes_part_with_a_group_that_does_not_count() -> None:
    layout = StepLayout(5, 4, 4)  # the second step has one group
    assert layout.batches(2, Shard(0, 3)) == [range(4, 5)]
    assert layout.batches(2, Shard(2, 3)) == []
    assert training(5, 4, 4, Shard(2, 3))[1] == training(5, 4, 4, Shard(0, 3))[1]


@pytest.mark.parametrize("after", [1, 2, 3, 5])
def test_going_on_after_a_step_gives_the_batches_that_were_still_to_come(after: int) -> None:
    for shard in shards(2):
        whole = training(13, 4, 1, shard)
        done = sum(max(1, len(StepLayout(13, 4, 1).batches(step, shard))) for step in range(1, after + 1))
        assert training(13, 4, 1, shard, after=after) == whole[done:]


def test_an_epoch_begun_by_two_processes_and_ended_by_three_reads_every_group_once() -> None:
    begun = [batch for shard in shards(2) for batch in training(13, 4, 4, shard, epochs=1)[:2]]
    first, *others = (training(13, 4, 4, shard, epochs=1, after=2) for shard in shards(3))
    ended = [*first, *(batch for own in others for batch in own[:-1])]  # the last step has one group: they are lent it
    seen = [position.index for batch in [*begun, *ended] for position in batch]
    assert sorted(seen) == list(range(13))


@pytest.mark.parametrize("count", [1, 7, 8, 13])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_processes_share_the_batches_that_one_would_read(count: int, size: int) -> None:
    alone = list(OrderedBatches(count, batch_size=2))
    assert [position for batch in alone for position in batch] == [Position(0, index) for index in range(count)]
    turns = itertools.zip_longest(*(list(OrderedBatches(count, batch_size=2, shard=shard)) for shard in shards(size)))
    assert [batch for turn in turns for batch in turn if batch] == alone
