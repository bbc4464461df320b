"""`eval` prints intervals and compares two files of predictions."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from running import Clipbert


@pytest.fixture(scope="module")
def predictions(trained_run: Path, clipbert: Clipbert, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("predictions") / "preds.jsonl"
    assert clipbert("infer", "--run", trained_run, "--split", "test", "-o", path).returncode == 0
    return path


def evaluate(clipbert: Clipbert, data: Path, *arguments: object) -> Any:
    done = clipbert("eval", *arguments, "-r", "demo_qa", "--data-root", data, "--split", "test", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def changed(predictions: Path, out: Path, *, every: int, answer: str = "nothing") -> Path:
    rows = [json.loads(line) for line in predictions.read_text().splitlines()]
    for row in rows[::every]:
        row["answer"] = answer
    out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return out


def test_json_has_intervals_of_every_accuracy(clipbert: Clipbert, made_data: Path, predictions: Path) -> None:
    found = evaluate(clipbert, made_data, predictions)
    assert set(found["intervals"]) == {"accuracy", "by_type/what", "by_type/where"}
    assert found["resampling"] == {"level": 0.95, "resamples": 2000, "seed": 1}
    low, high = found["intervals"]["accuracy"]
    assert low <= found["accuracy"] <= high
    other = evaluate(clipbert, made_data, predictions, "--seed", "7", "--resamples", "150")
    assert other["resampling"] == {"level": 0.95, "resamples": 150, "seed": 7}
    assert {name: other[name] for name in ("accuracy", "by_type")} == {
        name: found[name] for name in ("accuracy", "by_type")
    }


def test_a_file_against_itself_and_against_a_worse_one(
    clipbert: Clipbert, made_data: Path, predictions: Path, tmp_path: Path
) -> None:
    same = evaluate(clipbert, made_data, predictions, "--against", predictions)["against"]
    assert same.pop("file") == str(predictions)
    assert same["accuracy"]["difference"] == 0
    assert same["accuracy"]["p"] == same["accuracy"]["mcnemar"] == 1
    worse = changed(predictions, tmp_path / "worse.jsonl", every=1)
    found = evaluate(clipbert, made_data, predictions, "--against", worse)
    accuracy = found["against"]["accuracy"]
    assert accuracy["against"] == 0
    assert accuracy["difference"] == pytest.approx(found["accuracy"])
    assert accuracy["losses"] == 0
    assert accuracy["wins"] == round(found["accuracy"] * 48 / 100)


def test_tables_fit_80_columns_and_say_the_same(
    clipbert: Clipbert, made_data: Path, predictions: Path, tmp_path: Path
) -> None:
    worse = changed(predictions, tmp_path / "worse.jsonl", every=2)
    arguments = ("-r", "demo_qa", "--data-root", made_data, "--split", "test", "--against", worse)
    done = clipbert("eval", predictions, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 80
    score, differences, counts = done.stdout.split("\n\n")
    assert "95 % interval" in score.splitlines()[0]
    assert differences.splitlines()[0].split() == [
        "measure",
        "score",
        "against",
        "difference",
        "95",
        "%",
        "interval",
        "p",
    ]
    assert counts.splitlines()[0].split() == ["measure", "wins", "losses", "ties", "McNemar", "p"]
    assert [line.split()[0] for line in differences.splitlines()[1:]] == ["accuracy", "what", "where"]


def test_retrieval_has_a_row_per_measure_and_direction(
    clipbert: Clipbert, made_data: Path, retrieval_run: Path, tmp_path: Path
) -> None:
    preds = tmp_path / "preds.jsonl"
    assert clipbert("infer", "--run", retrieval_run, "--split", "test", "-o", preds).returncode == 0
    done = clipbert("eval", preds, "--run", retrieval_run, "--split", "test", "--against", preds)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 90
    for table in done.stdout.split("\n\n"):
        assert [line.partition(",")[0] for line in table.splitlines()[1:]] == ["text to video"] * 5 + [
            "video to text"
        ] * 5


def test_published_scores_stand_beside_the_score(
    clipbert: Clipbert, made_data: Path, predictions: Path, retrieval_run: Path, tmp_path: Path
) -> None:
    stated = ("--set", "published={test: {accuracy: 37.4}, val: {accuracy: 1}}")
    arguments = (predictions, "-r", "demo_qa", "--data-root", made_data, "--split", "test")
    assert "\npublished: accuracy 37.4\n" in clipbert("eval", *arguments, *stated).stdout
    assert evaluate(clipbert, made_data, predictions, *stated)["published"] == {"accuracy": 37.4}
    assert "published" not in clipbert("eval", *arguments).stdout
    assert "published" not in evaluate(clipbert, made_data, predictions)
    preds = tmp_path / "preds.jsonl"
    assert clipbert("infer", "--run", retrieval_run, "--split", "test", "-o", preds).returncode == 0
    recalls = ("--set", "published.test={recall_at_1: 22, recall_at_5: 46.8}")
    assert "published: recall_at_1 22.0, recall_at_5 46.8" in clipbert("eval", preds, *recalls).stdout


def test_two_files_are_compared_record_by_record(
    clipbert: Clipbert, made_data: Path, predictions: Path, tmp_path: Path
) -> None:
    worse = changed(predictions, tmp_path / "worse.jsonl", every=3)
    found = evaluate(clipbert, made_data, predictions, "--against", worse)["against"]
    lines = worse.read_text().splitlines(keepends=True)
    for order in (lines[::-1], lines[7:] + lines[:7], sorted(lines)):
        worse.write_text("".join(order))
        assert evaluate(clipbert, made_data, predictions, "--against", worse)["against"] == found
    worse.write_text("".join(lines).replace('"text_digest": "', '"text_digest": "0', 1))
    arguments = ("-r", "demo_qa", "--data-root", made_data, "--split", "test", "--against", worse)
    done = clipbert("eval", predictions, *arguments)
    assert done.returncode == 1
    assert "worse.jsonl" in done.stderr


def test_parts_of_two_files_are_compared_on_what_both_have(
    clipbert: Clipbert, made_data: Path, predictions: Path, tmp_path: Path
) -> None:
    lines = predictions.read_text().splitlines(keepends=True)
    (tmp_path / "a.jsonl").write_text("".join(lines[:40]))
    (tmp_path / "b.jsonl").write_text("".join(lines[10:]))
    found = evaluate(clipbert, made_data, tmp_path / "a.jsonl", "--against", tmp_path / "b.jsonl", "--allow-partial")
    assert found["count"] == 40
    assert found["against"]["accuracy"]["ties"] == 30
    (tmp_path / "c.jsonl").write_text("".join(lines[40:]))
    arguments = ("-r", "demo_qa", "--data-root", made_data, "--split", "test", "--allow-partial")
    done = clipbert("eval", tmp_path / "a.jsonl", "--against", tmp_path / "c.jsonl", *arguments)
    assert done.returncode == 1
    assert "have no record in common" in done.stderr


def test_a_large_file_is_scored_in_seconds(clipbert: Clipbert, made_data: Path, tmp_path: Path) -> None:
    """6,000 questions about 600 videos, twice, with 2,000 resamples each."""
    records = [
        {"video_id": f"v{n // 10}", "question": f"q{n} ?", "answer": "red", "answer_type": f"type {n % 5}"}
        for n in range(6000)
    ]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    from clipbert_cli.types import digest_of_texts

    lines = [
        {
            "media_id": record["video_id"],
            "text_digest": digest_of_texts(None, (str(record["question"]),)),
            "answer": "red" if n % 3 else "blue",
            "score": 0.5,
        }
        for n, record in enumerate(records)
    ]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    begin = time.process_time()
    found = evaluate(
        clipbert, made_data, tmp_path / "p.jsonl", "--against", tmp_path / "p.jsonl",
        "--set", f"data.splits.test.annotations={tmp_path / 'test.jsonl'}",
    )  # fmt: skip
    assert found["accuracy"] == pytest.approx(100 * 2 / 3)
    assert time.process_time() - begin < 10


def test_left_out_media_are_left_out_of_both_files(
    clipbert: Clipbert, made_data: Path, predictions: Path, retrieval_run: Path, tmp_path: Path
) -> None:
    """Two systems failed on other videos: what is compared is what both could use."""

    def failed(preds: Path, media_id: str, out: Path) -> Path:
        rows = [json.loads(line) for line in preds.read_text().splitlines()]
        for row in rows:
            if row.get("media_id") == media_id:
                for name in ("answer", "score", "top", "scores"):
                    row.pop(name, None)
                row["media_error"] = "broken"
        out.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return out

    preds = tmp_path / "ranks.jsonl"
    assert clipbert("infer", "--run", retrieval_run, "--split", "test", "-o", preds).returncode == 0
    for source, selected, key in (
        (predictions, ("-r", "demo_qa"), "accuracy"),
        (preds, ("--run", retrieval_run), "mean_rank"),
    ):
        first = failed(source, "test0000", tmp_path / "first.jsonl")
        second = failed(source, "test0001", tmp_path / "second.jsonl")
        arguments = (*selected, "--data-root", made_data, "--split", "test", "--leave-out-media-errors", "--json")
        done = clipbert("eval", first, "--against", second, *arguments)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        other = found["against"][key]
        # Four videos with as many records each: two of them are left.
        assert other["wins"] + other["losses"] + other["ties"] == found["count"] * 2 / 3
        assert other["difference"] == 0
