"""How many media of a store a GPU takes, why not the others, and what `auto` makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from dali_cases import VP9
from made_media import image, marked_frame, video
from running import Clipbert

from clipbert_cli.build import Setup
from clipbert_cli.media import backend
from clipbert_cli.media.backend import Decoder
from clipbert_cli.media.dali.nvdec import USUAL_LIMITS
from clipbert_cli.recipe.load import load_recipe
from clipbert_cli.runtime.distributed import World
from clipbert_cli.store import gpu_share
from clipbert_cli.store.gpu_share import GpuShare, share_of, suited
from clipbert_cli.store.lmdb_store import open_media, open_store
from clipbert_cli.store.packing import pack_media

FULL_RANGE = {"codec": "libx264", "pix_fmt": "yuvj420p"}


def test_the_share_and_the_reasons_are_those_of_each_file(clipbert: Clipbert, tmp_path: Path) -> None:
    files = {
        "padded.mp4": video(6, height=136, width=192),
        "whole.mp4": video(6),
        "vp9.webm": video(6, height=144, width=144, **VP9),
        "odd_vp9.webm": video(6, height=152, width=192, **VP9),
        "broadcast.ts": video(6, container="mpegts"),
        "full.mp4": video(6, **FULL_RANGE),
        "motion.avi": video(6, container="avi", codec="mpeg4"),
        "wide.mp4": video(6, pix_fmt="yuv444p"),
    }
    for name, data in files.items():
        (tmp_path / "videos").mkdir(exist_ok=True)
        (tmp_path / "videos" / name).write_bytes(data)
    packed = clipbert("pack", tmp_path / "videos", tmp_path / "store", "--workers", 0, "--json")
    found = json.loads(packed.stdout)["on_gpu"]
    assert (found["seen"], found["taken"]) == (8, 3)
    assert len(found["reasons"]) == 5
    for reason in ("not multiples of 16", "no packet table", "full range", "mpeg4", "profile 244"):
        assert any(reason in each for each in found["reasons"]), reason
    rows = json.loads(clipbert("store", "ls", tmp_path / "store", "--json").stdout)
    assert {row["id"] for row in rows if not row["not_on_gpu"]} == {"padded", "whole", "vp9"}


def test_of_pictures_a_gpu_takes_jpeg_files(clipbert: Clipbert, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for form in ("jpeg", "png", "webp", "bmp"):
        (tmp_path / f"pictures/{form}.{form}").write_bytes(image(marked_frame(1), form))
    done = clipbert("pack", tmp_path / "pictures", tmp_path / "store", "--workers", 0)
    assert "a usual GPU decodes 1 of 4 images; not 1: it is BMP, not JPEG; not 1: it is PNG, not JPEG" in done.stderr


def test_media_without_records_are_not_decoded_to_count_them(videos: Path, tmp_path: Path) -> None:
    folder = open_media(videos, kind="video")
    assert share_of([(folder, folder)]) is None
    assert share_of([]) is None
    pack_media([videos], tmp_path / "store", kind="video", workers=0)
    store = open_store(tmp_path / "store")
    mixed = share_of([(folder, folder), (store, [*store, *store])])
    assert mixed is not None
    assert (mixed.seen, mixed.taken) == (8, 8)


@pytest.mark.parametrize(("most", "seen"), [(1, 1), (3, 3), (5, 4), (8, 8), (500, 8)])
def test_a_large_store_is_sampled_evenly(
    most: int, seen: int, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack_media([videos], tmp_path / "store", kind="video", workers=0)
    store = open_store(tmp_path / "store")
    monkeypatch.setattr(gpu_share, "MOST_ITEMS", most)
    share = share_of([(store, store)])
    assert share is not None
    assert share.seen == seen


def test_the_most_frequent_reason_comes_first() -> None:
    share = GpuShare.of("video", ["", "a", "b", "b", "c", "c", "c"])
    assert share.describe() == "1 of 7 videos; not 3: c; not 2: b; not 1: a"
    assert GpuShare.of("image", [""]).describe() == "1 of 1 image"
    assert share.to_json() == {"seen": 7, "taken": 1, "reasons": {"c": 3, "b": 2, "a": 1}}


@pytest.mark.parametrize("taken", [0, 4, 5, 10])
@pytest.mark.parametrize("is_required", [False, True])
def test_auto_leaves_all_to_pyav_where_the_gpu_takes_fewer_than_half(taken: int, is_required: bool) -> None:
    decoder = Decoder("dali", "cuda:0", "a test", USUAL_LIMITS, is_required)
    share = GpuShare.of("video", [""] * taken + ["its colours have full range"] * (10 - taken))
    chosen = suited(decoder, share)
    stays = is_required or taken >= 5
    assert (chosen.name, chosen.colours) == (("dali", "dali") if stays else ("pyav", "original"))
    assert f"{taken} of 10 videos" in chosen.describe()
    assert ("full range" in chosen.describe()) == (taken < 10)
    assert suited(decoder, None) == decoder


@pytest.mark.parametrize(
    ("codecs", "setting", "said"),
    [
        (
            USUAL_LIMITS,
            "auto",
            "dali on cuda:0 (data.decoder is auto: a GPU and DALI 2.4, NVDEC for h264, hevc, vp8, vp9",
        ),
        ({"vp9": USUAL_LIMITS["vp9"]}, "auto", "pyav on cpu (data.decoder is auto: the GPU's decoder takes only 0 of"),
        ({"vp9": USUAL_LIMITS["vp9"]}, "dali", "dali on cuda:0 (data.decoder is dali: DALI 2.4, NVDEC for vp9, which"),
        (USUAL_LIMITS, "pyav", "pyav on cpu (data.decoder is pyav)"),
    ],
)
def test_a_run_decides_once_for_all_its_media(
    codecs: dict[str, object], setting: str, said: str, made_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "_load_dali", lambda: ("2.4", ""))
    monkeypatch.setattr(backend, "supported_codecs", lambda device: (codecs, ""))
    recipe = load_recipe("demo_qa", overrides=[f"data.decoder={setting}"], data_root=made_data)
    setup = Setup.for_training(recipe, World(0, 1, torch.device("cuda:0")))
    decoder = setup.training_data().parts[0].settings.decoder
    assert decoder.describe().startswith(said)
    monkeypatch.setattr(backend, "supported_codecs", lambda device: ({}, "the driver is gone"))
    validation = setup.evaluation(setup.split("val")).batches
    assert validation.dataset.parts[0].settings.decoder is decoder  # type: ignore[attr-defined]
