"""What a model scores without looking is recorded with the last validation, and shown beside scores."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from running import TINY, Clipbert, Signal, as_options

from clipbert_cli.errors import InterruptionError
from clipbert_cli.recipe.load import load_recipe
from clipbert_cli.recipe.schema import InferConfig, ObjectiveConfig
from clipbert_cli.runs import baseline
from clipbert_cli.runs.baseline import blindness, sentences
from clipbert_cli.runs.folder import RunFolder
from clipbert_cli.task.registry import task_class
from clipbert_cli.train.training import Training
from clipbert_cli.types import Example

LOOKING = (*TINY, "train.blind_baseline=true", "train.max_steps=2")


def train(recipe: str, data: Path, run: Path, *more: str) -> dict[str, Any]:
    return Training(load_recipe(recipe, overrides=[*LOOKING, *more], data_root=data), run).run()


@pytest.fixture(scope="module")
def run(made_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("blind") / "run"
    train("demo_qa", made_data, path)
    return path


def test_the_last_validation_is_scored_with_black_frames_and_by_the_majority(run: Path, made_data: Path) -> None:
    (record,) = RunFolder(run).baselines()
    assert (record["step"], record["split"], record["metric"]) == (2, "val", "accuracy")
    truth = [json.loads(line)["answer"] for line in (made_data / "txt_db" / "val.jsonl").read_text().splitlines()]
    learned = [json.loads(line)["answer"] for line in (made_data / "txt_db" / "train.jsonl").read_text().splitlines()]
    most = max(dict.fromkeys(learned), key=learned.count)
    assert record["guess"]["what"] == f'the most frequent answer, "{most}"'
    assert record["guess"]["accuracy"] == pytest.approx(100 * truth.count(most) / len(truth))


def test_the_black_frames_are_those_of_infer(run: Path, made_data: Path, clipbert: Clipbert, tmp_path: Path) -> None:
    (record,) = RunFolder(run).baselines()
    predictions = tmp_path / "preds.jsonl"
    options = ["--run", run, "--checkpoint", "latest", "--split", "val", "--set", "data.black_frames=true"]
    assert clipbert("infer", *options, "-o", predictions).returncode == 0
    scored = json.loads(clipbert("eval", predictions, "--run", run, "--split", "val", "--json").stdout)
    assert record["black_frames"]["accuracy"] == pytest.approx(scored["accuracy"])
    assert scored["baseline"] == record
    table = clipbert("eval", predictions, "--run", run, "--split", "val").stdout.splitlines()
    black, guess = table[-2:]
    assert black.startswith("without looking: accuracy ")
    assert black.endswith("with black frames (val, step 2)")
    assert "by the most frequent answer" in guess
    assert (
        "without looking"
        not in clipbert("eval", predictions, "--recipe", "demo_qa", "--data-root", made_data, "--split", "val").stdout
    )


@pytest.mark.parametrize(
    ("recipe", "black", "what"),
    [
        ("demo_retrieval", False, "chance"),
        ("demo_mc", True, "the most frequent answer, "),
        ("demo_pretrain", True, None),
    ],
)
def test_every_task_has_a_baseline_which_eval_shows(
    recipe: str, black: bool, what: str | None, made_data: Path, tmp_path: Path, clipbert: Clipbert
) -> None:
    record = train(recipe, made_data, tmp_path / "run")["baseline"]
    assert ("black_frames" in record) == black
    assert ("guess" in record) == (what is not None)
    if what:
        assert record["guess"]["what"].startswith(what)
        assert 0 < record["guess"][record["metric"]] < 100
    # `eval --run` shows it below the score; the meta file names split and recipe.
    predictions = tmp_path / "preds.jsonl"
    options = ("--run", tmp_path / "run")
    assert clipbert("infer", *options, "--split", "val", "-o", predictions).returncode == 0
    lines = clipbert("eval", predictions, *options).stdout.splitlines()
    shown = [line for line in lines if line.startswith("without looking: ")]
    assert shown == lines[-len(shown) :] == [f"without looking: {sentence}" for sentence in sentences(record)]
    assert len(shown) == black + (what is not None)
    if what:
        score = f"{record['metric']} {record['guess'][record['metric']]:.1f}"
        assert shown[-1].startswith(f"without looking: {score} by {what}")
        assert shown[-1].endswith("(val, step 2)")
    scored = json.loads(clipbert("eval", predictions, *options, "--split", "val", "--json").stdout)
    assert scored["baseline"] == record


@pytest.mark.parametrize("override", ["train.blind_baseline=false", "data.black_frames=true", "data.splits.val=null"])
def test_no_baseline_where_it_says_nothing(override: str, made_data: Path, tmp_path: Path) -> None:
    assert train("demo_qa", made_data, tmp_path / "run", override)["baseline"] is None
    assert RunFolder(tmp_path / "run").baselines() == []


def test_a_run_that_was_stopped_before_its_baseline_gets_it_on_resume(
    run: Path, made_data: Path, tmp_path: Path
) -> None:
    stopped = tmp_path / "run"
    recipe = load_recipe("demo_qa", overrides=LOOKING, data_root=made_data)
    with pytest.raises(InterruptionError):
        Training(recipe, stopped).run([Signal(1, signal.SIGTERM)])
    Training(recipe, stopped, resume=True).run()
    assert RunFolder(stopped).baselines() == RunFolder(run).baselines()
    # As if it had been killed between the two records of the last step.
    lines = (stopped / "metrics.jsonl").read_text().splitlines(keepends=True)
    (stopped / "metrics.jsonl").write_text("".join(line for line in lines if '"baseline"' not in line))
    for _ in range(2):
        Training(recipe, stopped, resume=True).run()
        assert RunFolder(stopped).baselines() == RunFolder(run).baselines()


def test_a_model_that_does_not_look_is_warned_of(
    clipbert: Clipbert, made_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps teach nothing of frames: the model answers black ones alike."""
    monkeypatch.setattr(baseline, "LEAST_EXAMPLES", 1)
    options = ["--run", tmp_path / "run", "--data-root", made_data, *as_options([*LOOKING, "train.learning_rate=1e-9"])]
    done = clipbert("finetune", "--recipe", "demo_qa", *options)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("without looking: accuracy ") == 2
    (record,) = RunFolder(tmp_path / "run").baselines()
    last = RunFolder(tmp_path / "run").validations()[-1]
    looks = last["accuracy"] - record["black_frames"]["accuracy"] >= 1
    assert ("the model answers without looking" in done.stderr) == (not looks and last["accuracy"] > 0)


