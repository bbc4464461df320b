from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path

import pytest
import torch

from clipbert_cli.batch import Batch, Example
from clipbert_cli.data.annotations import group_by_media
from clipbert_cli.data.collate import Collate
from clipbert_cli.data.dataset import GroupDataset, Item, Position
from clipbert_cli.data.loader import BatchLoader
from clipbert_cli.data.mixture import Mixture
from clipbert_cli.data.order import OrderedBatches, TrainingBatches
from clipbert_cli.data.sampling import ClipSampling
from clipbert_cli.data.store import MediaFolder, open_media
from clipbert_cli.data.tokenizer import Tokenizer
from clipbert_cli.errors import DecodeError
from clipbert_cli.recipe.schema import InferConfig, ObjectiveConfig
from clipbert_cli.task.video_qa import OpenEndedQa

RANDOM = ClipSampling(strategy="random", num_clips=2, num_frames=2, fps=2)


def dataset(made_data: Path, *, seed: int = 0, black_frames: bool = False) -> GroupDataset:
    examples = [
        Example(f"{number}", media_id, ("what shape is red ?",))
        for number, media_id in enumerate(["train0000", "train0001", "train0000", "train0002"])
    ]
    source = open_media(made_data / "vis_db", kind="video")
    groups = group_by_media(examples, max_examples=2)
    return GroupDataset(groups, source, sampling=RANDOM, frame_size=64, seed=seed, black_frames=black_frames)


def frames(data: GroupDataset, position: Position) -> torch.Tensor:
    item = data[position]
    assert isinstance(item, Item)
    return item.frames


def collate_texts(made_data: Path) -> Collate:
    tokenizer = Tokenizer(made_data / "vocab.txt", max_length=20)
    task = OpenEndedQa(ObjectiveConfig(), InferConfig(), None)
    return Collate(functools.partial(task.collate, tokenizer=tokenizer, labelled=False))


def batches(made_data: Path, *, workers: int) -> list[Batch]:
    data = dataset(made_data)
    collate = collate_texts(made_data)
    order = TrainingBatches(Mixture([len(data)], 2), batch_size=2, epochs=2, seed=3)
    return list(BatchLoader(data, collate, order, workers=workers))


def test_a_group_is_decoded_once_for_its_texts(made_data: Path) -> None:
    data = dataset(made_data)
    collate = collate_texts(made_data)
    (batch,) = BatchLoader(data, collate, OrderedBatches(3, batch_size=3), workers=0)
    assert batch.frames.shape == (3, 2, 2, 3, 64, 64)
    assert batch.frames.dtype == torch.uint8
    assert batch.text_item.tolist() == [0, 0, 1, 2]
    assert [example.example_id for example in batch.examples] == ["0", "2", "1", "3"]
    assert batch.text_ids.shape[0] == 4


def test_what_is_sampled_depends_on_seed_epoch_and_index_alone(made_data: Path) -> None:
    data = dataset(made_data)
    first = frames(data, Position(0, 0))
    assert torch.equal(first, frames(dataset(made_data), Position(0, 0)))
    others = [frames(data, Position(epoch, 0)) for epoch in range(1, 6)]
    assert any(not torch.equal(first, other) for other in others)
    seeds = [frames(dataset(made_data, seed=seed), Position(0, 0)) for seed in range(1, 6)]
    assert any(not torch.equal(first, other) for other in seeds)


def test_worker_processes_make_the_same_batches(made_data: Path) -> None:
    for one, other in zip(batches(made_data, workers=0), batches(made_data, workers=2), strict=True):
        assert one.examples == other.examples
        assert torch.equal(one.frames, other.frames)
        assert torch.equal(one.text_ids, other.text_ids)


def test_each_epoch_has_every_group_once_in_an_order_of_its_own() -> None:
    positions = [each for batch in TrainingBatches(Mixture([10], 4), batch_size=4, epochs=3, seed=1) for each in batch]
    assert Counter(positions) == Counter(Position(epoch, index) for epoch in range(3) for index in range(10))
    orders = [[each.index for each in positions if each.epoch == epoch] for epoch in range(3)]
    assert orders[0] != orders[1] != orders[2]
    assert [len(batch) for batch in TrainingBatches(Mixture([10], 4), batch_size=4, epochs=1, seed=1)] == [4, 4, 2]


def test_black_frames_are_black(made_data: Path) -> None:
    assert frames(dataset(made_data), Position(0, 0)).any()
    assert not frames(dataset(made_data, black_frames=True), Position(0, 0)).any()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_video_that_cannot_be_decoded_is_named_by_the_loader(made_data: Path, tmp_path: Path, workers: int) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video at all")
    source = MediaFolder(tmp_path, kind="video", files={"bad": bad})
    groups = group_by_media([Example("0", "bad", ("?",))], max_examples=1)
    data = GroupDataset(groups, source, sampling=RANDOM, frame_size=64, seed=0)
    collate = collate_texts(made_data)
    with pytest.raises(DecodeError, match="'bad'"):
        list(BatchLoader(data, collate, OrderedBatches(1, batch_size=1), workers=workers))
