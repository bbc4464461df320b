"""Segments of videos: their clips are those of the part cut out, from every source, and they are items of their own."""

from __future__ import annotations

import dataclasses
import json
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from made_media import read_index, video
from running import TINY, Clipbert, as_options

from clipbert_cli.build import build_task
from clipbert_cli.errors import AnnotationError, DecodeError
from clipbert_cli.loading.dataset import MediaSettings, load_clips
from clipbert_cli.media.sampling import ClipSampling, segment_info, select
from clipbert_cli.recipe.load import load_recipe
from clipbert_cli.splits import read_split
from clipbert_cli.store.lmdb_store import open_media
from clipbert_cli.store.packing import pack_media
from clipbert_cli.text.fields import Record, RecordError
from clipbert_cli.train.training import Training
from clipbert_cli.types import FixedSampling, Segment, VideoInfo

RATE = 8


def constant(frames: int, *, first: int = 0, duration: bool = True) -> VideoInfo:
    """A video of 8 frames per second whose times are in units of 1/800 second."""
    pts = tuple(first + 100 * number for number in range(frames))
    length = 100 * frames if duration else None
    return VideoInfo(96, 64, frames if duration else 0, length, Fraction(RATE), Fraction(1, 800), pts)


@pytest.mark.parametrize("strategy", get_args(FixedSampling))
@pytest.mark.parametrize("times", ["presentation", "header"])
@pytest.mark.parametrize("duration", [True, False])
@pytest.mark.parametrize(("start", "end"), [(0, 2), (1.5, 4), (2, None), (3.25, 3.5), (0, 99)])
def test_clips_are_those_of_the_part_cut_out(
    strategy: FixedSampling, times: Any, duration: bool, start: float, end: float | None
) -> None:
    whole = constant(48, first=1000, duration=duration)
    first, after = round(start * RATE), min(48, round((end or 6) * RATE))
    sampling = ClipSampling(strategy, 3 if strategy == "clips" else 1, 2, 2.0, times=times)
    expected = select(constant(after - first, duration=duration), sampling)
    found = select(dataclasses.replace(whole, segment=Segment(start, end)), sampling)
    assert found == tuple(tuple(first + frame for frame in clip) for clip in expected)


def test_random_clips_stay_inside() -> None:
    info = dataclasses.replace(constant(80), segment=Segment(2.5, 6))
    clips = select(info, ClipSampling("random", 500, 3, 2.0), np.random.default_rng(1))
    frames = {frame for clip in clips for frame in clip}
    assert 20 <= min(frames) <= 21
    assert 44 < max(frames) <= 47


def test_a_frame_that_stands_still_belongs_to_every_segment_that_shows_it() -> None:
    # It is shown from second 1 to second 9, the next ones eight per second.
    pts = (0, 100, 200, 300, 400, 500, 600, 700, 800, *range(7200, 8000, 100))
    info = dataclasses.replace(constant(48), pts=pts, num_frames=len(pts), duration=8000)
    assert segment_info(info, Segment(4, 6))[0] == 8
    assert select(dataclasses.replace(info, segment=Segment(4, 6)), ClipSampling("uniform", 1, 2)) == ((8, 8),)
    first, part = segment_info(info, Segment(8, 9.5))
    assert (first, part.pts) == (8, (0, 800, 900, 1000, 1100))


@pytest.mark.parametrize("start", [6, 6.5, 100])
def test_a_segment_behind_the_end_is_refused(start: float) -> None:
    with pytest.raises(DecodeError, match=rf"the segment begins at {start} s, but the video lasts 6\.00 s"):
        segment_info(constant(48), Segment(start))


def test_damage_behind_a_segment_does_not_matter() -> None:
    torn = dataclasses.replace(constant(48), pts=constant(48).pts[:30], complete=False, damage="it is cut off")
    for sampling in (
        ClipSampling("clips", 2, 2, 2.0),
        ClipSampling("clips", 2, 2, 2.0, times="header", safeguard=True),
    ):
        before = select(dataclasses.replace(torn, segment=Segment(1, 3)), sampling)
        assert before == select(dataclasses.replace(constant(48), segment=Segment(1, 3)), sampling)
        with pytest.raises(DecodeError, match="it is cut off"):
            select(dataclasses.replace(torn, segment=Segment(2, 6)), sampling)
    with pytest.raises(DecodeError, match="the segment lies behind it"):
        select(dataclasses.replace(torn, segment=Segment(5, 6)), sampling)


@pytest.mark.parametrize(
    ("segment", "name"),
    [
        (Segment(2.5, 7), "v#t=2.5,7"),
        (Segment(0, 0.125), "v#t=0,0.125"),
        (Segment(12), "v#t=12"),
        (Segment(1 / 3), "v#t=0.333333"),
    ],
)
def test_a_media_id_names_a_segment_as_a_media_fragment_does(segment: Segment, name: str) -> None:
    assert segment.of("v") == name
    assert Segment.split(name) == ("v", Segment(round(segment.start, 6), segment.end))


@pytest.mark.parametrize("media_id", ["v", "v#t=", "v#t=x", "#t=1", "v#t=1,2,3", "v#time=1"])
def test_other_media_ids_name_whole_items(media_id: str) -> None:
    assert Segment.split(media_id) == (media_id, None)


