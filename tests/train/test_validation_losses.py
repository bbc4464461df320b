"""The losses of validation are those of training, over all examples that training could learn."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import train
from running import TINY, Clipbert

from clipbert_cli.errors import RunError
from clipbert_cli.recipe.schema import InferConfig, ObjectiveConfig
from clipbert_cli.runs.folder import RunFolder
from clipbert_cli.task.base import Task
from clipbert_cli.task.registry import task_class
from clipbert_cli.train.validation import BestCheckpoint, ValidationLosses
from clipbert_cli.types import Batch, Example, Outputs

ANSWERS = {"cat": 0, "dog": 1, "red": 2}
WORLD: Any = SimpleNamespace(gather=lambda value: [value])


def task_of(name: str, **objective: Any) -> Task:
    return task_class(name)(ObjectiveConfig(**objective), InferConfig(), ANSWERS)


def batch_of(examples: Sequence[Example], targets: Mapping[str, Any] | None = None) -> Batch:
    return Batch(
        frames=torch.zeros(len(examples), 1, 1, 3, 1, 1, dtype=torch.uint8),
        text_ids=torch.zeros(len(examples), 1, dtype=torch.long),
        text_mask=torch.ones(len(examples), 1, dtype=torch.bool),
        text_item=torch.arange(len(examples)),
        examples=tuple(examples),
        targets={} if targets is None else {name: torch.from_numpy(each) for name, each in targets.items()},
        media_ids=tuple(dict.fromkeys(example.media_id for example in examples)),
    )


def questions(*targets: Any) -> list[Example]:
    return [Example(None, f"v{number}", ("?",), target) for number, target in enumerate(targets)]


@pytest.mark.parametrize(
    ("name", "known", "unknown"),
    [
        ("open_ended_qa", questions("cat", "red", "dog", "cat"), questions("green", "blue")),
        ("image_qa", questions({"cat": 1.0, "red": 0.3}, {}, {"dog": 0.6}), questions({"green": 1.0})),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 9])
def test_answers_outside_the_vocabulary_have_no_loss(
    name: str, known: list[Example], unknown: list[Example], size: int
) -> None:
    task = task_of(name)
    logits = torch.randn(len(known) + len(unknown), 2, len(ANSWERS))
    expected = task.loss(Outputs(logits[: len(known)]), batch_of(known, task.targets(known)))["loss"]
    losses, every = ValidationLosses(task), [*known, *unknown]
    for begin in range(0, len(every), size):
        losses(Outputs(logits[begin : begin + size]), batch_of(every[begin : begin + size]))
    assert losses.means(WORLD) == {"loss": pytest.approx(float(expected))}


def test_labels_that_cannot_be_learned_do_not_spoil_those_that_can() -> None:
    task = task_of("image_qa")
    logits = torch.randn(1, 2, len(ANSWERS))
    losses = [ValidationLosses(task) for _ in range(2)]
    for each, target in zip(losses, ({"cat": 0.6}, {"cat": 0.6, "green": 1.0}), strict=True):
        each(Outputs(logits), batch_of(questions(target)))
    assert losses[0].means(WORLD) == losses[1].means(WORLD)


def test_a_split_without_any_known_answer_has_no_loss() -> None:
    losses = ValidationLosses(task_of("open_ended_qa"))
    losses(Outputs(torch.randn(1, 2, 3)), batch_of(questions("green")))
    assert losses.means(WORLD) == {}


def test_options_may_differ_in_number() -> None:
    task = task_of("multiple_choice", num_options=None)
    examples = [Example(None, "a", ("x", "y", "z"), 2), Example(None, "b", ("x", "y"), 0)]
    logits = torch.randn(5, 2, 1)
    expected = task.loss(Outputs(logits), batch_of(examples, task.targets(examples)))["loss"]
    losses = ValidationLosses(task)
    losses(Outputs(logits[:3]), batch_of(examples[:1]))
    losses(Outputs(logits[3:]), batch_of(examples[1:]))
    assert losses.means(WORLD) == {"loss": pytest.approx(float(expected))}


@pytest.mark.parametrize(("objective", "outputs"), [({"loss": "cross_entropy"}, 2), ({"loss": "margin"}, 1)])
@pytest.mark.parametrize("negatives", [1, 3])
def test_retrieval_has_the_mean_of_the_training_loss_over_all_negatives(
    objective: dict[str, Any], outputs: int, negatives: int
) -> None:
    task = task_of("retrieval", pool="mean", num_negatives=negatives, **objective)
    media, texts = 3, [Example(None, f"v{number}", (f"text {number}",)) for number in range(3)]
    logits = torch.randn(media, len(texts), 2, outputs)
    drawn = []
    for item in range(media):
        for other in set(range(media)) - {item}:
            # The loss is a mean over the negatives, so drawing the same one several times has the same expectation.
            rows = torch.stack([logits[item, item], *[logits[item, other]] * negatives])
            shown = [dataclasses.replace(texts[item], texts=("own", *["other"] * negatives))]
            drawn.append(task.loss(Outputs(rows), batch_of(shown, task.targets(shown)))["loss"])
    losses = ValidationLosses(task)
    whole = dataclasses.replace(batch_of(texts), examples=tuple(texts))
    for item in range(media):
        losses(Outputs(logits[item]), dataclasses.replace(whole, media_ids=(f"v{item}",)))
    assert losses.means(WORLD) == {"loss": pytest.approx(float(torch.stack(drawn).mean()), rel=1e-5)}


def test_parts_of_a_loss_are_named_and_processes_count_by_their_examples() -> None:
    class Sum:
        def validation_losses(self, outputs: Outputs, batch: Batch) -> tuple[dict[str, torch.Tensor], int]:
            mean = outputs.logits.mean()
            return {"loss": mean, "mlm": 2 * mean}, len(batch.examples)

    world: Any = SimpleNamespace(gather=lambda value: [value, ({"loss": 1.0, "mlm": 2.0}, 1), ({}, 0)])
    losses = ValidationLosses(Sum())  # type: ignore[arg-type]
    losses(Outputs(torch.tensor(2.0)), batch_of(questions("a")))
    losses(Outputs(torch.tensor(5.0)), batch_of(questions("a", "b")))
    assert losses.means(world) == {"loss": (2 + 10 + 1) / 4, "mlm_loss": 2 * (2 + 10 + 1) / 4}


# ------------------------------------------------------------------------------------------ in a run


@pytest.mark.parametrize("fixture", ["trained_run", "choice_run"])
def test_a_validation_records_the_loss_of_the_probabilities_that_infer_writes(
    fixture: str, clipbert: Clipbert, made_data: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    run = request.getfixturevalue(fixture)
    record = RunFolder(run).validations()[-1]
    where = ["--run", run, "--data-root", made_data, "--checkpoint", f"step_{record['step']}"]
    done = clipbert("infer", *where, "--split", "val", "--set", "infer.top=99", "-o", tmp_path / "preds.jsonl")
    assert done.returncode == 0, done.stderr
    losses = []
    for line in map(json.loads, (tmp_path / "preds.jsonl").read_text().splitlines()):
        (share,) = [each["score"] for each in line["top"] if each["answer"] == line["truth"]]
        losses.append(-math.log(share))
    assert record["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_the_best_checkpoint_may_be_that_of_the_smallest_loss(made_data: Path, tmp_path: Path) -> None:
    settings = (*TINY, "train.validate_every_steps=1", "train.max_steps=3", "train.best_metric=-loss")
    run = train("demo_qa", settings, made_data, tmp_path / "run")
    losses = {record["step"]: record["loss"] for record in RunFolder(run).validations()}
    assert len(losses) == 3
    assert (run / "best").resolve().name == f"step_{min(losses, key=losses.__getitem__)}"


def test_retrieval_records_a_loss(retrieval_run: Path) -> None:
    assert all(0 < record["loss"] < 10 for record in RunFolder(retrieval_run).validations())


@pytest.mark.parametrize("value", ["0.5", "best", [0.5], {"mean": 0.5}, "nan"])
def test_a_score_of_the_run_that_is_no_number_is_named(value: object) -> None:
    best = BestCheckpoint("accuracy")
    with pytest.raises(RunError, match="a score that the run has saved is no number: accuracy is"):
        best.update({"step": 2, "accuracy": value})
