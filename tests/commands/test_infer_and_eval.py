"""The commands `infer`, `eval` and `ask`, and their messages for wrong usage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from running import Clipbert, ClipbertProcess, Finished


@pytest.fixture(scope="module")
def predictions(trained_run: Path, clipbert: Clipbert, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("predictions") / "preds.jsonl"
    done = clipbert("infer", "--run", trained_run, "--split", "test", "--set", "infer.num_clips=3", "-o", path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert done.stderr == f"48 predictions written to {path}\n"
    return path


def evaluate(clipbert: Clipbert, made_data: Path, *arguments: object, **options: str) -> Finished:
    return clipbert("eval", *arguments, "-r", "demo_qa", "--data-root", made_data, "--split", "test", **options)


def test_predictions_are_scored_as_json_on_stdout(clipbert: Clipbert, made_data: Path, predictions: Path) -> None:
    done = evaluate(clipbert, made_data, predictions, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    metrics = json.loads(done.stdout)
    truth = [json.loads(line) for line in (made_data / "txt_db" / "test.jsonl").read_text().splitlines()]
    rows = {(row["media_id"], row["question"]): row for row in map(json.loads, predictions.read_text().splitlines())}
    right = [rows[record["video_id"], record["question"]]["answer"] == record["answer"] for record in truth]
    assert metrics["accuracy"] == 100 * sum(right) / 48
    assert {kind: row["count"] for kind, row in metrics["by_type"].items()} == {"what": 32, "where": 16}


def test_the_table_goes_to_stdout_one_row_per_measure(clipbert: Clipbert, made_data: Path, predictions: Path) -> None:
    done = evaluate(clipbert, made_data, predictions)
    assert (done.returncode, done.stderr) == (0, "")
    headings, *rows = [line.split() for line in done.stdout.splitlines()]
    assert headings == ["measure", "score", "95", "%", "interval", "count"]
    assert [(kind, count) for kind, *_, count in rows] == [("accuracy", "48"), ("what", "32"), ("where", "16")]
    assert len({len(line) for line in done.stdout.splitlines()}) == 1


def test_predictions_pass_through_a_pipe(clipbert: Clipbert, made_data: Path, trained_run: Path) -> None:
    done = clipbert("infer", "--run", trained_run, "--split", "test", "-o", "-")
    assert (done.returncode, done.stderr) == (0, "")
    scored = evaluate(clipbert, made_data, "-", "--json", stdin=done.stdout)
    assert json.loads(scored.stdout)["count"] == 48


def test_missing_predictions_are_named_unless_partial_is_allowed(
    clipbert: Clipbert, made_data: Path, predictions: Path, tmp_path: Path
) -> None:
    part = tmp_path / "part.jsonl"
    part.write_text("".join(predictions.read_text().splitlines(keepends=True)[:46]))
    first = json.loads(predictions.read_text().splitlines()[46])
    done = evaluate(clipbert, made_data, part)
    assert done.returncode == 1
    assert "2 of 48 records of the split have no prediction; the first: " in done.stderr
    assert f"'{first['media_id']}', '{first['question']}'" in done.stderr
    allowed = evaluate(clipbert, made_data, part, "--allow-partial", "--json")
    assert allowed.returncode == 0
    assert {name: json.loads(allowed.stdout)[name] for name in ("count", "missing")} == {"count": 46, "missing": 2}
    assert "scored 46 of 48 records" in evaluate(clipbert, made_data, part, "--allow-partial").stderr


def test_every_bad_line_of_a_predictions_file_is_named(
    clipbert: Clipbert, made_data: Path, predictions: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jsonl"
    lines = predictions.read_text().splitlines()
    bad.write_text("\n".join([*lines, lines[0], '{"media_id": "v"}', '{"media_id": 3}', lines[1][:30]]) + "\n")
    done = evaluate(clipbert, made_data, bad)
    first = json.loads(lines[0])
    assert done.returncode == 1
    assert f"{bad}:49: '{first['media_id']}', '{first['question']}' has a prediction already: {bad}:1" in done.stderr
    assert f"{bad}:50: text_digest is null: it must be text" in done.stderr
    assert f"{bad}:51: media_id is 3: it must be text" in done.stderr
    assert f"{bad}:52: not JSON (" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_table_or_json_answers_questions_about_files(clipbert: Clipbert, made_data: Path, trained_run: Path) -> None:
    videos = [made_data / "videos" / "test0000.mp4", made_data / "videos" / "test0001.mp4"]
    ask = ["ask", "--run", trained_run, "--video", videos[0], "--video", videos[1]]
    ask += ["what shape is red ?", "where is the circle ?"]
    done = clipbert(*ask, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    rows = json.loads(done.stdout)
    assert [(row["video"], row["question"]) for row in rows] == [
        (str(video), question) for video in videos for question in ("what shape is red ?", "where is the circle ?")
    ]
    table = clipbert(*ask)
    assert table.returncode == 0
    for row in rows:
        assert row["answer"] in table.stdout
    assert table.stderr == ""


def test_images_are_answered_too(clipbert: Clipbert, trained_run: Path, tmp_path: Path) -> None:
    from PIL import Image

    picture = tmp_path / "cat.png"
    Image.new("RGB", (90, 60), (200, 30, 30)).save(picture)
    done = clipbert("ask", "--run", trained_run, "--image", picture, "what shape is red ?", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["image"] == str(picture)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "--split"),
        (["--split", "dev"], 2, "no split 'dev'; it has train, val, test"),
        (["--split", "test", "--checkpoint", "step_9"], 1, "no checkpoint 'step_9'; it has step_2, step_4"),
        (["--split", "test", "--set", "infer.clips=3"], 2, "infer.clips: unknown key"),
        (["--split", "test", "-o", "/absent/preds.jsonl"], 1, "/absent/preds.jsonl cannot be written"),
        (["--split", "test", "--data-root", "/absent"], 2, "nothing that the recipe names is in /absent"),
        (["--split", "test", "--device", "cuda:99"], 2, "cuda:99"),
        (["--split", "test", "--device", "toaster"], 2, "toaster"),
    ],
)
def test_wrong_usage_is_one_message_with_the_documented_exit_code(
    clipbert: Clipbert, trained_run: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    done = clipbert("infer", "--run", trained_run, *arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["what?"], 2, "--video or --image is missing"),
        (["--video", "a.mp4"], 2, "QUESTION"),
        (["--video", "absent.mp4", "what?"], 2, "--video is absent.mp4, which does not exist"),
        (["--image", "absent.png", "what?"], 2, "--image is absent.png, which does not exist"),
        (["--video", "a.mp4", "what?", "--option", "a cat"], 2, "--option: the run's task does not choose"),
    ],
)
def test_wrong_usage_of_ask_is_one_message(
    clipbert: Clipbert, trained_run: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    (tmp_path / "a.mp4").touch()
    done = clipbert("ask", "--run", trained_run, *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_is_no_video_is_named_with_the_reason(
    clipbert: Clipbert, trained_run: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_text("this is text")
    done = clipbert("ask", "--run", trained_run, "--video", bad, "what?")
    assert done.returncode == 1
    assert str(bad) in done.stderr
    assert "Traceback" not in done.stderr


def test_undecodable_media_get_predictions_that_count_as_wrong(
    clipbert: Clipbert, made_data: Path, trained_run: Path
) -> None:
    split = ["infer", "--run", trained_run, "--split", "test", "-o", "-", "--set", "data.max_pixels=100"]
    done = clipbert(*split)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 48
    assert all("more than 100 pixels" in row["media_error"] and "answer" not in row for row in rows)
    assert done.stderr.count("its predictions are media_error") == 4  # each video once
    scored = evaluate(clipbert, made_data, "-", "--json", stdin=done.stdout)
    assert json.loads(scored.stdout)["accuracy"] == 0
    assert json.loads(scored.stdout)["count"] == 48
    stopped = clipbert(*split, "--set", "data.on_bad_media=error")
    assert stopped.returncode == 1
    assert "more than 100 pixels" in stopped.stderr


def test_an_output_file_that_exists_is_kept_unless_overwriting(
    clipbert: Clipbert, trained_run: Path, tmp_path: Path
) -> None:
    path = tmp_path / "preds.jsonl"
    path.write_text("precious\n")
    done = clipbert("infer", "--run", trained_run, "--split", "test", "-o", path)
    assert done.returncode == 1
    assert f"{path} exists already" in done.stderr
    assert path.read_text() == "precious\n"
    assert clipbert("infer", "--run", trained_run, "--split", "test", "-o", path, "--overwrite").returncode == 0
    assert len(path.read_text().splitlines()) == 48
    assert sorted(each.name for each in tmp_path.iterdir()) == ["preds.jsonl", "preds.jsonl.meta.json"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_one_message(clipbert: Clipbert, trained_run: Path) -> None:
    done = clipbert("infer", "--run", trained_run, "--split", "test", "-o", "/dev/full")
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_without_a_run_and_a_damaged_run_are_named(
    clipbert: Clipbert, trained_run: Path, tmp_path: Path
) -> None:
    done = clipbert("infer", "--run", tmp_path, "--split", "test")
    assert done.returncode == 2
    assert "an empty folder: a run is expected" in done.stderr
    damaged = tmp_path / "damaged"
    shutil.copytree(trained_run, damaged, symlinks=True)
    weights = damaged / "best" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    done = clipbert("infer", "--run", damaged, "--split", "test")
    assert done.returncode == 1
    assert "model.safetensors" in done.stderr
    assert "Traceback" not in done.stderr


def test_debug_shows_the_traceback(clipbert_process: ClipbertProcess, tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_text("no LMDB")
    process = clipbert_process("--debug", "store", "ls", tmp_path)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Traceback" in stderr
    assert "StoreError" in stderr


@pytest.mark.parametrize(
    ("run", "recipe", "split"),
    [
        ("trained_run", "demo_qa", "txt_db"),
        ("choice_run", "demo_mc", "txt_db/mc"),
        ("retrieval_run", "demo_retrieval", "txt_db/retrieval"),
    ],
)
def test_records_that_are_reordered_after_infer_have_the_same_score(
    clipbert: Clipbert,
    made_data: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    run: str,
    recipe: str,
    split: str,
) -> None:
    data, trained = tmp_path / "data", request.getfixturevalue(run)
    shutil.copytree(made_data / "txt_db", data / "txt_db")
    preds = tmp_path / "preds.jsonl"
    assert clipbert("infer", "--run", trained, "--split", "test", "-o", preds).returncode == 0
    asked = ["eval", preds, "--split", "test", "--data-root", data, "--json"]
    before = clipbert(*asked, "--recipe", recipe)
    assert before.returncode == 0, before.stderr
    annotations = data / split / "test.jsonl"
    lines = annotations.read_text().splitlines(keepends=True)
    annotations.write_text("".join(lines[::-1]))
    assert clipbert(*asked, "--recipe", recipe).stdout == before.stdout
    assert clipbert(*asked, "--run", trained).stdout == before.stdout
    annotations.write_text("".join(lines[1:]))
    refused = clipbert(*asked, "--run", trained)
    assert refused.returncode == 1
    assert f"1 of {len(lines)} " in refused.stderr


def test_eval_takes_recipe_and_split_from_the_meta_file(
    clipbert: Clipbert, made_data: Path, predictions: Path, trained_run: Path, tmp_path: Path
) -> None:
    expected = evaluate(clipbert, made_data, predictions, "--json")
    bare = clipbert("eval", predictions, "--json")
    assert (bare.returncode, bare.stdout) == (0, expected.stdout), bare.stderr
    for known in (["--recipe", "demo_qa", "--data-root", made_data], ["--split", "test"]):
        assert clipbert("eval", predictions, *known, "--json").stdout == expected.stdout
    assert json.loads(clipbert("eval", predictions, "--run", trained_run, "--json").stdout)["count"] == 48
    # What a person names wins.
    assert (
        "predictions of split test, task open_ended_qa, and not of val"
        in clipbert("eval", predictions, "--split", "val").stderr
    )


def other_last_byte(preds: Path, meta: Path) -> None:
    preds.write_bytes(preds.read_bytes()[:-1] + b" ")


def one_line_less(preds: Path, meta: Path) -> None:
    preds.write_text("".join(preds.read_text().splitlines(keepends=True)[:-1]))


def stated(content: object) -> Callable[[Path, Path], None]:
    """Make a change of what the meta file says about the predictions."""

    def write(preds: Path, meta: Path) -> None:
        meta.write_text(json.dumps({**json.loads(meta.read_text()), "predictions": content}))

    return write


@pytest.mark.parametrize(
    "change",
    [
        one_line_less,
        other_last_byte,
        *[stated(each) for each in (None, 7, [], {}, {"bytes": 5}, {"bytes": "5", "crc32": [1]}, {"bytes": {}})],
    ],
)
def test_a_meta_file_of_other_predictions_says_nothing(
    clipbert: Clipbert, predictions: Path, tmp_path: Path, change: Callable[[Path, Path], object]
) -> None:
    preds, meta = tmp_path / "preds.jsonl", tmp_path / "preds.jsonl.meta.json"
    shutil.copy(predictions, preds)
    shutil.copy(f"{predictions}.meta.json", meta)
    assert clipbert("eval", preds, "--json").returncode == 0
    change(preds, meta)
    done = clipbert("eval", preds)
    assert done.returncode == 2
    assert "what made the predictions is unknown: preds.jsonl.meta.json belongs to other predictions" in done.stderr


@pytest.mark.parametrize("given", [[], ["--run", "hf:org/name", "--recipe", "demo_qa"]])
def test_eval_takes_either_a_run_or_a_recipe(clipbert: Clipbert, tmp_path: Path, given: list[str]) -> None:
    (tmp_path / "preds.jsonl").write_text('{"media_id": "a", "text_digest": "b"}\n')
    done = clipbert("eval", "preds.jsonl", "--split", "test", *given, cwd=tmp_path)
    assert done.returncode == 2
    assert "--run" in done.stderr
    assert "--recipe" in done.stderr
