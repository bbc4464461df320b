"""What is at a path, from names and first bytes, and the error about something else there."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from made_media import video
from store_content import original_store

from clipbert_cli.errors import ClipbertError, PathError, UsageError
from clipbert_cli.path_kinds import A_FOLDER, A_MODEL, A_RUN, A_STORE, MEDIA, PREDICTIONS, PathKind, look_at, unlike


def write(file: Path, content: str | bytes = "") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One of each kind."""
    write(tmp_path / "runs/qa/recipe.yaml", "task: open_ended_qa\n")
    write(tmp_path / "runs/qa/checkpoints/step_2/state.json", "{}")
    write(tmp_path / "runs/qa/metrics.jsonl", "{}\n")
    (tmp_path / "runs/qa/best").symlink_to("checkpoints/step_2")
    write(tmp_path / "exported/recipe.yaml")
    write(tmp_path / "exported/config.json", "{}")
    (tmp_path / "stores").mkdir()
    original_store(tmp_path / "stores/one", {"a": video(3)})
    shutil.copy(tmp_path / "stores/one/data.mdb", tmp_path / "single")
    write(tmp_path / "damaged/data.mdb")
    write(tmp_path / "scores/scores.npy")
    (tmp_path / "begun/unfinished").mkdir(parents=True)
    write(tmp_path / "videos/deep/er/a.MP4")
    (tmp_path / "empty").mkdir()
    write(tmp_path / "texts/train.txt", "a")
    write(tmp_path / "mine.yml", "task: open_ended_qa\n")
    write(tmp_path / "preds.jsonl", '{"media_id": "a", "text_digest": "b"}\n')
    write(tmp_path / "ranks", json.dumps({"texts_digest": "b", "texts": []}))
    write(tmp_path / "utf16.jsonl", '{"media_id": "a", "text_digest": "b"}\n'.encode("utf-16"))
    write(tmp_path / "torn.jsonl", "no line of it can be read\n")
    write(tmp_path / "torn.jsonl.meta.json", "{}")
    write(tmp_path / "train.jsonl", '{"question": "what?"}\n')
    write(tmp_path / "list.json", ' [{"question": "what?"}]')
    write(tmp_path / "table.csv", "video,question\n")
    write(tmp_path / "answers.json", '{"red": 1}')
    write(tmp_path / "w.safetensors", b"\x08")
    write(tmp_path / "nothing.txt")
    write(tmp_path / "notes.txt", "mine")
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    return tmp_path


KINDS = {
    "runs/qa": "a run",
    "runs/qa/best": "a checkpoint in the run runs/qa",
    "runs/qa/checkpoints/step_2": "a checkpoint in the run runs/qa",
    "runs/qa/checkpoints": "a folder in the run runs/qa",
    "runs/qa/metrics.jsonl": "a file of annotations",
    "exported": "an exported model",
    "runs": "a folder with the run runs/qa",
    ".": "a folder with the runs exported, runs/qa",
    "stores": "a folder with the store stores/one",
    "stores/one": "a store",
    "single": "a store",
    "damaged": "a store",
    "scores": "a folder of scores",
    "begun": "a folder of scores",
    "videos": "a folder of media files",
    "videos/deep/er/a.MP4": "a media file",
    "empty": "an empty folder",
    "texts": "a folder",
    "mine.yml": "a recipe",
    "preds.jsonl": "a file of predictions",
    "ranks": "a file of predictions",
    "utf16.jsonl": "a file of predictions",
    "torn.jsonl": "a file of predictions",
    "train.jsonl": "a file of annotations",
    "list.json": "a file of annotations",
    "table.csv": "a file of annotations",
    "answers.json": "a JSON file",
    "w.safetensors": "a file of weights",
    "nothing.txt": "an empty file",
    "notes.txt": "a file",
    "pipe": "no regular file",
    "/dev/zero": "no regular file",
    "nowhere": "which does not exist",
    "notes.txt/in": "which does not exist",
    "": "which does not exist",
    "a" * 5000: "no regular file",
    "a\0b": "no regular file",
    "https://example.com/a.mp4": "an address",
    "https:/example.com/a.mp4": "an address",
    "hf:org/name": "a repository of the Hugging Face Hub",
}


@pytest.mark.parametrize("path", KINDS)
def test_each_kind_is_known(world: Path, path: str) -> None:
    assert str(look_at(path)) == KINDS[path]
    assert look_at(path).kind in PathKind


def test_a_large_folder_is_looked_at_in_part(tmp_path: Path) -> None:
    for number in range(2001):
        (tmp_path / f"{number}.txt").touch()
    # What was not seen may be media files.
    assert look_at(tmp_path).kind is PathKind.MEDIA


@pytest.mark.parametrize(
    ("expected", "taken"),
    [
        (A_MODEL, ["runs/qa", "exported", "runs/qa/best", "runs/qa/checkpoints/step_2", "hf:org/name", "pipe"]),
        (A_RUN, ["runs/qa", "exported", "pipe"]),
        (A_STORE, ["stores/one", "single", "damaged", "nothing.txt", "pipe"]),
        (
            MEDIA,
            ["stores/one", "single", "damaged", "videos", ".", "texts", "runs/qa/checkpoints", "nothing.txt", "pipe"],
        ),
        (PREDICTIONS, ["preds.jsonl", "ranks", "utf16.jsonl", "torn.jsonl", "scores", "begun", "pipe"]),
    ],
)
def test_what_is_expected_is_taken_and_nothing_else(world: Path, expected, taken: list[str]) -> None:
    names = [name for name in KINDS if name and len(name) < 100 and "\0" not in name and name != "/dev/zero"]
    assert {name for name in names if expected.takes(look_at(name))} == {*taken}
    assert {name for name in names if A_FOLDER.takes(look_at(name))} == {
        "pipe",
        "single",
        *filter(os.path.isdir, names),
    }


@pytest.mark.parametrize(
    ("name", "message", "kind", "code"),
    [
        ("", "runs is a folder with the run runs/qa: a run is expected", PathError, 1),
        ("--run", "--run is runs, a folder with the run runs/qa: a run is expected", UsageError, 2),
    ],
)
def test_the_error_says_what_is_there_and_what_is_expected(
    world: Path, name: str, message: str, kind: type[ClipbertError], code: int
) -> None:
    error = unlike("runs", A_RUN, name=name)
    assert (type(error), str(error), error.exit_code) == (kind, message, code)
    assert error.hint == A_RUN.hint
    assert str(unlike("nowhere", A_STORE)) == "nowhere does not exist: a store is expected"
