"""Batches of the loader, its processes, and media that cannot be used."""

from __future__ import annotations

import functools
import gc
import os
import signal
import warnings
from collections import Counter
from pathlib import Path

import pytest
import torch
from made_media import video

from clipbert_cli.cores import available_cores
from clipbert_cli.errors import ClipbertError, DecodeError, StoreError
from clipbert_cli.loading.dataset import CollateTexts, GroupDataset, Item, MediaSettings, OnBadMedia, Position
from clipbert_cli.loading.loader import BatchLoader
from clipbert_cli.loading.mixture import MixedDataset, Mixture
from clipbert_cli.loading.order import OrderedBatches, TrainingBatches
from clipbert_cli.media.sampling import ClipSampling
from clipbert_cli.recipe.schema import InferConfig, ObjectiveConfig
from clipbert_cli.store.lmdb_store import open_media
from clipbert_cli.store.source import MediaFolder, MediaSource
from clipbert_cli.task.open_ended_qa import OpenEndedQa
from clipbert_cli.text.annotations import group_by_media
from clipbert_cli.text.tokenizer import Tokenizer
from clipbert_cli.types import Batch, Example

RANDOM = ClipSampling(strategy="random", num_clips=2, num_frames=2, fps=2)


def dataset(made_data: Path, *, seed: int = 0, black_frames: bool = False) -> GroupDataset:
    examples = [
        Example(f"{number}", media_id, ("what shape is red ?",))
        for number, media_id in enumerate(["train0000", "train0001", "train0000", "train0002"])
    ]
    source = open_media(made_data / "vis_db", kind="video")
    groups = group_by_media(examples, max_examples=2)
    return GroupDataset(groups, source, MediaSettings(RANDOM, 64, black_frames=black_frames), seed=seed)


def frames(data: GroupDataset, position: Position) -> torch.Tensor:
    item = data[position]
    assert isinstance(item, Item)
    return item.frames


def collate_texts(made_data: Path) -> CollateTexts:
    tokenizer = Tokenizer(made_data / "vocab.txt", max_length=20)
    task = OpenEndedQa(ObjectiveConfig(), InferConfig(), None)
    return functools.partial(task.collate, tokenizer=tokenizer, labelled=False)


def batches(made_data: Path, *, workers: int) -> list[Batch]:
    data = dataset(made_data)
    collate = collate_texts(made_data)
    order = TrainingBatches(Mixture([len(data)], 2), batch_size=2, epochs=2, seed=3)
    return list(BatchLoader(MixedDataset([data]), collate, order, workers=workers))


def test_a_group_is_decoded_once_for_its_texts(made_data: Path) -> None:
    data = dataset(made_data)
    collate = collate_texts(made_data)
    (batch,) = BatchLoader(MixedDataset([data]), collate, OrderedBatches(3, batch_size=3), workers=0)
    assert batch.frames.shape == (3, 2, 2, 3, 64, 64)
    assert batch.frames.dtype == torch.uint8
    assert batch.text_item.tolist() == [0, 0, 1, 2]
    assert [example.example_id for example in batch.examples] == ["0", "2", "1", "3"]
    assert batch.text_ids.shape[0] == 4


def test_sampling_depends_on_seed_epoch_and_index_alone(made_data: Path) -> None:
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


def test_more_processes_than_cores_are_no_warning_of_torch(made_data: Path) -> None:
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        assert batches(made_data, workers=available_cores() + 1)
    assert not [warning for warning in given if "worker" in str(warning.message)]


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
    data = GroupDataset(groups, source, MediaSettings(RANDOM, 64), seed=0)
    collate = collate_texts(made_data)
    with pytest.raises(DecodeError, match="'bad'"):
        list(BatchLoader(MixedDataset([data]), collate, OrderedBatches(1, batch_size=1), workers=workers))


