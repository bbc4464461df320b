"""Packing: what is written, what is left out, and what is refused."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import lmdb
import numpy as np
import pytest
from made_media import image, marked_frame, sound, video
from PIL import Image
from store_content import content, names, original_store

from clipbert_cli.errors import ClipbertError, DecodeError, OutputError, PathError, StoreError, UsageError
from clipbert_cli.media.images import decode_image
from clipbert_cli.store import records
from clipbert_cli.store.ingest import Candidate, Ingested, Transcode, ingest
from clipbert_cli.store.lmdb_store import open_media
from clipbert_cli.store.packing import pack_media
from clipbert_cli.store.verify import verify_store


def test_files_are_found_at_any_depth_and_in_any_case(tmp_path: Path, clip: bytes) -> None:
    source = tmp_path / "in"
    for place in ("a.mp4", "deep/b.WebM", "deep/deeper/c.name.MOV"):
        (source / place).parent.mkdir(parents=True, exist_ok=True)
        (source / place).write_bytes(clip)
    (source / "readme.txt").write_text("hello")
    (source / "deep/circle").symlink_to(source)
    done: list[tuple[int, int]] = []
    summary = pack_media([source], tmp_path / "store", on_progress=lambda *progress: done.append(progress))
    assert list(open_media(tmp_path / "store", kind="video")) == ["a", "b", "c.name"]
    assert (summary.packed, summary.bytes, summary.kind) == (3, 3 * len(clip), "video")
    assert done == [(1, 3), (2, 3), (3, 3)]
    assert names(tmp_path) == ["in", "store"]


def test_media_records_are_stored_beside_the_bytes(videos: Path, tmp_path: Path, clip: bytes) -> None:
    pack_media([videos], tmp_path / "store")
    with lmdb.open(str(tmp_path / "store"), readonly=True, lock=False) as environment, environment.begin() as txn:
        key = records.info_key("video3")
        record = json.loads(records.unsealed(key, txn.get(key)))
    assert record["bytes"] == len(clip)
    assert record["crc32"] == zlib.crc32(clip)
    assert (record["codec"], record["width"], record["height"], record["num_frames"]) == ("h264", 96, 64, 6)
    assert (record["average_rate"], record["complete"]) == ("30", True)
    assert record["pts"] == {"start": 0, "steps": [[512, 5]]}


def test_images_are_packed(tmp_path: Path) -> None:
    for index, (name, form) in enumerate([("a.JPG", "jpeg"), ("b.png", "png"), ("c.webp", "webp")]):
        (tmp_path / name).write_bytes(image(marked_frame(index), form))
    (tmp_path / "cut.jpg").write_bytes(image(marked_frame(9), "jpeg")[:700])
    summary = pack_media([tmp_path], tmp_path / "store")
    assert (summary.kind, summary.packed) == ("image", 3)
    assert [path.name for path, _ in summary.skipped] == ["cut.jpg"]


def test_links_count_as_files_under_their_own_names(tmp_path: Path, clip: bytes) -> None:
    blobs, hub, other = tmp_path / "blobs", tmp_path / "hub", tmp_path / "other"
    for folder in (blobs, hub, other):
        folder.mkdir()
    (blobs / "3fa9").write_bytes(clip)
    (hub / "one.mp4").symlink_to("../blobs/3fa9")
    (hub / "two.mp4").symlink_to(blobs / "3fa9")
    (hub / "chain.mp4").symlink_to("one.mp4")
    os.link(blobs / "3fa9", hub / "hard.mp4")
    (other / "one.mp4").symlink_to(blobs / "3fa9")
    assert pack_media([hub], tmp_path / "store").packed == 4
    assert list(open_media(tmp_path / "store", kind="video")) == ["chain", "hard", "one", "two"]
    assert pack_media([hub, other, hub / "one.mp4"], tmp_path / "again").packed == 4
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/real.mp4").write_bytes(clip)
    (tmp_path / "videos/a link.mp4").symlink_to("real.mp4")
    assert pack_media([tmp_path / "videos"], tmp_path / "third").packed == 2


def test_files_that_are_not_taken_are_listed(videos: Path, tmp_path: Path) -> None:
    others = ["notes.txt", "a.JXL", "b.jxl", "README", "deep/list.csv"]
    (videos / "deep").mkdir()
    for name in others:
        (videos / name).write_text("words")
    summary = pack_media([videos], tmp_path / "store")
    assert summary.packed == 8
    assert sorted(str(path.relative_to(videos)) for path in summary.not_taken) == sorted(others)


@pytest.mark.parametrize("ending", [".m2t", ".MOD", ".tod", ".mts", ".ivf", ".mjpeg"])
def test_endings_of_camcorders_and_codecs_are_taken(tmp_path: Path, clip: bytes, ending: str) -> None:
    (tmp_path / f"a{ending}").write_bytes(clip)
    assert pack_media([tmp_path], tmp_path / "store").packed == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<!DOCTYPE html><html>Video unavailable</html>", "it is an HTML page"),
        (b"\n  <html lang='en'>", "it is an HTML page"),
        (b'{"error": "not found"}', "it is a JSON document"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"PK\x03\x04" + bytes(40), "it is a ZIP archive"),
        (bytes(4096), "nothing but zeros"),
        (b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 9, "without its index `moov`"),
    ],
    ids=["page", "page after white space", "JSON", "LFS", "ZIP", "zeros", "no index"],
)
def test_what_a_file_looks_like_is_said_in_pack_verify_and_training(
    videos: Path, tmp_path: Path, content: bytes, reason: str
) -> None:
    (videos / "odd.mp4").write_bytes(content)
    ((_, said),) = pack_media([videos], tmp_path / "store").skipped
    assert reason in said
    theirs = original_store(tmp_path / "theirs", {"odd": content})
    ((_, found),) = verify_store(theirs).wrong
    assert found == said
    with pytest.raises(DecodeError, match=re.escape(said)):
        open_media(theirs, kind="video").info("odd")


def test_pictures_that_use_would_refuse_are_not_packed(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "good.png").write_bytes(image(marked_frame(1)))
    depth = Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8))
    depth.save(source / "depth.tif")
    depth.save(source / "depth.tiff.jpg", "tiff")
    (source / "portable.ppm").write_bytes(b"Pf\n2 2\n-1.0\n" + np.ones(4, "<f4").tobytes())
    Image.new("LAB", (8, 8)).save(source / "lab.tiff")
    (source / "many.bmp").write_bytes(image(np.zeros((200, 100), np.uint8), "bmp"))
    summary = pack_media([source], tmp_path / "store", max_pixels=10_000)
    packed = open_media(tmp_path / "store", kind="image")
    assert {path.name for path, _ in summary.skipped} >= {"depth.tif", "depth.tiff.jpg", "portable.ppm", "many.bmp"}
    for media_id in packed:
        decode_image(packed.read(media_id))
    assert len(packed) + len(summary.skipped) == 6
    reasons = {path.name: reason for path, reason in summary.skipped}
    assert "floating point" in reasons["depth.tif"]
    assert "more than 10000 pixels" in reasons["many.bmp"]


def test_videos_beyond_the_limit_of_pixels_are_not_packed(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "small.mp4").write_bytes(video(3))
    (source / "large.mp4").write_bytes(video(3, height=128, width=192))
    summary = pack_media([source], tmp_path / "store", max_pixels=96 * 64)
    assert [(path.name, "192 x 128" in reason) for path, reason in summary.skipped] == [("large.mp4", True)]


def test_videos_whose_shape_training_refuses_are_not_packed(tmp_path: Path) -> None:
    sizes = {"wide": (64, 400), "tall": (400, 64), "five": (64, 320), "thin": (66, 512)}
    for name, (height, width) in sizes.items():
        (tmp_path / f"{name}.mp4").write_bytes(video(2, height=height, width=width))
    summary = pack_media([tmp_path], tmp_path / "store")
    assert list(open_media(tmp_path / "store", kind="video")) == ["five"]
    assert {path.stem for path, reason in summary.skipped if "over 5 times as long" in reason} == {
        "wide",
        "tall",
        "thin",
    }


def test_what_cannot_be_used_is_reported_and_the_rest_packed(videos: Path, tmp_path: Path) -> None:
    (videos / "empty.mp4").write_bytes(b"")
    (videos / "words.avi").write_text("this is text, not a video")
    (videos / "sound.mp4").write_bytes(sound())
    (videos / "photo.mp4").write_bytes(image(marked_frame(1), "jpeg"))
    (videos / "gone.mp4").symlink_to(tmp_path / "nowhere")
    os.mkfifo(videos / "pipe.mp4")
    whole = video(60)
    (videos / "damaged.mp4").write_bytes(whole[: len(whole) // 2] + bytes(200) + whole[len(whole) // 2 + 200 :])
    summary = pack_media([videos], tmp_path / "store")
    reasons = {path.stem: reason for path, reason in summary.skipped}
    assert summary.packed == 9
    assert reasons.keys() == {"empty", "words", "sound", "photo", "gone", "pipe"}
    assert "empty" in reasons["empty"]
    assert "only audio" in reasons["sound"]
    assert "picture" in reasons["photo"]
    assert "No such file" in reasons["gone"]
    assert "regular file" in reasons["pipe"]
    (path, damage) = summary.damaged[0]
    assert path.stem == "damaged"
    assert "of 60" in damage


def test_two_files_of_one_stem_stop_everything(videos: Path, tmp_path: Path) -> None:
    (videos / "sub").mkdir()
    (videos / "sub/video3.mkv").write_bytes(b"")
    with pytest.raises(StoreError, match=r"sub/video3\.mkv and .*video3\.mp4"):
        pack_media([videos], tmp_path / "store")
    assert names(tmp_path) == ["videos"]


def test_a_file_named_twice_is_packed_once(videos: Path, tmp_path: Path) -> None:
    assert pack_media([videos, videos / "video1.mp4"], tmp_path / "store").packed == 8


def test_a_file_named_by_itself_needs_no_usual_ending(tmp_path: Path, clip: bytes) -> None:
    (tmp_path / "clip.bin").write_bytes(clip)
    assert pack_media([tmp_path / "clip.bin"], tmp_path / "store", kind="video").packed == 1


def test_mixed_kinds_have_to_be_chosen(videos: Path, tmp_path: Path) -> None:
    (videos / "photo.png").write_bytes(image(marked_frame(1)))
    with pytest.raises(UsageError, match="8 videos and 1 image") as caught:
        pack_media([videos], tmp_path / "store")
    assert "--kind" in (caught.value.hint or "")
    assert pack_media([videos], tmp_path / "store", kind="image").packed == 1


def test_gifs_are_videos_unless_images_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "moving.gif").write_bytes(video(5, codec="gif", container="gif"))
    assert pack_media([tmp_path], tmp_path / "videos").kind == "video"
    assert pack_media([tmp_path / "moving.gif"], tmp_path / "images", kind="image").packed == 1


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda folder: None, PathError, "does not exist: media files or folders of them are expected"),
        (lambda folder: folder.mkdir(), PathError, "is an empty folder"),
        (
            lambda folder: (folder.mkdir(), (folder / "a.mp4").write_bytes(b"")),
            StoreError,
            "none of 1 files could be.*empty",
        ),
    ],
    ids=["missing", "no media", "all unusable"],
)
def test_nothing_to_pack_is_an_error_and_writes_nothing(
    make, error: type[ClipbertError], message: str, tmp_path: Path
) -> None:
    make(tmp_path / "in")
    before = names(tmp_path)
    with pytest.raises(error, match=message):
        pack_media([tmp_path / "in"], tmp_path / "store")
    assert names(tmp_path) == before


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")])
def test_what_exists_is_never_touched(make, videos: Path, tmp_path: Path) -> None:
    make(tmp_path / "store")
    before = os.lstat(tmp_path / "store")
    with pytest.raises(StoreError, match="exists"):
        pack_media([videos], tmp_path / "store")
    assert os.lstat(tmp_path / "store") == before


@pytest.mark.parametrize(("bytes_of_id", "fits"), [(493, True), (494, False), (511, False), (512, False), (900, False)])
@pytest.mark.parametrize("letter", ["a", "é"])
def test_a_path_that_is_too_long_for_a_media_id_is_named(
    tmp_path: Path, clip: bytes, letter: str, bytes_of_id: int, fits: bool
) -> None:
    parts = []
    rest = bytes_of_id
    while rest > 200:
        parts.append((letter * 200).encode()[:200].decode())
        rest -= 201
    file = Path(tmp_path, "videos", *parts, "x" * rest + ".mp4")
    file.parent.mkdir(parents=True)
    file.write_bytes(clip)
    if fits:
        pack_media([tmp_path / "videos"], tmp_path / "store", ids="path")
        (found,) = open_media(tmp_path / "store", kind="video")
        assert len(found.encode()) == bytes_of_id
        return
    with pytest.raises(StoreError, match=f"its media id has {bytes_of_id} bytes, but a store takes at most 493"):
        pack_media([tmp_path / "videos"], tmp_path / "store", ids="path")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["videos"]


@pytest.mark.parametrize("name", ["a/store", "a/b/c/store", "a/../b/store"])
def test_folders_above_a_new_store_are_made(videos: Path, tmp_path: Path, name: str) -> None:
    pack_media([videos], tmp_path / name)
    assert len(open_media(tmp_path / name, kind="video")) == 8


@pytest.mark.parametrize("name", ["a/store", "a/b/c/store", "kept/a/store"])
def test_folders_above_a_store_that_is_not_made_do_not_stay(tmp_path: Path, name: str) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "damaged.mp4").write_bytes(b"no video")
    with pytest.raises(StoreError, match="none of 1 files"):
        pack_media([tmp_path / "damaged.mp4"], tmp_path / name)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["damaged.mp4", "kept"]


@pytest.mark.parametrize("name", ["file/store", "file/a/store", "link/store"])
def test_a_file_above_a_store_is_named(videos: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(OutputError, match="is not a folder"):
        pack_media([videos], tmp_path / name)


def test_a_place_that_cannot_be_written_is_named(videos: Path) -> None:
    with pytest.raises(OutputError, match="/proc/store cannot be written"):
        pack_media([videos], Path("/proc/store"))


def test_the_map_grows_and_the_file_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipbert_cli.store.environment._FIRST_MAP_BYTES", 2**16)
    monkeypatch.setattr("clipbert_cli.store.environment._COMMIT_BYTES", 2**18)
    rng = np.random.default_rng(0)
    for index in range(12):
        (tmp_path / f"{index}.bmp").write_bytes(image(rng.integers(0, 255, (200, 200, 3), dtype=np.uint8), "bmp"))
    summary = pack_media([tmp_path], tmp_path / "store")
    assert summary.packed == 12
    assert (tmp_path / "store/data.mdb").stat().st_size < 1.1 * summary.bytes
    source = open_media(tmp_path / "store", kind="image")
    assert all(source.read(name) == (tmp_path / f"{name}.bmp").read_bytes() for name in source)


def test_two_packs_give_the_same_bytes(videos: Path, tmp_path: Path) -> None:
    first, second = (pack_media([videos], tmp_path / name).store / "data.mdb" for name in ("one", "two"))
    assert first.read_bytes() == second.read_bytes()


def test_processes_write_the_same_store(videos: Path, tmp_path: Path) -> None:
    (videos / "words.avi").write_text("this is text, not a video")
    alone = pack_media([videos], tmp_path / "alone")
    together = pack_media([videos], tmp_path / "together", workers=2)
    assert (together.packed, together.skipped) == (alone.packed, alone.skipped)
    assert (tmp_path / "alone/data.mdb").read_bytes() == (tmp_path / "together/data.mdb").read_bytes()


def test_of_two_files_with_one_stem_the_first_or_the_longest_is_taken(videos: Path, tmp_path: Path) -> None:
    (videos / "sub").mkdir()
    longer = video(20)
    (videos / "sub/video3.mkv").write_bytes(video(12))
    (videos / "video3.mov").write_bytes(longer)
    first = pack_media([videos], tmp_path / "first", on_duplicate="first")
    assert open_media(tmp_path / "first", kind="video").read("video3") == (videos / "sub/video3.mkv").read_bytes()
    assert [path.name for path, _ in first.skipped] == ["video3.mov", "video3.mp4"]
    pack_media([videos], tmp_path / "longest", on_duplicate="longest")
    assert open_media(tmp_path / "longest", kind="video").read("video3") == longer


def test_transcoded_videos_are_small_and_keep_their_times(tmp_path: Path) -> None:
    (tmp_path / "long.mp4").write_bytes(video(50, height=240, width=640, times=[*range(0, 50, 2), *range(60, 85)]))
    pack_media([tmp_path], tmp_path / "store", transcode=Transcode(long_side=320, gop=10))
    source = open_media(tmp_path / "store", kind="video")
    info, packets = source.info("long"), source.packets("long")
    assert (info.width, info.height) == (320, 120)
    assert [round(pts * info.time_base * 30) for pts in info.pts] == [*range(0, 50, 2), *range(60, 85)]
    assert packets.entries == [0, 10, 20, 30, 40]
    del source
    assert json.loads(content(tmp_path / "store")[b"/clipbert/manifest"])["transcode"] == {
        "long_side": 320,
        "gop": 10,
        "crf": 23,
    }


def test_a_file_that_crashes_its_worker_is_skipped(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipbert_cli.store.packing.ingest", ingest_or_crash)
    summary = pack_media([videos], tmp_path / "store", workers=2)
    assert summary.packed == 7
    ((path, reason),) = summary.skipped
    assert path.name == "video3.mp4"
    assert "SIGKILL" in reason


def ingest_or_crash(candidate: Candidate) -> Ingested:
    if candidate.media_id == "video3":
        os.kill(os.getpid(), signal.SIGKILL)
    return ingest(candidate)


def test_packing_loads_no_torch() -> None:
    code = "import sys, clipbert_cli.store.packing, clipbert_cli.store.lmdb_store; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


TINY = """
import sys
from pathlib import Path
from clipbert_cli.store import packing
packing.pack_media([Path(sys.argv[1])], Path(sys.argv[2]), kind="image")
print(int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))))
"""


def test_memory_does_not_grow_with_tiny_files(tmp_path: Path) -> None:
    data = image(np.zeros((4, 4, 3), np.uint8))
    kilobytes = []
    for count in (100, 3100):
        folder = tmp_path / str(count)
        folder.mkdir()
        for number in range(count):
            (folder / f"{number}.png").write_bytes(data)
        command = [sys.executable, "-c", TINY, str(folder), str(tmp_path / f"{count}.store")]
        kilobytes.append(int(subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout))
    assert kilobytes[1] - kilobytes[0] < 3000 * 5  # 5 kB a file, as 500 MB for 100,000
