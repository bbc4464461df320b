"""The commands `infer` and `search` with a retrieval run: score folders, interruptions, processes."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forking import run_python, variables
from running import Clipbert, ClipbertProcess, Finished

from clipbert_cli.infer.made_by import MadeBy, read_meta


@pytest.fixture(scope="session")
def run(retrieval_run: Path) -> Path:
    return retrieval_run


def command(run: Path, *more: object) -> list[object]:
    return ["infer", "--run", run, "--split", "train", "--set", "infer.batch_size=1", *more]


@pytest.fixture(scope="module")
def scores(run: Path, clipbert: Clipbert, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written") / "scores"
    done = clipbert(*command(run, "--format", "scores", "-o", folder))
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"scores of {len(ids(folder)['texts'])} texts with 8 media items written to {folder}\n"
    assert done.stdout == ""
    return folder


def ids(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "ids.json").read_text())
    return found


def matrix(lines: str) -> np.ndarray:
    """The scores of a predictions file, whose first line lists the texts."""
    return np.array([json.loads(line)["scores"] for line in lines.splitlines()[1:]], dtype=np.float32)


def evaluate(clipbert: Clipbert, made_data: Path, what: Path) -> Finished:
    return clipbert("eval", what, "-r", "demo_retrieval", "--data-root", made_data, "--split", "train", "--json")


def test_a_score_folder_and_json_lines_hold_the_same_scores(
    run: Path, scores: Path, made_data: Path, clipbert: Clipbert, tmp_path: Path
) -> None:
    done = clipbert(*command(run, "-o", tmp_path / "preds.jsonl"))
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "preds.jsonl").read_text()
    assert np.array_equal(matrix(lines), np.load(scores / "scores.npy"))
    assert np.ptp(matrix(lines)) > 0.01
    texts, *rows = map(json.loads, lines.splitlines())
    assert [row["media_id"] for row in rows] == ids(scores)["media"]
    assert texts["texts"] == ids(scores)["texts"]
    one, other = (evaluate(clipbert, made_data, path) for path in (tmp_path / "preds.jsonl", scores))
    assert (one.returncode, other.returncode) == (0, 0), other.stderr
    assert json.loads(one.stdout) == json.loads(other.stdout)


def test_scores_of_another_split_are_refused(scores: Path, made_data: Path, clipbert: Clipbert) -> None:
    done = clipbert("eval", scores, "-r", "demo_retrieval", "--data-root", made_data, "--split", "test")
    assert done.returncode == 1
    assert "4 of 4 media items of the split have no prediction; the first: 'test0000'" in done.stderr


def test_failed_media_have_no_scores_and_count_as_wrong(
    run: Path, made_data: Path, clipbert: Clipbert, tmp_path: Path
) -> None:
    limit = ["--set", "data.max_pixels=100"]
    done = clipbert(*command(run, "--format", "scores", "-o", tmp_path / "scores", *limit))
    assert done.returncode == 0, done.stderr
    assert np.isnan(np.load(tmp_path / "scores" / "scores.npy")).all()
    assert len(ids(tmp_path / "scores")["errors"]) == 8
    metrics = json.loads(evaluate(clipbert, made_data, tmp_path / "scores").stdout)
    assert metrics["recall_at_1"] == 0


# ------------------------------------------------------------------------------------------------ interruptions


def rows_written(folder: Path) -> int:
    return len(list(folder.glob("unfinished/rows-*.npy")))  # batches of one


def until_rows(process: subprocess.Popen[str], folder: Path, count: int) -> None:
    deadline = time.monotonic() + 200
    while process.poll() is None and rows_written(folder) < count and time.monotonic() < deadline:
        time.sleep(0.002)


def pausing(count: int, seconds: float) -> str:
    """Return code for a process that pauses for `seconds` after `count` rows, and after each further row."""
    code = "import time, clipbert_cli.infer.score_folder as f; add, calls = f.ScoreFolder.add, []; "
    code += f"pause = lambda: time.sleep({seconds} if len(calls) >= {count} else 0); "
    return code + "f.ScoreFolder.add = lambda self, *rest: (add(self, *rest), calls.append(1), pause())[0]"


def test_killed_commands_continue_and_end_with_the_same_bytes(
    run: Path, scores: Path, clipbert_process: ClipbertProcess, clipbert: Clipbert, tmp_path: Path
) -> None:
    folder = tmp_path / "scores"
    asked = command(run, "--format", "scores", "-o", folder)
    there = 0
    for count in (random.randint(1, 3), random.randint(4, 6)):
        process = clipbert_process(*asked, prelude=pausing(count - there, 600))
        there = count
        until_rows(process, folder, there)
        second = clipbert(*asked)
        assert (second.returncode, "writes these scores" in second.stderr) == (1, True)
        process.kill()
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        assert not (folder / "scores.npy").exists()
        assert rows_written(folder) == there
    done = clipbert(*asked)
    assert done.returncode == 0, done.stderr
    assert f"{there} of the media items were there already" in done.stderr
    assert sorted(file.name for file in folder.iterdir()) == ["ids.json", "scores.npy"]
    for name in ("ids.json", "scores.npy"):
        assert (folder / name).read_bytes() == (scores / name).read_bytes()


def test_ctrl_c_keeps_finished_rows_and_says_how_to_continue(
    run: Path, made_data: Path, clipbert_process: ClipbertProcess, clipbert: Clipbert, tmp_path: Path
) -> None:
    folder = tmp_path / "scores"
    process = clipbert_process(*command(run, "--format", "scores", "-o", folder), prelude=pausing(2, 1.5))
    until_rows(process, folder, 2)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert f"interrupted by SIGINT: the scores so far are kept in {folder}" in stderr
    assert "the same command continues from here" in stderr
    assert "Traceback" not in stderr
    assert 2 <= rows_written(folder) < 8
    done = evaluate(clipbert, made_data, folder)
    assert (done.returncode, "these scores are unfinished" in done.stderr) == (1, True)


# ------------------------------------------------------------------------------------------------ several processes


def in_processes(tmp_path: Path, *words: object) -> str:
    """Run Python with several processes of one thread each to its end; return its stderr."""
    done = run_python(*words, env={**variables(), "OMP_NUM_THREADS": "1"}, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    return done.stderr


@pytest.fixture
def one_thread() -> Iterator[None]:
    """The number of threads decides the last digits of a sum, so both sides of a comparison have one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_three_processes_of_torchrun_give_the_scores_of_one(run: Path, clipbert: Clipbert, tmp_path: Path) -> None:
    asked = command(run, "--format", "scores", "-o")
    assert clipbert(*asked, tmp_path / "one").returncode == 0
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 3, "-m", "--", "clipbert_cli"]
    said = in_processes(tmp_path, *torchrun, *asked, "three")
    assert said.count("written to") == 1
    for name in ("scores.npy", "ids.json"):
        assert (tmp_path / "three" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


@pytest.mark.usefixtures("one_thread")
def test_two_processes_give_the_answers_of_one(trained_run: Path, clipbert: Clipbert, tmp_path: Path) -> None:
    asked = ["infer", "--run", trained_run, "--split", "test", "-o"]
    assert clipbert(*asked, tmp_path / "one.jsonl").returncode == 0
    said = in_processes(tmp_path, "-m", "clipbert_cli", *asked, "two.jsonl", "--nproc-per-node", 2)
    assert said.count("48 predictions written to two.jsonl") == 1
    assert (tmp_path / "two.jsonl").read_text() == (tmp_path / "one.jsonl").read_text()


# ------------------------------------------------------------------------------------------------ wrong usage


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "train", "--format", "scores"], "which are written into a folder"),
        (["--split", "train", "--format", "scores", "-o", "-"], "which are written into a folder"),
        (["--split", "train", "--format", "csv"], "--format is csv: it must be one of jsonl, scores, vqa-submission"),
        (["--split", "train", "--nproc-per-node", "0"], "--nproc-per-node is 0"),
    ],
)
def test_wrong_usage_is_one_message(
    run: Path, clipbert: Clipbert, tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = clipbert("infer", "--run", run, *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["infer", "--split", "test", "--format", "scores", "-o", "folder"], "--format scores needs a retrieval run"),
        (["search", Path(__file__).parent, "a red circle"], "a run of task retrieval is expected"),
    ],
)
def test_other_tasks_rank_no_media(
    trained_run: Path, clipbert: Clipbert, tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = clipbert(*arguments, "--run", trained_run, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_retrieval_run_answers_no_questions(run: Path, made_data: Path, clipbert: Clipbert) -> None:
    done = clipbert("ask", "--run", run, "--video", made_data / "videos" / "test0000.mp4", "what is it ?")
    assert done.returncode == 2
    assert f"clipbert search {made_data / 'videos'} 'what is it ?' --run {run}" in done.stderr


def test_a_meta_file_beside_a_folder_of_scores_says_nothing(tmp_path: Path) -> None:
    scores = tmp_path / "scores"
    scores.mkdir()
    (scores / "scores.npy").touch()
    (tmp_path / "scores.meta.json").write_text("{}")
    assert read_meta(scores) == MadeBy(None, f"unknown: {scores} is no file")