@pytest.mark.parametrize(
    ("score", "black", "warned"), [(56.0, 56.0, True), (56.0, 55.5, True), (50.0, 60.0, True), (80.0, 30.0, False)]
)
def test_when_a_model_counts_as_blind(score: float, black: float, warned: bool) -> None:
    record = {"metric": "accuracy", "split": "val", "step": 3, "black_frames": {"accuracy": black}}
    assert (blindness(record, {"accuracy": score}) is not None) == warned
    assert sentences(record) == [f"accuracy {black:.1f} with black frames (val, step 3)"]
    assert blindness({**record, "black_frames": {}}, {"accuracy": score}) is None
    # Nothing is said of a few examples, or of a model that is never right.
    assert blindness(record, {"accuracy": score, "count": 4}) is None
    assert (blindness(record, {"accuracy": score, "count": 20}) is not None) == warned
    assert blindness(record | {"black_frames": {"accuracy": 0.0}}, {"accuracy": 0.0}) is None


# ---------------------------------------------------------------------------------------------- guesses


def guess(task: str, trained: list[Example], examples: list[Example]) -> dict[str, Any]:
    return task_class(task)(ObjectiveConfig(), InferConfig(), None).guess(trained, examples)


def examples(*targets: Any) -> list[Example]:
    return [Example(str(n), f"v{n}", (f"text {n}",), target=target) for n, target in enumerate(targets)]


def test_the_guess_of_soft_labels_is_the_answer_that_is_worth_most() -> None:
    trained = examples({"yes": 0.3, "no": 1.0}, {"yes": 0.3}, {"yes": 0.3})
    found = guess("image_qa", trained, examples({"no": 0.6}, {"yes": 1.0}))
    assert (found["what"], found["accuracy"]) == ('the most frequent answer, "no"', 30.0)


def test_the_guess_of_multiple_choice_is_a_position() -> None:
    found = guess("multiple_choice", examples(1, 1, 0), examples(1, 0, 1, 2))
    assert (found["what"], found["accuracy"]) == ("the most frequent answer, 1", 50.0)


def test_chance_of_retrieval_depends_on_the_number_of_media() -> None:
    found = guess("retrieval", [], examples(*[None] * 20))
    assert {name: found[name] for name in ("recall_at_1", "recall_at_5", "median_rank")} == {
        "recall_at_1": 5.0,
        "recall_at_5": 25.0,
        "median_rank": 10.5,
    }
    assert guess("retrieval", [], examples(None, None))["recall_at_5"] == 100.0


def test_without_training_answers_there_is_no_guess() -> None:
    assert guess("open_ended_qa", examples(None), examples("yes")) == {}