# ------------------------------------------------------------------------------------------ from media


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(video(40, rate=RATE))
    (folder / "b#t=1,2.mp4").write_bytes(video(40, rate=RATE))
    return folder


@pytest.mark.parametrize("is_packed", [True, False])
def test_a_store_and_a_folder_give_the_frames_of_a_segment(folder: Path, tmp_path: Path, is_packed: bool) -> None:
    source = open_media(pack_media([folder], tmp_path / "store").store if is_packed else folder, kind="video")
    settings = MediaSettings(ClipSampling("uniform", 1, 3), 96)
    assert source.missing(["a", "a#t=1,2", "b#t=1,2", "b#t=9", "c#t=1"]) == ["b#t=9", "c#t=1"]
    for media_id, expected in {"a": [0, 19, 39], "a#t=1,2": [8, 11, 15], "b#t=1,2": [0, 19, 39]}.items():
        clips = load_clips(source, media_id, settings, None)
        assert isinstance(clips, torch.Tensor)
        assert [read_index(frame.permute(1, 2, 0).numpy()) for frame in clips[0]] == expected


@pytest.mark.parametrize(
    ("fields", "media_id"),
    [
        ({"start": 2, "end": 4.5}, "v#t=2,4.5"),
        ({"start": "0:02", "end": "1:00:04.50"}, "v#t=2,3604.5"),
        ({"start": "2,25", "end": "4"}, "v#t=2.25,4"),
        ({"end": 3}, "v#t=0,3"),
        ({"start": 3, "end": None}, "v#t=3"),
        ({"start": None}, "v"),
    ],
)
def test_start_and_end_are_seconds_or_times(fields: dict[str, Any], media_id: str) -> None:
    assert Record("a:1", {"video_id": "v", **fields}).item() == media_id


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"start": 5, "end": 3}, "end is 3: it must be more than start, 5"),
        ({"start": "1:02:03:04"}, 'start is "1:02:03:04": it must be seconds'),
        ({"start": -1}, "start is -1: it must be seconds"),
        ({"end": True}, "end is true: it must be seconds"),
        ({"end": float("nan")}, "end is NaN: it must be seconds"),
        ({"end": 0}, "end is 0: it must be more than start, 0"),
    ],
)
def test_wrong_times_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RecordError, match=message):
        Record("a:1", {"video_id": "v", **fields}).item()


def test_times_that_are_not_meant_can_be_left_unread() -> None:
    record = Record("a:1", {"video_id": "v", "start": 5, "end": 3}, names={"start": None, "end": None})
    assert record.item() == "v"


# ------------------------------------------------------------------------------------------ in a run


def settings(folder: Path, records: list[dict[str, Any]]) -> list[str]:
    (folder / "segments.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    splits = [f"data.splits.{split}.annotations={folder}/segments.jsonl" for split in ("train", "val", "test")]
    return [*TINY, *splits, "train.max_steps=1", "train.batch_size=2", "objective.num_negatives=1"]


def test_segments_of_one_video_are_found_one_by_one(made_data: Path, tmp_path: Path, clipbert: Clipbert) -> None:
    times = [(0, 0.5), (0.5, 1), (1, None)]
    records = [
        {"media_id": video, "caption": f"part {part}", "start": start, "end": end}
        for video in ("test0000", "test0001")
        for part, (start, end) in enumerate(times)
    ]
    options = as_options(settings(tmp_path, records))
    common = ["--data-root", made_data, *options]
    assert clipbert("finetune", "--recipe", "demo_retrieval", "--run", tmp_path / "run", *common).returncode == 0
    found = clipbert("infer", "--run", tmp_path / "run", "--split", "test", "-o", tmp_path / "p.jsonl")
    assert found.returncode == 0, found.stderr
    # The first line lists the texts.
    _, *lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert [line["media_id"] for line in lines] == [
        f"{video}#t={time}" for video in ("test0000", "test0001") for time in ("0,0.5", "0.5,1", "1")
    ]
    assert all(len(line["scores"]) == 6 for line in lines)
    scored = clipbert("eval", tmp_path / "p.jsonl", "--recipe", "demo_retrieval", "--split", "test", *common)
    assert scored.returncode == 0, scored.stderr


def test_segments_behind_the_end_stop_before_training(made_data: Path, tmp_path: Path) -> None:
    records = [
        {"media_id": f"train000{number}", "caption": "a cat", "start": start}
        for number, start in enumerate((0, 100, 0.5, 50))
    ]
    recipe = load_recipe("demo_retrieval", overrides=settings(tmp_path, records), data_root=made_data)
    with pytest.raises(AnnotationError, match="2 segments of split 'train' begin after the end") as refused:
        Training(recipe, tmp_path / "run")
    assert "train0001#t=100: the segment begins at 100 s, but the video lasts" in str(refused.value)
    assert "train0003#t=50" in str(refused.value)
    assert "data.fields: {start: null, end: null}" in (refused.value.hint or "")


def test_pictures_have_no_segments(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"media_id": "v", "caption": "a cat", "start": 1}\n')
    overrides = ["data.media=image", f"data.splits.train.annotations={tmp_path}/a.jsonl"]
    recipe = load_recipe("demo_retrieval", overrides=overrides, data_root=tmp_path)
    with pytest.raises(AnnotationError, match=r"start and end are .*, but data\.media is image"):
        read_split(recipe, "train", build_task(recipe))
