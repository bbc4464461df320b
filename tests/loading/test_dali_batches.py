"""Batches decoded by DALI equal those of PyAV, damaged media included. Skipped without DALI."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from dali_cases import LEFT_TO_PYAV, ON_A_CPU, ON_A_GPU, ON_CPU, ON_GPU, VP9, assert_close_pixels, made
from made_media import image, marked_frame, read_index, video

from clipbert_cli.errors import ClipbertError, DecodeError
from clipbert_cli.loading.dataset import GroupDataset, MediaSettings, OnBadMedia, Position
from clipbert_cli.loading.loader import BatchLoader
from clipbert_cli.loading.mixture import MixedDataset
from clipbert_cli.loading.order import OrderedBatches
from clipbert_cli.media.backend import Decoder
from clipbert_cli.media.dali.clips import EncodedClips
from clipbert_cli.media.dali.mp4 import write_mp4
from clipbert_cli.media.dali.pipeline import DaliDecoder
from clipbert_cli.media.sampling import ClipSampling
from clipbert_cli.store.lmdb_store import open_media
from clipbert_cli.store.packing import pack_media
from clipbert_cli.text.annotations import group_by_media
from clipbert_cli.types import Batch, Example, Kind, Texts

FREE = dataclasses.replace(ON_CPU, is_required=False)


def no_texts(examples: Sequence[Example]) -> Texts:
    return Texts(torch.zeros((len(examples), 1), dtype=torch.long), torch.ones((len(examples), 1), dtype=torch.bool))


def batches(
    store: Path,
    kind: Kind,
    decoder: Decoder,
    *,
    on_bad_media: OnBadMedia = "error",
    pyav_only: bool = False,
    workers: int = 0,
) -> list[Batch]:
    source = open_media(store, kind=kind)
    groups = group_by_media([Example(name, name, ("?",)) for name in source], max_examples=1)
    sampling = ClipSampling("random" if kind == "video" else "start", 3 if kind == "video" else 1, 2, 2.0)
    settings = MediaSettings(sampling, 96, decoder=decoder, pyav_only=pyav_only)
    data = GroupDataset(groups, source, settings, seed=7, on_bad_media=on_bad_media)
    order = OrderedBatches(len(groups), batch_size=4)
    return list(BatchLoader(MixedDataset([data]), no_texts, order, workers=workers))


def pack_videos(folder: Path, **size: int) -> Path:
    """Six videos: VP9, which DALI decodes on CPU, and H.264 in MP4 and AVI, which it does not."""
    for number in range(4):
        (folder / f"a{number}.webm").write_bytes(video(40 + number, **VP9, **size))
    (folder / "b.mp4").write_bytes(video(40, **size))
    (folder / "c.avi").write_bytes(video(40, container="avi", **size))
    pack_media([folder], folder / "store")
    return folder / "store"


@pytest.fixture(scope="module")
def some_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_videos(tmp_path_factory.mktemp("videos"))


@pytest.mark.dali
@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_those_of_pyav(some_videos: Path, workers: int) -> None:
    by_dali = batches(some_videos, "video", ON_CPU, workers=workers)
    by_pyav = batches(some_videos, "video", ON_CPU, pyav_only=True)
    assert [batch.media_ids for batch in by_dali] == [("a0", "a1", "a2", "a3"), ("b", "c")]
    for one, other in zip(by_dali, by_pyav, strict=True):
        assert one.frames.shape == (len(one.media_ids), 3, 2, 3, 96, 96)
        assert torch.equal(one.frames, other.frames)  # 96 wide: nothing is resized
        assert one.examples == other.examples


@pytest.mark.dali
@pytest.mark.parametrize(("policy", "left"), [("replace", 6), ("skip", 5), ("report", 5)])
def test_media_that_neither_decodes_follow_on_bad_media(
    some_videos: Path, tmp_path: Path, policy: OnBadMedia, left: int, caplog: pytest.LogCaptureFixture
) -> None:
    store = shutil.copytree(some_videos, tmp_path / "store")
    data = (store / "data.mdb").read_bytes()
    whole = open_media(some_videos, kind="video").read("a1")
    place = data.find(whole[:400])
    assert place > 0
    changed = data[:place] + bytes(len(whole)) + data[place + len(whole) :]
    (store / "data.mdb").write_bytes(changed)
    options = {"on_bad_media": policy}
    by_dali = batches(store, "video", ON_CPU, **options)
    by_pyav = batches(store, "video", ON_CPU, pyav_only=True, **options)
    assert sum(len(batch.media_ids) for batch in by_dali) == left
    for one, other in zip(by_dali, by_pyav, strict=True):
        assert one.media_ids == other.media_ids
        assert torch.equal(one.frames, other.frames)
        assert [group.media_id for group, _ in one.failed] == (["a1"] if one.failed else [])
    assert "not those that were packed" in caplog.text


def break_one_segment(monkeypatch: pytest.MonkeyPatch, broken: Callable[[bytes], bytes]) -> None:
    """Change the file of the second segment that is made."""
    written = itertools.count(1)

    def write(*arguments: Any, **options: Any) -> bytes:
        file = write_mp4(*arguments, **options)
        return broken(file) if next(written) == 2 else file

    monkeypatch.setattr("clipbert_cli.media.dali.clips.write_mp4", write)


@pytest.mark.dali
def test_pyav_decodes_what_dali_fails_to_decode(
    some_videos: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    break_one_segment(monkeypatch, lambda file: file[: len(file) - 40] + bytes(40))
    by_dali = batches(some_videos, "video", ON_CPU)
    by_pyav = batches(some_videos, "video", ON_CPU, pyav_only=True)
    for one, other in zip(by_dali, by_pyav, strict=True):
        assert one.media_ids == other.media_ids
        assert torch.equal(one.frames, other.frames)
    assert caplog.text.count("PyAV decodes it instead") == 1


@pytest.mark.dali
def test_a_dali_that_decodes_nothing_stops_the_run(some_videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipbert_cli.media.dali.clips.write_mp4", lambda *_, **__: b"no file at all")
    monkeypatch.setattr("clipbert_cli.loading.dali_batches._MAX_FAILED_AT_FIRST", 3)
    with pytest.raises(ClipbertError, match="decoded none of the first 3 media") as caught:
        batches(some_videos, "video", ON_CPU)
    assert "data.decoder=pyav" in str(caught.value.hint)


@pytest.mark.dali
def test_a_dali_that_decodes_nothing_leaves_all_to_pyav_if_the_choice_is_free(
    some_videos: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    by_pyav = batches(some_videos, "video", ON_CPU, pyav_only=True)
    monkeypatch.setattr("clipbert_cli.media.dali.clips.write_mp4", lambda *_, **__: b"no file at all")
    monkeypatch.setattr("clipbert_cli.loading.dali_batches._MAX_FAILED_AT_FIRST", 2)
    by_dali = batches(some_videos, "video", FREE)
    assert all(torch.equal(one.frames, other.frames) for one, other in zip(by_dali, by_pyav, strict=True))
    assert "DALI has decoded none of the first 2 media items" in caplog.text
    assert "set data.decoder=pyav" in caplog.text


@pytest.mark.dali
def test_a_dali_that_cannot_start_leaves_all_to_pyav_if_the_choice_is_free(
    some_videos: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    by_pyav = batches(some_videos, "video", ON_CPU, pyav_only=True)

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("no such device")

    monkeypatch.setattr("clipbert_cli.loading.dali_batches.DaliDecoder", fails)
    by_dali = batches(some_videos, "video", FREE)
    assert all(torch.equal(one.frames, other.frames) for one, other in zip(by_dali, by_pyav, strict=True))
    assert "DALI cannot be started: no such device" in caplog.text
    with pytest.raises(ClipbertError, match="DALI cannot be started"):
        batches(some_videos, "video", ON_CPU)


@pytest.mark.dali
@pytest.mark.parametrize("wrong", ["grey", "other colours"])
def test_frames_that_differ_from_pyavs_move_their_codec_and_size_to_pyav(
    some_videos: Path, wrong: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    decode, calls = DaliDecoder.decode, []

    def decodes_wrongly(self: DaliDecoder, items: Any) -> torch.Tensor:
        calls.append(len(items))
        frames = decode(self, items)
        return torch.full_like(frames, 127) if wrong == "grey" else frames.flip(-3)

    monkeypatch.setattr(DaliDecoder, "decode", decodes_wrongly)
    by_dali = batches(some_videos, "video", ON_CPU)
    by_pyav = batches(some_videos, "video", ON_CPU, pyav_only=True)
    assert all(torch.equal(one.frames, other.frames) for one, other in zip(by_dali, by_pyav, strict=True))
    assert caplog.text.count("PyAV decodes all vp9 of 96 x 64 pixels") == 1
    assert calls == [4]


@pytest.mark.dali
def test_media_that_failed_once_are_not_given_to_dali_again(
    some_videos: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[int] = []
    decode = DaliDecoder.decode

    def fails_for_one(self: DaliDecoder, items: Any) -> torch.Tensor:
        seen.append(len(items))
        if any(item.segments[0].data == refused for item in items):
            raise DecodeError("a bad item")
        return decode(self, items)

    source = open_media(some_videos, kind="video")
    groups = group_by_media([Example(name, name, ("?",)) for name in source if name < "b"], max_examples=1)
    settings = MediaSettings(ClipSampling("end", 1, 2, 2.0), 96, decoder=ON_CPU)
    data = GroupDataset(groups, source, settings, seed=7, on_bad_media="error")
    refused = data[Position(0, 0)].frames.segments[0].data
    monkeypatch.setattr(DaliDecoder, "decode", fails_for_one)
    loader = BatchLoader(MixedDataset([data]), no_texts, OrderedBatches(len(groups), batch_size=4), workers=0)
    for _ in range(3):
        assert [batch.media_ids for batch in loader] == [("a0", "a1", "a2", "a3")]
    assert seen == [4, 1, 1, 1, 1, 3, 3]
    assert caplog.text.count("a0: a bad item; PyAV decodes it instead") == 1


@pytest.mark.dali
def test_a_batch_that_memory_does_not_hold_is_decoded_in_parts(
    some_videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_pyav = batches(some_videos, "video", ON_CPU, pyav_only=True)
    decode, sizes = DaliDecoder._decode_part, []

    def lacks_memory(self: DaliDecoder, work: Any, canvas: torch.Tensor) -> None:
        sizes.append(len(work))
        if len(work) > 2:
            raise RuntimeError("Error in thread 0: CUDA runtime API error cudaErrorMemoryAllocation (2): out of memory")
        decode(self, work, canvas)

    monkeypatch.setattr(DaliDecoder, "_decode_part", lacks_memory)
    by_dali = batches(some_videos, "video", ON_CPU)
    assert all(torch.equal(one.frames, other.frames) for one, other in zip(by_dali, by_pyav, strict=True))
    assert max(sizes) > 2
    monkeypatch.setattr(DaliDecoder, "_decode_part", fails_always)
    with pytest.raises(RuntimeError, match="out of memory"):
        batches(some_videos, "video", ON_CPU)


def fails_always(*_: object) -> None:
    raise RuntimeError("CUDA runtime API error cudaErrorMemoryAllocation (2): out of memory")


@pytest.mark.dali
def test_dali_decodes_jpeg_images(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(image(marked_frame(number), "jpeg"))
    (folder / "3.png").write_bytes(image(marked_frame(3), "png"))
    pack_media([folder], tmp_path / "store", kind="image")
    (by_dali,) = batches(tmp_path / "store", "image", ON_CPU)
    (by_pyav,) = batches(tmp_path / "store", "image", ON_CPU, pyav_only=True)
    assert torch.equal(by_dali.frames, by_pyav.frames)
    assert [read_index(frame[0, 0].permute(1, 2, 0).numpy()) for frame in by_dali.frames] == [0, 1, 2, 3]


@pytest.fixture(scope="module")
def all_kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One video of each kind, whether a GPU takes it or not."""
    folder = tmp_path_factory.mktemp("kinds")
    for name in (*ON_A_GPU, *LEFT_TO_PYAV):
        (folder / f"{name}.mkv").write_bytes(made(name))
    pack_media([folder], folder / "store", workers=0)
    return folder / "store"


