"""The package from Python: the same answers as the commands give, and media as arrays."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_media import HEIGHT, WIDTH, image, marked_frame, read_index, video
from running import Clipbert

import clipbert_cli
from clipbert_cli.api import Model
from clipbert_cli.errors import ClipbertError, PathError, UsageError
from clipbert_cli.media.frames import decode_frames
from clipbert_cli.media.sampling import ClipSampling, select
from clipbert_cli.store.source import single_item


@pytest.fixture(scope="module")
def model(trained_run: Path) -> Model:
    return clipbert_cli.load(trained_run, device="cpu", settings=["infer.num_clips=2"])


def test_a_path_bytes_and_frames_give_the_answer_of_the_command(
    model: Model, made_data: Path, trained_run: Path, clipbert: Clipbert
) -> None:
    file = made_data / "videos" / "test0001.mp4"
    done = clipbert(
        "ask", "--run", trained_run, "--video", file, "what shape is red ?", "--set", "infer.num_clips=2", "--json"
    )
    (expected,) = json.loads(done.stdout)
    source = single_item("x", file.read_bytes(), kind="video")
    info = source.info("x")
    assert info
    frames = decode_frames(file.read_bytes(), (tuple(range(len(info.pts))),), info=info)[0]
    for given in (file, str(file), file.read_bytes(), frames):
        fps = float(info.average_rate or 0) if given is frames else None
        answer = model.ask(given, "what shape is red ?", fps=fps)
        assert answer.answer == expected["answer"]
        assert answer.score == pytest.approx(expected["score"], abs=1e-6)
        assert answer.top[0].answer == answer.answer
        assert [each.score for each in answer.top] == sorted((each.score for each in answer.top), reverse=True)


def test_a_picture_is_a_file_or_an_array(model: Model, tmp_path: Path) -> None:
    pixels = marked_frame(3)
    file = tmp_path / "a.png"
    file.write_bytes(image(pixels))
    assert model.ask(file, "what ?", kind="image") == model.ask(pixels, "what ?")
    assert model.ask(file.read_bytes(), "what ?", kind="image") == model.ask(pixels, "what ?")


def test_options_are_chosen_from(choice_run: Path, made_data: Path) -> None:
    chooses = clipbert_cli.load(choice_run, device="cpu")
    options = ["a red bar", "a blue ring", "a green dot"]
    answer = chooses.ask(made_data / "videos" / "test0000.mp4", "which ?", options)
    assert answer.answer == answer.top[0].answer
    assert sorted(each.answer for each in answer.top) == sorted(options)
    with pytest.raises(UsageError, match="option"):
        chooses.ask(made_data / "videos" / "test0000.mp4", "which ?")


def test_predictions_and_searches_are_those_of_the_commands(
    model: Model, made_data: Path, trained_run: Path, retrieval_run: Path, clipbert: Clipbert
) -> None:
    done = clipbert("infer", "--run", trained_run, "--split", "test", "--set", "infer.num_clips=2")
    assert list(model.predict("test")) == list(map(json.loads, done.stdout.splitlines()))
    found = clipbert_cli.load(retrieval_run, device="cpu").search(["a red bar"], made_data / "videos", top=2)
    shown = clipbert("search", made_data / "videos", "a red bar", "--run", retrieval_run, "--top", "2", "--json")
    assert [{"media_id": each.media_id, "score": each.score} for each in found[0]] == json.loads(shown.stdout)[0]["top"]


@pytest.mark.parametrize(
    ("media", "message"),
    [
        ("absent.mp4", "no such video file: absent.mp4"),
        (b"no video at all", "the given media"),
        (np.zeros((4, 8, 8, 3)), "must be uint8"),
        (np.zeros((4, 8, 8), dtype=np.uint8), "must be uint8"),
        (np.zeros((0, 8, 8, 3), dtype=np.uint8), "must be uint8"),
    ],
)
def test_what_cannot_be_asked_about_is_named(model: Model, media: object, message: str) -> None:
    with pytest.raises((ClipbertError, ValueError), match=message):
        model.ask(media, "what ?")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="retrieval"):
        model.search(["a"], "videos")


def test_a_store_and_a_folder_hold_the_same_items(made_data: Path) -> None:
    store, folder = clipbert_cli.MediaStore(made_data / "vis_db"), clipbert_cli.MediaStore(made_data / "videos")
    assert list(store) == list(folder) != []
    assert len(store) == len(list(store))
    for media_id in store:
        assert store[media_id].data == folder[media_id].data == (made_data / "videos" / f"{media_id}.mp4").read_bytes()
        assert store[media_id].info == folder[media_id].info
    assert "absent" not in store
    with pytest.raises(KeyError):
        store["absent"]
    with pytest.raises(PathError, match="a folder of media files or a store is expected"):
        clipbert_cli.MediaStore(made_data / "absent")


@pytest.mark.parametrize(("clips", "length"), [(1, 2), (3, 1), (4, 5)])
def test_sampled_clips_are_the_frames_that_sampling_chooses(clips: int, length: int, tmp_path: Path) -> None:
    data = video(40)
    (tmp_path / "v.mp4").write_bytes(data)
    info = single_item("v", data, kind="video").info("v")
    assert info
    expected = select(info, ClipSampling("clips", clips, length, 4.0))
    for given in (data, tmp_path / "v.mp4", clipbert_cli.MediaStore(tmp_path)["v"]):
        found = clipbert_cli.sample_clips(given, num_clips=clips, num_frames=length, fps=4.0)
        assert found.frames.shape == (clips, length, HEIGHT, WIDTH, 3)
        assert found.indices == expected
        assert tuple(tuple(read_index(frame) for frame in clip) for clip in found) == expected
        assert found.seconds == tuple(tuple(float(info.pts[i] * info.time_base) for i in clip) for clip in expected)


def test_the_package_and_its_media_need_no_torch(made_data: Path) -> None:
    code = f"""
import sys, clipbert_cli
assert not {{"torch", "numpy", "av"}} & set(sys.modules)
item = clipbert_cli.MediaStore({str(made_data / "vis_db")!r})["test0000"]
print(clipbert_cli.sample_clips(item, num_clips=2).frames.shape)
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError):
        clipbert_cli.no_such_thing  # noqa: B018
