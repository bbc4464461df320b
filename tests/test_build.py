"""Recipe to run to predictions to score, on real videos, with a model that trains in seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from running import TINY, records

from clipbert_cli.errors import ClipbertError, PathError, RecipeError, StoreError, UsageError
from clipbert_cli.infer.asking import ask_files
from clipbert_cli.infer.prediction_lines import prediction_lines
from clipbert_cli.infer.trained import RunSelection, open_run
from clipbert_cli.recipe.load import load_recipe
from clipbert_cli.recipe.schema import Recipe
from clipbert_cli.runs.folder import RunFolder
from clipbert_cli.runs.summary import summarise
from clipbert_cli.store.packing import pack_media
from clipbert_cli.train.plan import training_facts
from clipbert_cli.train.training import Training


def tiny(made_data: Path, *overrides: str) -> Recipe:
    return load_recipe("demo_qa", overrides=[*TINY, *overrides], data_root=made_data)


def predictions(run: Path, **options: object) -> list[dict]:
    opened = open_run(RunSelection(run, **options))  # type: ignore[arg-type]
    split = opened.setup.split("test")
    evaluation = opened.setup.evaluation(split)
    return list(prediction_lines(opened.setup.task, split.examples, opened.predict(evaluation)))


def by_key(rows: list[dict]) -> dict[tuple, dict]:
    return {(row["media_id"], row["text_digest"], row.get("occurrence")): row for row in rows}


def test_a_run_folder_holds_all_that_inference_needs(trained_run: Path) -> None:
    names = {path.name for path in trained_run.iterdir()}
    assert names == {
        *("recipe.yaml", "vocab.txt", "answers.json", "checkpoints", "latest", "best", "metrics.jsonl"),
        *("environment.json", "tokenizer_config.json"),
    }
    assert {path.name for path in (trained_run / "latest").iterdir()} == {
        "config.json",
        "model.safetensors",
        "state.json",
        "training.pt",
    }
    validations = records(trained_run, "validation")
    assert [record["step"] for record in records(trained_run, "train")] == [1, 2, 3, 4]
    assert [record["step"] for record in validations] == [2, 4]
    assert all(0 <= record["accuracy"] <= 100 for record in validations)


def test_a_split_gets_one_prediction_per_example_with_the_top_answers(trained_run: Path, made_data: Path) -> None:
    found = predictions(trained_run)
    assert len(found) == len(by_key(found)) == 4 * 12
    answers = json.loads((made_data / "txt_db" / "answers.json").read_text())
    for row in found:
        assert list(row) == ["media_id", "text_digest", "question", "answer", "score", "top", "truth", "correct"]
        assert len(row["top"]) == 5
        assert row["top"][0] == {"answer": row["answer"], "score": row["score"]}
        scores = [each["score"] for each in row["top"]]
        assert scores == sorted(scores, reverse=True)
        assert 0 < sum(scores) <= 1 + 1e-6
        assert {each["answer"] for each in row["top"]} <= set(answers)


def test_two_runs_with_one_seed_are_bitwise_equal(made_data: Path, tmp_path: Path) -> None:
    states = []
    for name in ("one", "other"):
        training = Training(tiny(made_data, "train.epochs=1"), tmp_path / name)
        training.run()
        states.append(training.model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("grouping", ["infer.max_examples_per_group=1", "infer.batch_size=1", "data.workers=2"])
def test_predictions_do_not_depend_on_how_examples_are_batched(trained_run: Path, grouping: str) -> None:
    plain = by_key(predictions(trained_run))
    for key, row in by_key(predictions(trained_run, overrides=[grouping])).items():
        assert row["answer"] == plain[key]["answer"]
        assert row["score"] == pytest.approx(plain[key]["score"], abs=1e-5)


def test_single_files_are_answered_as_in_the_split(trained_run: Path, made_data: Path) -> None:
    plain = {(row["media_id"], row["question"]): row for row in predictions(trained_run)}
    records = [json.loads(line) for line in (made_data / "txt_db" / "test.jsonl").read_text().splitlines()]
    opened = open_run(RunSelection(trained_run))
    for record in records[:3]:
        video = made_data / "videos" / f"{record['video_id']}.mp4"
        ((asked, found),) = ask_files(opened, [("video", video)], [record["question"]])
        assert asked.name == found.media_id == str(video)
        expected = plain[record["video_id"], record["question"]]
        assert found.fields["answer"] == expected["answer"]
        assert found.fields["score"] == pytest.approx(expected["score"], abs=1e-5)


def test_a_run_works_from_another_folder_and_with_moved_data(
    trained_run: Path, made_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    moved = tmp_path / "moved"
    moved.symlink_to(made_data)
    assert predictions(trained_run, data_root=Path("moved")) == predictions(trained_run)


def test_a_store_in_the_original_layout_trains_like_one_with_records(made_data: Path, tmp_path: Path) -> None:
    """Key = stem, value = bytes, nothing else: same predictions as from a store with media records."""
    import lmdb

    (tmp_path / "vis_db").mkdir()
    with lmdb.open(str(tmp_path / "vis_db"), map_size=2**26) as environment, environment.begin(write=True) as txn:
        for video in sorted((made_data / "videos").glob("*.mp4")):
            txn.put(video.stem.encode(), video.read_bytes())
    for name in ("txt_db", "vocab.txt"):
        (tmp_path / name).symlink_to(made_data / name)
    plain, scanned = (
        Training(tiny(root, "train.max_steps=2"), tmp_path / f"run{number}").run()
        for number, root in enumerate([tmp_path, made_data])
    )
    assert plain["last"] == scanned["last"]


def test_a_folder_of_media_files_works_like_a_store(made_data: Path, tmp_path: Path) -> None:
    overrides = [f"data.splits.{split}.media=videos" for split in ("train", "val")]
    result = Training(tiny(made_data, "train.max_steps=1", *overrides), tmp_path / "run").run()
    assert result["steps"] == 1


def test_missing_media_are_named_before_training_starts(made_data: Path, tmp_path: Path) -> None:
    videos = [made_data / "videos" / f"train{number:04d}.mp4" for number in range(8) if number not in (2, 5)]
    store = tmp_path / "store"
    pack_media(videos, store, kind="video")
    with pytest.raises(StoreError, match=r"lacks 2 videos that split 'train' needs:\n  train0002\n  train0005"):
        Training(tiny(made_data, f"data.splits.train.media={store}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("task=open_qa", RecipeError, "task is 'open_qa': it must be one of open_ended_qa"),
        ("data.answers=null", RecipeError, "data.answers is null"),
        ("objective.num_labels=5", RecipeError, r"num_labels is 5, but .*answers\.json has 13 answers"),
        ("model.bert.vocab_size=30", RecipeError, "vocab_size is 30: .* has 28 entries"),
        ("model.tokenizer=absent.txt", ClipbertError, "absent.txt: no such vocabulary"),
        ("data.splits.val.media=absent", PathError, "absent does not exist"),
        ("model.weights.checkpoint=absent.pt", ClipbertError, "absent.pt"),
    ],
)
def test_a_wrong_setting_stops_a_run_before_it_writes_anything(
    made_data: Path, tmp_path: Path, override: str, error: type[ClipbertError], message: str
) -> None:
    with pytest.raises(error, match=message):
        Training(tiny(made_data, override), tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_an_answer_layer_that_is_too_large_is_a_warning(
    made_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Training(tiny(made_data, "objective.num_labels=40"), tmp_path / "run")
    assert "objective.num_labels is 40, but " in caplog.text
    Training(tiny(made_data, "objective.num_labels=13"), tmp_path / "run")
    assert caplog.text.count("num_labels") == 1


def changed_answers(made_data: Path, tmp_path: Path, change: dict[str, str]) -> str:
    """The made training records with other answers; the setting that takes them."""
    lines = [json.loads(line) for line in (made_data / "txt_db" / "train.jsonl").read_text().splitlines()]
    records = [{**record, "answer": change.get(record["answer"], record["answer"])} for record in lines]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return f"data.splits.train.annotations={tmp_path / 'train.jsonl'}"


def test_records_with_unknown_answers_are_left_out_only_if_asked(
    made_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = changed_answers(made_data, tmp_path, {"red": "crimson"})
    with pytest.raises(ClipbertError, match='answer is "crimson": it must be one of the 13'):
        Training(tiny(made_data, other), tmp_path / "run")
    training = Training(tiny(made_data, other, "data.on_unknown_answer=skip"), tmp_path / "run")
    assert 0 < training_facts(training)["training_examples"] < 96
    assert all(example.target != "crimson" for group in training.groups for example in group.examples)
    left = 96 - training_facts(training)["training_examples"]
    assert f"{left} of 96 records of split 'train' have answers that are not in data.answers, such as 'crimson'" in (
        caplog.text
    )
    (tmp_path / "nothing.json").write_text('["x", "y"]')
    none = tiny(made_data, "data.on_unknown_answer=skip", f"data.answers={tmp_path / 'nothing.json'}")
    with pytest.raises(ClipbertError, match=r"no record of split 'train' has an answer"):
        Training(none, tmp_path / "run")


def test_answers_of_other_spelling_are_the_same_if_asked(made_data: Path, tmp_path: Path) -> None:
    other = changed_answers(made_data, tmp_path, {"red": " Red.", "yes": "YES"})
    run = tmp_path / "run"
    training = Training(tiny(made_data, other, "objective.normalize_answers=true", "train.max_steps=1"), run)
    assert training_facts(training)["training_examples"] == 96
    assert training.notes == []
    training.run()
    assert len(predictions(run)) == 48


def test_without_validation_the_last_checkpoint_is_the_best(made_data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = Training(tiny(made_data, "data.splits.val=null", "train.epochs=2"), run).run()
    assert (result["best"], result["last"], result["steps"]) == ({}, {}, 4)
    assert (run / "best").resolve().name == (run / "latest").resolve().name == "step_4"
    assert not records(run, "validation")
    assert summarise(RunFolder(run)).state == "finished"
    assert summarise(RunFolder(run)).best is None
    assert len(predictions(run)) == 48
    with pytest.raises(UsageError, match="no split 'val'; it has train, test"):
        open_run(RunSelection(run)).setup.split("val")


def test_an_unknown_split_is_an_error_that_lists_the_known_ones(trained_run: Path) -> None:
    with pytest.raises(UsageError, match="no split 'dev'; it has train, val, test"):
        open_run(RunSelection(trained_run)).setup.split("dev")


def test_labels_without_an_answer_are_never_predicted(made_data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    training = Training(tiny(made_data, "objective.num_labels=40", "train.max_steps=1"), run)
    with torch.no_grad():
        training.model.head.layers[-1].bias[13:] = 100.0  # type: ignore[union-attr,operator,index]
    training.run()
    answers = json.loads((made_data / "txt_db" / "answers.json").read_text())
    assert {row["answer"] for row in predictions(run)} <= set(answers)