# Media that cannot be used


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve video files; `bad3` and `bad7` hold no video."""
    folder = tmp_path_factory.mktemp("mixed")
    data = video(40)
    for number in range(12):
        name = f"bad{number}" if number in (3, 7) else f"good{number}"
        (folder / f"{name}.mp4").write_bytes(b"no video" if name.startswith("bad") else data)
    return folder


def mixed_loader(
    folder: Path,
    made_data: Path,
    policy: OnBadMedia,
    *,
    workers: int = 0,
    max_bad_fraction: float = 1.0,
    epochs: int = 1,
) -> BatchLoader:
    source = open_media(folder, kind="video")
    groups = group_by_media([Example(f"q{name}", name, ("?",)) for name in source], max_examples=1)
    data = GroupDataset(groups, source, MediaSettings(RANDOM, 64), seed=5, on_bad_media=policy)
    collate = collate_texts(made_data)
    order = TrainingBatches(Mixture([len(data)], 4), batch_size=4, epochs=epochs, seed=3)
    return BatchLoader(MixedDataset([data]), collate, order, workers=workers, max_bad_fraction=max_bad_fraction)


def media_of(batches: list[Batch]) -> list[list[str]]:
    return [[example.media_id for example in batch.examples] for batch in batches]


def test_bad_media_are_replaced_by_others_always_the_same(
    mixed: Path, made_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loader = mixed_loader(mixed, made_data, "replace", epochs=2)
    batches = list(loader)
    assert [len(batch.examples) for batch in batches] == [4] * 6
    assert not any(media.startswith("bad") for batch in media_of(batches) for media in batch)
    assert loader.bad.keys() == {"bad3", "bad7"}
    assert sum("replaced by another" in record.message for record in caplog.records) == 2  # each once, in two epochs
    again = list(mixed_loader(mixed, made_data, "replace", epochs=2, workers=2))
    assert media_of(again) == media_of(batches)
    assert all(torch.equal(one.frames, other.frames) for one, other in zip(batches, again, strict=True))
    # Whatever is not replaced is what it would be without bad media around.
    whole = [
        position for batch in TrainingBatches(Mixture([12], 4), batch_size=4, epochs=2, seed=3) for position in batch
    ]
    names = list(open_media(mixed, kind="video"))
    flat = [media for batch in media_of(batches) for media in batch]
    assert all(
        got == names[at.index] for got, at in zip(flat, whole, strict=True) if names[at.index].startswith("good")
    )


def test_bad_media_are_left_out(mixed: Path, made_data: Path) -> None:
    loader = mixed_loader(mixed, made_data, "skip")
    batches = list(loader)
    assert sum(len(batch.examples) for batch in batches) == 10
    assert all(len(batch.frames) == len(batch.examples) for batch in batches)
    assert loader.bad.keys() == {"bad3", "bad7"}


@pytest.mark.parametrize("policy", ["skip", "replace"])
def test_training_stops_when_too_many_media_are_bad(mixed: Path, made_data: Path, policy: OnBadMedia) -> None:
    list(mixed_loader(mixed, made_data, policy, max_bad_fraction=2 / 12))
    with pytest.raises(DecodeError, match="max_bad_fraction") as caught:
        list(mixed_loader(mixed, made_data, policy, max_bad_fraction=0.1))
    assert "clipbert store verify" in (caught.value.hint or "")


def test_evaluation_reports_every_bad_example_and_loses_none(mixed: Path, made_data: Path) -> None:
    batches = list(mixed_loader(mixed, made_data, "report", workers=1))
    failed = {
        example.example_id: reason for batch in batches for group, reason in batch.failed for example in group.examples
    }
    assert failed.keys() == {"qbad3", "qbad7"}
    assert all("'bad" in reason for reason in failed.values())
    answered = {example.example_id for batch in batches for example in batch.examples}
    assert len(answered) == 10
    assert not answered & failed.keys()


def test_a_batch_of_bad_media_alone_is_empty_in_evaluation_and_an_error_in_training(
    tmp_path: Path, made_data: Path
) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    (batch,) = mixed_loader(tmp_path, made_data, "report")
    assert (batch.examples, batch.frames.shape) == ((), (0,))
    assert [group.media_id for group, _ in batch.failed] == ["bad"]
    for policy in ("skip", "replace", "error"):
        with pytest.raises(DecodeError, match="'bad'"):
            list(mixed_loader(tmp_path, made_data, policy))


def test_a_broken_store_is_never_bad_media(mixed: Path, made_data: Path, tmp_path: Path) -> None:
    for policy in ("skip", "replace", "report"):
        loader = mixed_loader(mixed, made_data, policy)
        loader.dataset.parts[0].source._files["good1"] = tmp_path / "gone.mp4"
        with pytest.raises(StoreError, match="gone"):
            list(loader)


def test_extreme_and_oversized_media_are_bad_media(tmp_path: Path) -> None:
    (tmp_path / "long.mp4").write_bytes(video(3, height=16, width=96))
    (tmp_path / "large.mp4").write_bytes(video(3))
    source = open_media(tmp_path, kind="video")
    groups = group_by_media([Example(name, name, ("?",)) for name in source], max_examples=1)
    data = GroupDataset(groups, source, MediaSettings(RANDOM, 64, max_pixels=96 * 64 - 1), seed=0)
    reasons = {data.groups[index].media_id: str(data[Position(0, index)].error) for index in range(2)}
    assert "5 times" in reasons["long"]
    assert "96 x 64: more than 6143 pixels" in reasons["large"]


def test_a_killed_loading_process_is_reported(mixed: Path, made_data: Path) -> None:
    loader = mixed_loader(mixed, made_data, "skip", workers=1)
    loader.dataset.parts[0].source = Killing(loader.dataset.parts[0].source)
    with pytest.raises(ClipbertError, match="a loading process was ended by SIGKILL"):
        list(loader)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_a_loading_process_that_is_just_starting_does_not_end_it(
    made_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """A launcher's signal goes to whole process groups, at any moment."""
    data, set_num_threads = dataset(made_data), torch.set_num_threads

    def signalled(threads: int) -> None:
        """What a loading process calls before anything of ours runs in it."""
        (tmp_path / "started").touch()
        os.kill(os.getpid(), number)
        set_num_threads(threads)

    monkeypatch.setattr(torch, "set_num_threads", signalled)
    loader = BatchLoader(MixedDataset([data]), collate_texts(made_data), OrderedBatches(3, batch_size=3), workers=1)
    assert len(list(loader)) == 1
    assert (tmp_path / "started").exists()
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())


