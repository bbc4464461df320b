"""Nothing is written through a symbolic link: a folder from a stranger could have it point anywhere, and to itself."""

from __future__ import annotations

import ast
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from made_media import video
from running import Clipbert

from clipbert_cli import files
from clipbert_cli.assets.partial_file import PartialFile
from clipbert_cli.errors import OutputError
from clipbert_cli.infer.prediction_lines import TextList
from clipbert_cli.infer.score_folder import SCORES, STATE, UNFINISHED, ScoreFolder, Scoring
from clipbert_cli.store.packing import pack_media
from clipbert_cli.train.logs import JsonLines
from clipbert_cli.train.trackers import KINDS as TRACKERS
from clipbert_cli.types import Example, Prediction, PredictionKey

SECRET = "the content of a file elsewhere\n"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder with a file that must stay as it is."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "file").write_text(SECRET)
    return folder


def untouched(outside: Path) -> bool:
    return [path.name for path in outside.iterdir()] == ["file"] and (outside / "file").read_text() == SECRET


def test_a_file_that_is_written_in_place_is_no_link(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "link").symlink_to(outside / "file")
    for mode in ("w", "a", "ab", "r+b"):
        with pytest.raises(OSError, match="symbolic link"), open(tmp_path / "link", mode, opener=files.without_links):
            pass
    with pytest.raises(OSError, match="symbolic link"), files.lock(tmp_path / "link"):
        pass
    with open(tmp_path / "new", "w", opener=files.without_links) as stream:
        stream.write("a")
    assert (tmp_path / "new").read_text() == "a"
    assert untouched(outside)


RUN_FILES = (
    ".lock",
    "metrics.jsonl",
    "environment.json",
    ".environment.json.new",
    ".metrics.jsonl.new",
    "checkpoints",
    "tensorboard",
    "wandb",
    "mlflow",
    "recipe.yaml",
    "answers.json",
)


@pytest.mark.parametrize("name", RUN_FILES)
def test_resuming_a_run_writes_nothing_elsewhere(
    name: str, clipbert: Clipbert, made_data: Path, tmp_path: Path, trained_run: Path, outside: Path
) -> None:
    run = shutil.copytree(trained_run, tmp_path / "run", symlinks=True)
    place = run / name
    if place.is_dir() or name in TRACKERS:
        shutil.move(place, tmp_path / "moved") if place.exists() else None
        target = outside
    else:
        target = outside / "file"
        if place.exists() and name in ("recipe.yaml", "answers.json", "metrics.jsonl"):
            (outside / "file").write_bytes(place.read_bytes())
        place.unlink(missing_ok=True)
    place.symlink_to(target)
    before = (outside / "file").read_bytes()
    done = clipbert("finetune", "--resume", "--run", run, "--data-root", made_data, "--set", "train.epochs=3")
    assert done.returncode in (0, 1, 2)
    assert [path.name for path in outside.iterdir()] == ["file"], done.stderr
    assert (outside / "file").read_bytes() == before
    assert "Traceback" not in done.stderr


def test_measurements_and_downloads_write_nothing_elsewhere(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "metrics.jsonl").symlink_to(outside / "file")
    with pytest.raises(OSError, match="symbolic link"):
        JsonLines(tmp_path / "metrics.jsonl")
    (tmp_path / "a.part").symlink_to(outside / "file")
    with pytest.raises(OSError, match="symbolic link"):
        PartialFile(tmp_path / "a", checksum_known=True)
    assert untouched(outside)


def link_data_file(store: Path, outside: Path) -> None:
    shutil.move(store / "data.mdb", outside.parent / "moved.mdb")
    (store / "data.mdb").symlink_to(outside.parent / "moved.mdb")


@pytest.mark.parametrize("command", ["pack --add", "store scan"])
def test_a_store_whose_data_file_is_a_link_is_not_written(
    command: str, clipbert: Clipbert, tmp_path: Path, outside: Path
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.mp4").write_bytes(video(4))
    pack_media([tmp_path / "a"], tmp_path / "store")
    link_data_file(tmp_path / "store", outside)
    before = (tmp_path / "moved.mdb").read_bytes()
    words = command.split()
    words += [str(tmp_path / "b"), str(tmp_path / "store")] if words[0] == "pack" else [str(tmp_path / "store")]
    done = clipbert(*words, "--workers", "0")
    assert done.returncode == 1
    assert "symbolic link" in done.stderr or "has media records" in done.stderr
    assert (tmp_path / "moved.mdb").read_bytes() == before


@pytest.mark.parametrize("name", ["pack.lock", "pack.journal"])
def test_files_of_packing_are_not_written_elsewhere(
    name: str, clipbert: Clipbert, tmp_path: Path, outside: Path
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{folder}.mp4").write_bytes(video(4))
    pack_media([tmp_path / "a"], tmp_path / "store")
    (tmp_path / "store" / name).symlink_to(outside / "file" if name == "pack.lock" else outside)
    done = clipbert("pack", "--add", tmp_path / "b", tmp_path / "store", "--workers", "0")
    assert done.returncode == 1
    assert "symbolic link" in done.stderr
    assert untouched(outside)


def test_a_new_store_is_not_written_elsewhere(clipbert: Clipbert, tmp_path: Path, outside: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "a.mp4").write_bytes(video(4))
    (tmp_path / ".store.unfinished").symlink_to(outside)
    done = clipbert("pack", tmp_path / "a", tmp_path / "store", "--workers", "0")
    assert done.returncode == 1
    assert "symbolic link" in done.stderr
    assert untouched(outside)


def test_outputs_replace_a_link(clipbert: Clipbert, trained_run: Path, tmp_path: Path, outside: Path) -> None:
    (tmp_path / "page.html").symlink_to(outside / "file")
    done = clipbert("report", "--run", trained_run, "-o", tmp_path / "page.html", "--overwrite")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "page.html").is_symlink()
    assert untouched(outside)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", [SCORES, "rows-0.npy", "error-0", STATE, ".lock", UNFINISHED])
def test_scores_are_not_written_elsewhere(name: str, overwrite: bool, tmp_path: Path, outside: Path) -> None:
    texts = TextList.of([Example(None, "a", ("t",))])
    folder = ScoreFolder(tmp_path / "scores", Scoring(("a",), texts, digest="0", batch_size=1))
    if name == UNFINISHED:
        folder.path.mkdir()
        folder.unfinished.symlink_to(outside)
    else:
        folder.unfinished.mkdir(parents=True)
        (folder.unfinished / name).symlink_to(outside / "file")
    failed = Prediction(PredictionKey("a"), {"media_error": "no frames"})
    with suppress(OutputError, OSError), folder.opened(overwrite=overwrite):
        folder.add(0, [failed])
        folder.finish()
    assert untouched(outside)


def test_no_function_fails_for_links_that_lead_to_themselves() -> None:
    """Before Python 3.13 `Path.resolve` raises RuntimeError for them, and `Path.expanduser` for unknown users."""
    package = Path(files.__file__).parent
    called = [
        f"{path.relative_to(package)}:{node.lineno}"
        for path in sorted(package.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not node.args
        if node.func.attr in ("resolve", "expanduser")
    ]
    assert called == []
