"""Score folders are complete, or continue exactly, whenever the command was interrupted."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from clipbert_cli.errors import OutputError, PredictionsError
from clipbert_cli.infer.prediction_lines import TextList
from clipbert_cli.infer.score_folder import ScoreFolder, Scoring, read_scores
from clipbert_cli.path_kinds import PathKind, look_at
from clipbert_cli.types import Example, Prediction, PredictionKey

MEDIA = tuple(f"v{number}" for number in range(11))
TEXTS = TextList.of([Example(None, f"v{number}", (text,)) for number, text in enumerate("abc")])
OTHER_TEXTS = TextList.of([Example(None, f"v{number}", (text,)) for number, text in enumerate("abd")])
SCORING = Scoring(MEDIA, TEXTS, digest="1234abcd", batch_size=2)
BAD = "v6"
MATRIX = np.random.default_rng(0).random((len(MEDIA), 3), dtype=np.float32)


def batch(number: int) -> list[Prediction]:
    rows = [(MEDIA[place], MATRIX[place]) for place in SCORING.positions(number)]
    return [
        Prediction(PredictionKey(name), {"media_error": "no frames"} if name == BAD else {"scores": row})
        for name, row in rows
    ]


def write(folder: ScoreFolder, numbers: Iterable[int]) -> None:
    for number in numbers:
        folder.add(number, batch(number))


def finished(path: Path) -> ScoreFolder:
    folder = ScoreFolder(path, SCORING)
    with folder.opened(overwrite=False) as done:
        write(folder, sorted(set(range(SCORING.batches)) - done))
        folder.finish()
    return folder


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_rows_are_media_and_columns_texts(tmp_path: Path) -> None:
    finished(tmp_path / "scores")
    assert sorted(contents(tmp_path / "scores")) == ["ids.json", "scores.npy"]
    scores = np.load(tmp_path / "scores" / "scores.npy")
    assert (scores.dtype, scores.shape) == (np.float32, (11, 3))
    ids = json.loads((tmp_path / "scores" / "ids.json").read_text())
    assert (tuple(ids["media"]), TextList.parse(ids["texts"])) == (MEDIA, TEXTS)
    assert ids["errors"] == {BAD: "no frames"}
    for row, name in enumerate(MEDIA):
        assert np.isnan(scores[row]).all() if name == BAD else (scores[row] == MATRIX[row]).all()


def test_reading_gives_the_fields_that_were_written(tmp_path: Path) -> None:
    finished(tmp_path / "scores")
    found = read_scores(tmp_path / "scores")
    rows = found.of_key
    assert found.texts == TEXTS
    assert [key.media_id for key in rows] == list(MEDIA)
    for number in range(SCORING.batches):
        for prediction in batch(number):
            row = rows[prediction.key]
            assert row.fields.keys() == {"media_id", *prediction.fields}
            for name, value in prediction.fields.items():
                assert np.array_equal(row.fields[name], value)


def test_several_processes_write_the_same_bytes_as_one(tmp_path: Path) -> None:
    finished(tmp_path / "one")
    folder = ScoreFolder(tmp_path / "three", SCORING)
    with folder.opened(overwrite=False):
        for process in range(3):
            write(folder, range(process, SCORING.batches, 3))
        folder.finish()
    assert contents(tmp_path / "three") == contents(tmp_path / "one")


@pytest.mark.parametrize("seed", range(20))
def test_a_kill_at_any_moment_costs_no_score(seed: int, tmp_path: Path) -> None:
    """A kill leaves some of the batches, and others in any state under their temporary names."""
    rng = random.Random(seed)
    finished(tmp_path / "whole")
    path = tmp_path / "scores"
    for _ in range(3):
        folder = ScoreFolder(path, SCORING)
        with folder.opened(overwrite=False) as done:
            rest = sorted(set(range(SCORING.batches)) - done)
            write(folder, rest[: rng.randint(0, len(rest))])
        for rows in (path / "unfinished").glob("rows-*.npy"):
            if rng.random() < 0.3:
                content = rows.read_bytes()
                rows.with_name(f".{rows.name}.unfinished-here-1").write_bytes(content[: rng.randint(0, len(content))])
                rows.unlink()
    finished(path)
    assert contents(path) == contents(tmp_path / "whole")


@pytest.mark.parametrize("left", [0, 1, 60, -2])
def test_a_batch_whose_file_was_cut_is_computed_again(left: int, tmp_path: Path) -> None:
    folder = ScoreFolder(tmp_path / "scores", SCORING)
    with folder.opened(overwrite=False):
        write(folder, [0, 1, 2])
    file = tmp_path / "scores" / "unfinished" / "rows-1.npy"
    file.write_bytes(file.read_bytes()[:left])
    with folder.opened(overwrite=False) as done:
        assert done == {0, 2}
        write(folder, set(range(SCORING.batches)) - done)
        folder.finish()
    finished(tmp_path / "whole")
    assert contents(tmp_path / "scores") == contents(tmp_path / "whole")


def test_a_reason_without_its_batch_is_no_failure(tmp_path: Path) -> None:
    """A killed command may leave the reason of an item that can be used when the command continues."""
    folder = ScoreFolder(tmp_path / "scores", SCORING)
    with folder.opened(overwrite=False):
        (tmp_path / "scores" / "unfinished" / "error-0").write_text("the disk was away")
        write(folder, range(SCORING.batches))
        folder.finish()
    assert json.loads((tmp_path / "scores" / "ids.json").read_text())["errors"] == {BAD: "no frames"}


def test_a_second_command_neither_writes_nor_replaces_what_the_first_one_writes(tmp_path: Path) -> None:
    folder = ScoreFolder(tmp_path / "scores", SCORING)
    with folder.opened(overwrite=False):
        write(folder, [0, 1])
        for overwrite in (False, True):
            with pytest.raises(OutputError, match="writes these scores"), folder.opened(overwrite=overwrite):
                pass
    with folder.opened(overwrite=False) as done:
        assert done == {0, 1}


@pytest.mark.parametrize("left", ["ids.json", "scores.npy", "leftover"])
def test_a_kill_at_the_end_costs_no_score(left: str, tmp_path: Path) -> None:
    finished(tmp_path / "whole")
    path = tmp_path / "scores"
    folder = ScoreFolder(path, SCORING)
    with folder.opened(overwrite=False):
        write(folder, range(SCORING.batches))
    shutil.copy(tmp_path / "whole" / "ids.json", path)
    if left != "ids.json":
        shutil.copy(tmp_path / "whole" / "scores.npy", path)
        if left == "leftover":
            (path / "unfinished" / "state.json").unlink()
        assert read_scores(path)  # it is complete
        with pytest.raises(OutputError, match="exists already"):
            finished(path)
        return
    finished(path)
    assert contents(path) == contents(tmp_path / "whole")


def test_finished_scores_are_kept_unless_overwriting(tmp_path: Path) -> None:
    folder = finished(tmp_path / "scores")
    before = contents(tmp_path / "scores")
    with pytest.raises(OutputError, match="exists already") as raised, folder.opened(overwrite=False):
        pass
    assert "--overwrite" in str(raised.value.hint)
    assert contents(tmp_path / "scores") == before
    with folder.opened(overwrite=True) as done:
        assert done == set()


@pytest.mark.parametrize("change", ["digest", "texts", "media", "batch_size"])
def test_unfinished_scores_of_another_model_or_split_are_not_continued(change: str, tmp_path: Path) -> None:
    folder = ScoreFolder(tmp_path / "scores", SCORING)
    with folder.opened(overwrite=False):
        write(folder, [0])
    values = {"digest": "0", "texts": OTHER_TEXTS, "media": MEDIA[::-1], "batch_size": 3}
    other = ScoreFolder(tmp_path / "scores", Scoring(**{**vars(SCORING), change: values[change]}))
    with pytest.raises(OutputError, match="of other weights, settings, media or texts"), other.opened(overwrite=False):
        pass
    with folder.opened(overwrite=False) as done:
        assert done == {0}


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for name in ("mine", "file"):
        for overwrite in (False, True):
            folder = ScoreFolder(tmp_path / name, SCORING)
            with pytest.raises(OutputError), folder.opened(overwrite=overwrite):
                pass
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "precious"
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda path: (path / "scores.npy").rename(path / "unfinished"), "unfinished"),
        (lambda path: (path / "ids.json").unlink(), "damaged"),
        (lambda path: (path / "ids.json").write_text("{}"), "damaged"),
        (lambda path: (path / "scores.npy").write_bytes(b"\x93NUMPY"), "damaged"),
        (lambda path: (path / "scores.npy").write_bytes(b""), r"damaged: .*scores\.npy: not an array of numbers: "),
        (lambda path: os.truncate(path / "scores.npy", 100), r"damaged: .*scores\.npy: not an array of numbers: "),
        (lambda path: np.save(path / "scores.npy", MATRIX[0, 0]), r"float32 \(\), expected float32 \(11, 3\)"),
        (lambda path: np.save(path / "scores.npy", MATRIX.T), r"float32 \(3, 11\), expected float32 \(11, 3\)"),
        (lambda path: np.save(path / "scores.npy", MATRIX[:, :0]), r"float32 \(11, 0\), expected"),
        (lambda path: np.save(path / "scores.npy", MATRIX.astype(np.float64)), "float64"),
        (lambda path: np.save(path / "scores.npy", MATRIX[:5]), r"\(5, 3\), expected float32 \(11, 3\)"),
    ],
)
def test_damaged_scores_are_refused_with_the_reason(harm, message: str, tmp_path: Path) -> None:
    finished(tmp_path / "scores")
    harm(tmp_path / "scores")
    assert look_at(tmp_path / "scores").kind is PathKind.SCORES
    with pytest.raises(PredictionsError, match=message):
        read_scores(tmp_path / "scores")


def _flip(scores: np.ndarray, bit: int) -> None:
    scores.view(np.uint8).reshape(-1)[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize(
    "change",
    [
        lambda scores: scores.__setitem__([0, 1], scores[[1, 0]]),
        lambda scores: scores.__setitem__(slice(None), scores[:, ::-1].copy()),
        lambda scores: scores.__setitem__((0, 0), scores[0, 0] + 1),
        lambda scores: scores.__setitem__(0, 0),
        lambda scores: scores.__setitem__(slice(None), -scores),
        lambda scores: _flip(scores, 3),
        lambda scores: _flip(scores, 8 * scores.nbytes - 40),
    ],
)
def test_other_scores_of_the_same_shape_are_refused(change: Callable[[np.ndarray], None], tmp_path: Path) -> None:
    finished(tmp_path / "scores")
    before = read_scores(tmp_path / "scores")
    scores = np.load(tmp_path / "scores" / "scores.npy")
    change(scores)
    np.save(tmp_path / "scores" / "scores.npy", scores)
    with pytest.raises(PredictionsError, match=r"scores\.npy, row \d+ .*(checksum differs|not a finite number)"):
        read_scores(tmp_path / "scores")
    assert len(before.of_key) == len(MEDIA)


@pytest.mark.parametrize(
    "rows", [None, [], "abc", {"0": 1}, [1, 2], ["x"] * len(MEDIA), [0] * len(MEDIA), [None] * len(MEDIA)]
)
def test_other_checksums_of_rows_are_refused(rows: object, tmp_path: Path) -> None:
    finished(tmp_path / "scores")
    ids = json.loads((tmp_path / "scores" / "ids.json").read_text())
    (tmp_path / "scores" / "ids.json").write_text(json.dumps({**ids, "rows": rows}))
    with pytest.raises(PredictionsError, match=r"ids\.json: the scores are damaged: .*rows"):
        read_scores(tmp_path / "scores")