class Cycle:
    """Garbage that only the collector finds; `__del__` leaves a file if another process finds it."""

    def __init__(self, marker: Path) -> None:
        self.marker, self.process, self.itself = marker, os.getpid(), self

    def __del__(self) -> None:
        if os.getpid() != self.process:
            self.marker.touch()


class CollectingDataset(GroupDataset):
    def __getitem__(self, position: Position) -> Item:
        gc.collect()
        return super().__getitem__(position)


def test_loading_processes_do_not_collect_garbage_of_the_main_process(made_data: Path, tmp_path: Path) -> None:
    """A DALI pipeline that is shut down in a forked process waits forever."""
    data = dataset(made_data)
    collecting = CollectingDataset(data.groups, data.source, data.settings, seed=0)
    gc.collect()
    gc.disable()
    try:
        Cycle(tmp_path / "collected")
        list(
            BatchLoader(
                MixedDataset([collecting]), collate_texts(made_data), OrderedBatches(3, batch_size=3), workers=1
            )
        )
    finally:
        gc.enable()
    assert not (tmp_path / "collected").exists()


class Killing:
    """A source that kills the process which reads it."""

    kind = "video"
    absent: frozenset[str] = frozenset()

    def __init__(self, source: MediaSource) -> None:
        self.path = source.path

    def info(self, media_id: str) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def test_memory_stays_flat_over_epochs(made_data: Path) -> None:
    data = dataset(made_data)
    positions = [Position(epoch, index) for epoch in range(150) for index in range(3)]
    for position in positions[:150]:
        data[position]
    before = resident()
    for position in positions:
        data[position]
    assert resident() - before < 8e6  # one leaked canvas a position would be 22 MB, one leaked frame 6 MB


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
