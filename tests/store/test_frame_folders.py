"""Folders of frames are videos: packed, or read as they are."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from made_media import image, marked_frame, read_index
from PIL import Image
from running import TINY, Clipbert, as_options

from clipbert_cli.errors import StoreError, UsageError
from clipbert_cli.loading.dataset import MediaSettings, load_clips
from clipbert_cli.media.frames import decode_frames
from clipbert_cli.media.sampling import ClipSampling
from clipbert_cli.store.lmdb_store import open_media
from clipbert_cli.store.packing import pack_media
from clipbert_cli.store.source import MediaSource

RATE = Fraction(5)


def grey(index: int) -> Image.Image:
    return Image.fromarray(marked_frame(index)[..., 0])


def transparent(index: int) -> Image.Image:
    return Image.fromarray(marked_frame(index)).convert("RGBA")


def deep(index: int) -> Image.Image:
    return Image.fromarray(marked_frame(index)[..., 0].astype(np.uint16) * 257)


# name -> (pattern of the names, the bytes of frame i, FFmpeg's name of the codec)
FRAMES: dict[str, tuple[str, Callable[[int], bytes], str]] = {
    "jpeg": ("{:06d}.jpg", lambda index: image(marked_frame(index), "jpeg"), "mjpeg"),
    "jpeg, numbers without zeros": ("frame{}.JPG", lambda index: image(marked_frame(index), "jpeg"), "mjpeg"),
    "grey jpeg": ("img_{:05d}.jpeg", lambda index: image(grey(index), "jpeg"), "mjpeg"),
    "progressive jpeg": ("{:06d}.jpg", lambda index: image(marked_frame(index), "jpeg", progressive=True), "mjpeg"),
    "png": ("{}.png", lambda index: image(marked_frame(index)), "png"),
    "transparent png": ("{:03d}.png", lambda index: image(transparent(index)), "png"),
    "16-bit png": ("{:03d}.png", lambda index: image(deep(index)), "png"),
    "palette png": ("{:03d}.png", lambda index: image(Image.fromarray(marked_frame(index)).quantize(64)), "png"),
    "bmp": ("{:03d}.bmp", lambda index: image(marked_frame(index), "bmp"), "png"),
    "lossless webp": ("{:03d}.webp", lambda index: image(marked_frame(index), "webp", lossless=True), "png"),
    "jpeg and png": (
        "{:03d}.jpg",
        lambda index: image(
            marked_frame(index), "jpeg" if index % 2 else "png", **({"quality": 95} if index % 2 else {})
        ),
        "png",
    ),
}


def write(folder: Path, pattern: str, frame: Callable[[int], bytes], count: int = 12) -> Path:
    folder.mkdir(parents=True)
    for index in range(count):
        (folder / pattern.format(index)).write_bytes(frame(index))
    (folder / "notes.txt").write_text("25 fps")
    return folder


def shown(source: MediaSource, media_id: str) -> list[int]:
    """The numbers that all frames of an item carry."""
    info = source.info(media_id)
    assert info is not None
    frames = (tuple(range(len(info.pts))),)
    return [read_index(frame) for frame in decode_frames(source.read(media_id), frames, info=info)[0]]


@pytest.mark.parametrize("form", FRAMES)
def test_a_packed_folder_has_its_frames_in_order_and_in_time(tmp_path: Path, form: str) -> None:
    pattern, frame, codec = FRAMES[form]
    write(tmp_path / "frames" / "cat.one", pattern, frame)
    summary = pack_media([tmp_path / "frames"], tmp_path / "store", frame_rate=RATE)
    assert (summary.packed, summary.damaged, summary.not_taken) == (1, (), (tmp_path / "frames/cat.one/notes.txt",))
    store = open_media(tmp_path / "store", kind="video")
    assert list(store) == ["cat.one"]
    assert shown(store, "cat.one") == list(range(12))
    info = store.info("cat.one")
    assert info is not None
    assert [(time - info.pts[0]) * info.time_base for time in info.pts] == [index / RATE for index in range(12)]
    assert (info.num_frames, info.average_rate) == (12, RATE)
    assert store.record("cat.one")["codec"] == codec  # type: ignore[attr-defined]


@pytest.mark.parametrize("rate", [Fraction(1, 2), Fraction("29.97"), Fraction(30000, 1001), Fraction(1000)])
def test_every_rate_is_exact(tmp_path: Path, rate: Fraction) -> None:
    pattern, frame, _ = FRAMES["jpeg"]
    write(tmp_path / "frames" / "v", pattern, frame, count=40)
    info = open_media(pack_media([tmp_path / "frames"], tmp_path / "store", frame_rate=rate).store, kind="video").info(
        "v"
    )
    assert info is not None
    assert [time * info.time_base for time in info.pts] == [index / rate for index in range(40)]


@pytest.mark.parametrize("form", ["jpeg", "png", "jpeg and png"])
def test_folders_that_are_not_packed_give_the_same_clips(tmp_path: Path, form: str) -> None:
    pattern, frame, _ = FRAMES[form]
    for name in ("train/a", "train/b", "c"):
        write(tmp_path / "frames" / name, pattern, frame)
    store = open_media(pack_media([tmp_path / "frames"], tmp_path / "store", frame_rate=RATE).store, kind="video")
    folders = open_media(tmp_path / "frames", kind="video", frame_rate=5.0)
    assert list(store) == list(folders) == ["a", "b", "c"]
    settings = MediaSettings(ClipSampling("clips", 2, 2, 2.0), 96)
    for media_id in ("a", "c#t=1,2"):
        one, other = (load_clips(source, media_id, settings, None) for source in (store, folders))
        assert isinstance(one, torch.Tensor)
        assert isinstance(other, torch.Tensor)
        assert torch.equal(one, other)


def test_pictures_that_state_a_turn_are_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    upside_down = np.rot90(marked_frame(7), 2)
    write(tmp_path / "frames" / "v", "{}.jpg", lambda _: image(upside_down.copy(), "jpeg", exif=exif, quality=95), 3)
    store = open_media(pack_media([tmp_path / "frames"], tmp_path / "store", frame_rate=RATE).store, kind="video")
    assert shown(store, "v") == [7, 7, 7]


def test_a_folder_with_a_bad_frame_is_skipped_and_the_frame_is_named(tmp_path: Path) -> None:
    pattern, frame, _ = FRAMES["jpeg"]
    for name in ("good", "empty", "text"):
        write(tmp_path / "frames" / name, pattern, frame)
    (tmp_path / "frames/empty/000003.jpg").write_bytes(b"")
    (tmp_path / "frames/text/000004.jpg").write_bytes(b"not found")
    summary = pack_media([tmp_path / "frames"], tmp_path / "store", frame_rate=RATE)
    assert summary.packed == 1
    reasons = {path.name: reason for path, reason in summary.skipped}
    assert reasons["empty"] == "its frame 000003.jpg: the file is empty"
    assert reasons["text"].startswith("its frame 000004.jpg: it is not an image")


def test_a_stopped_pack_packs_changed_folders_again(tmp_path: Path) -> None:
    pattern, frame, _ = FRAMES["jpeg"]
    for name in ("a", "b", "c"):
        write(tmp_path / "frames" / name, pattern, frame)

    def stop(done: int, _: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack_media([tmp_path / "frames"], tmp_path / "store", frame_rate=RATE, on_progress=stop)
    (tmp_path / "frames/a/000000.jpg").write_bytes(image(marked_frame(99), "jpeg"))
    with pytest.raises(StoreError, match="had other settings"):
        pack_media([tmp_path / "frames"], tmp_path / "store", frame_rate=RATE * 2)
    assert pack_media([tmp_path / "frames"], tmp_path / "store", frame_rate=RATE).resumed <= 1
    assert shown(open_media(tmp_path / "store", kind="video"), "a")[0] == 99


def test_frames_can_be_transcoded_and_added(tmp_path: Path, clipbert: Clipbert) -> None:
    pattern, frame, _ = FRAMES["jpeg"]
    write(tmp_path / "one" / "a", pattern, frame)
    write(tmp_path / "two" / "b", pattern, frame)
    options = ["--frame-folders", "--fps", "12.5", "--transcode", "96:4:1", "--workers", 0]
    assert clipbert("pack", tmp_path / "one", tmp_path / "store", *options).returncode == 0
    added = clipbert("pack", "--add", tmp_path / "two", tmp_path / "store", *options)
    assert added.returncode == 0, added.stderr
    store = open_media(tmp_path / "store", kind="video")
    assert [shown(store, media_id) for media_id in ("a", "b")] == [list(range(12))] * 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--frame-folders", "--fps is None: --frame-folders needs the rate"),
        ("--frame-folders --fps 0", "--fps is 0"),
        ("--frame-folders --fps -3", "--fps is -3"),
        ("--frame-folders --fps fast", "--fps is fast"),
        ("--frame-folders --fps 1/0", "--fps is 1/0"),
        ("--frame-folders --fps inf", "--fps is inf"),
        ("--fps 5", "--fps is the rate of --frame-folders"),
        ("--frame-folders --fps 5 --kind image", "--frame-folders makes videos, but --kind is image"),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, clipbert: Clipbert, words: str, message: str) -> None:
    pattern, frame, _ = FRAMES["jpeg"]
    write(tmp_path / "frames" / "a", pattern, frame, 2)
    refused = clipbert("pack", tmp_path / "frames", tmp_path / "store", *words.split())
    assert refused.returncode == 2
    assert message in " ".join(refused.stderr.split())
    assert not (tmp_path / "store").exists()


def test_what_holds_no_folders_of_frames_is_refused(tmp_path: Path, videos: Path) -> None:
    with pytest.raises(StoreError, match="there are no folders of images in"):
        pack_media([videos], tmp_path / "store", frame_rate=RATE)
    with pytest.raises(UsageError, match=r"video0\.mp4 is a file, but --frame-folders packs folders"):
        pack_media([videos / "video0.mp4"], tmp_path / "store", frame_rate=RATE)
    with pytest.raises(StoreError, match="there are no folders of images in"):
        open_media(videos, kind="video", frame_rate=5.0)


def test_who_forgets_the_options_is_told_of_them(tmp_path: Path) -> None:
    pattern, frame, _ = FRAMES["jpeg"]
    for name in ("a", "b"):
        write(tmp_path / "frames" / name, pattern, frame, 2)
    with pytest.raises(StoreError, match="two files have the media id '000000'") as packed:
        pack_media([tmp_path / "frames"], tmp_path / "store")
    assert "--frame-folders --fps N" in (packed.value.hint or "")
    with pytest.raises(StoreError, match="there are no videos in") as opened:
        open_media(tmp_path / "frames", kind="video")
    assert "data.fps_of_frames" in (opened.value.hint or "")


def test_a_run_trains_on_folders_of_frames(made_data: Path, tmp_path: Path, clipbert: Clipbert) -> None:
    pattern, frame, _ = FRAMES["jpeg"]
    frames = tmp_path / "frames"
    for split, count in (("train", 8), ("val", 3), ("test", 4)):
        for number in range(count):
            write(frames / f"{split}{number:04d}", pattern, frame, 6)
    overrides = [f"data.splits.{split}.media={frames}" for split in ("train", "val", "test")]
    options = as_options([*TINY, *overrides, "data.fps_of_frames=2", "train.max_steps=1"])
    run = clipbert("finetune", "--recipe", "demo_qa", "--run", tmp_path / "run", "--data-root", made_data, *options)
    assert run.returncode == 0, run.stderr
    found = clipbert("infer", "--run", tmp_path / "run", "--split", "test", "-o", tmp_path / "p.jsonl")
    assert found.returncode == 0, found.stderr
    assert "media_error" not in (tmp_path / "p.jsonl").read_text()