@pytest.mark.parametrize(
    "decoder",
    [
        pytest.param(ON_CPU, marks=pytest.mark.dali, id="cpu"),
        pytest.param(ON_GPU, marks=[pytest.mark.cuda, pytest.mark.dali], id="cuda"),
    ],
)
@pytest.mark.parametrize("damaged", [False, True])
def test_every_kind_of_video_is_close_to_pyavs(
    damaged: bool, decoder: Decoder, all_kinds: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """PyAV decodes what this device does not, in the same colours, and what is damaged."""
    if damaged:
        break_one_segment(monkeypatch, lambda file: b"no file at all")
    by_dali, by_pyav = (batches(all_kinds, "video", decoder, pyav_only=only) for only in (False, True))
    for one, other in zip(by_dali, by_pyav, strict=True):
        assert one.frames.device.type == decoder.device_type
        assert one.media_ids == other.media_ids
        for found, wanted in zip(one.frames.cpu(), other.frames, strict=True):
            assert_close_pixels(found, wanted)
    assert caplog.text.count("PyAV decodes") == damaged  # A wrong decoder does not hide behind PyAV.


@pytest.mark.parametrize(("decoder", "taken"), [(ON_CPU, ON_A_CPU), (ON_GPU, ON_A_GPU)], ids=["cpu", "cuda"])
def test_dali_gets_the_kinds_that_it_decodes(decoder: Decoder, taken: Sequence[str], all_kinds: Path) -> None:
    source = open_media(all_kinds, kind="video")
    groups = group_by_media([Example(name, name, ("?",)) for name in source], max_examples=1)
    data = GroupDataset(groups, source, MediaSettings(ClipSampling("random", 3, 2, 2.0), 96, decoder=decoder), seed=7)
    items = [data[Position(0, number)] for number in range(len(groups))]
    encoded = {item.group.media_id for item in items if isinstance(item.frames, EncodedClips)}
    assert encoded == {*taken} | ({"vp8 odd"} if decoder is ON_CPU else set())
