"""Which outputs of a saved model a new training takes over: the plan says it, for every task, and it holds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from running import DEMO_RECIPES, TINY, Clipbert, as_options, train
from safetensors.numpy import load_file

from clipbert_cli.assets.demo_media import COLORS, SHAPES, SIDES

ANSWERS = [*COLORS, *SHAPES, *SIDES]
PICTURES = [f"data.splits.{split}.media=images" for split in ("train", "val", "test")]

# One step that changes nothing: what the new run saves is what it has taken over.
STILL = (*TINY, "train.max_steps=1", "train.learning_rate=1e-12", "train.weight_decay=0", "train.precision=fp32")


def settings(task: str) -> list[str]:
    return [*STILL, *(PICTURES if task == "image_qa" else ())]


@pytest.fixture(scope="module")
def models(made_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A run of each task; `margin` is a run of retrieval with one output."""
    folder = tmp_path_factory.mktemp("models")
    runs = {task: train(recipe, settings(task), made_data, folder / task) for task, recipe in DEMO_RECIPES.items()}
    margin = [*settings("retrieval"), "objective.loss=margin", "objective.pool=mean"]
    return {**runs, "margin": train("demo_retrieval", margin, made_data, folder / "margin")}


@pytest.fixture
def data(made_data: Path, tmp_path: Path) -> Path:
    """The data of the runs, with texts that a test may change."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("vis_db", "videos", "images"):
        (folder / name).symlink_to(made_data / name)
    shutil.copytree(made_data / "txt_db", folder / "txt_db")
    shutil.copyfile(made_data / "vocab.txt", folder / "vocab.txt")
    return folder


def options(task: str, start: Path, data: Path, *more: str) -> list[object]:
    # With the seed of the old run, a new head would start as the old one did.
    overrides = as_options([*settings(task), "seed=7", f"model.weights.checkpoint={start / 'best'}", *more])
    command = "pretrain" if task == "pretraining" else "finetune"
    return [command, "--recipe", DEMO_RECIPES[task], "--data-root", data, *overrides]


def planned(clipbert: Clipbert, arguments: Sequence[object]) -> tuple[dict[str, Any], str]:
    """What a dry run says of the weights: for programs, and for people."""
    done = clipbert(*arguments, "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    (weights,) = json.loads(done.stdout)["weights"]
    return weights, done.stderr


def head(run: Path) -> dict[str, Any]:
    state = load_file((run / "best" / "model.safetensors").resolve())
    return {name: tensor for name, tensor in state.items() if name.startswith("head.")}


def rows(run: Path) -> Any:
    """Weights of each output of a classifier."""
    return head(run)["head.layers.2.weight"]


# ------------------------------------------------------------------------------------------------ answers

CHANGES: dict[str, tuple[Callable[[list[str]], list[str]], dict[str, int]]] = {
    "the same": (lambda answers: answers, {"taken over": 13}),
    "in another order": (lambda answers: answers[::-1], {"taken over": 1, "taken over, moved": 12}),
    "two of them exchanged": (
        lambda answers: [answers[1], answers[0], *answers[2:]],
        {"taken over": 11, "taken over, moved": 2},
    ),
    "extended": (lambda answers: [*answers, "cat", "dog"], {"taken over": 13, "new": 2}),
    "extended at the start": (lambda answers: ["cat", *answers], {"taken over, moved": 13, "new": 1}),
    "fewer": (lambda answers: answers[:5], {"taken over": 5, "left out": 8}),
    "some replaced": (lambda answers: [*answers[:11], "cat", "dog"], {"taken over": 11, "new": 2, "left out": 2}),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("task", ["open_ended_qa", "image_qa"])
def test_each_answer_keeps_its_output(
    clipbert: Clipbert, models: Mapping[str, Path], data: Path, tmp_path: Path, task: str, change: str
) -> None:
    changed, outputs = CHANGES[change]
    answers = changed(ANSWERS)
    (data / "txt_db" / "answers.json").write_text(json.dumps(answers))
    arguments = options(task, models[task], data, "data.on_unknown_answer=skip")
    weights, said = planned(clipbert, arguments)
    assert weights["outputs"] == outputs
    table = [line for line in said.splitlines() if any(line[11:].startswith(f"{what}  ") for what in outputs)]
    assert [int(line[11:].removeprefix(what).split()[0]) for line, what in zip(table, outputs, strict=True)] == [
        *outputs.values()
    ]
    assert table[0].startswith("  outputs  ")
    assert max(map(len, table)) <= 80

    done = clipbert(*arguments, "--run", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert all(line in done.stderr for line in table)
    before, after = rows(models[task]), rows(tmp_path / "run")
    known = [(ANSWERS.index(answer), output) for output, answer in enumerate(answers) if answer in ANSWERS]
    for old, new in known:
        assert abs(after[new] - before[old]).max() < 1e-6
    new = set(range(len(answers))) - {output for _, output in known}
    assert all(abs(after[output] - old).max() > 1e-3 for output in new for old in before)


@pytest.mark.parametrize("task", ["open_ended_qa", "image_qa"])
def test_a_head_of_other_answers_is_new(
    clipbert: Clipbert, models: Mapping[str, Path], data: Path, tmp_path: Path, task: str
) -> None:
    """Another vocabulary of the same size, and the records that go with it."""
    for path in (data / "txt_db").rglob("*.json*"):
        text = path.read_text()
        for number, answer in enumerate(ANSWERS):
            text = text.replace(f'"{answer}"', f'"pet {number}"')
        path.write_text(text)
    arguments = options(task, models[task], data)
    weights, said = planned(clipbert, arguments)
    assert weights["outputs"] == {"new": 13}
    assert weights["ignored"] == {"an answer layer of 13 other answers, such as 'red'": 4}
    assert "  ignored: 4 of an answer layer of 13 other answers, such as 'red'" in said
    assert_new(clipbert, arguments, models[task], tmp_path / "run", weights)


# ------------------------------------------------------------------------------------------------ tasks


def assert_new(clipbert: Clipbert, arguments: Sequence[object], old: Path, run: Path, weights: dict[str, Any]) -> None:
    done = clipbert(*arguments, "--run", run)
    assert done.returncode == 0, done.stderr
    before, after = head(old), head(run)
    assert set(weights["new"]) == set(after)
    alike = [name for name in after if name in before and before[name].shape == after[name].shape]
    # Biases start at zero everywhere.
    assert all(abs(before[name] - after[name]).max() > 1e-3 for name in alike if after[name].ndim > 1)


OTHER_MEANINGS = [
    *(("pretraining", task) for task in DEMO_RECIPES if task != "pretraining"),
    *(("retrieval", task) for task in DEMO_RECIPES if task != "retrieval"),
    ("open_ended_qa", "image_qa"),
    ("image_qa", "open_ended_qa"),
    ("open_ended_qa", "pretraining"),
    ("multiple_choice", "retrieval"),
]


@pytest.mark.parametrize(("theirs", "ours"), OTHER_MEANINGS)
def test_the_head_of_another_task_is_new(
    clipbert: Clipbert, models: Mapping[str, Path], made_data: Path, tmp_path: Path, theirs: str, ours: str
) -> None:
    arguments = options(ours, models[theirs], made_data)
    weights, said = planned(clipbert, arguments)
    outputs = {"multiple_choice": 1, "retrieval": 2, "pretraining": 2}.get(ours, 13)
    assert weights["outputs"] == {"new": outputs}
    (reason,) = weights["ignored"]
    assert reason == f"a head of task {theirs}"
    assert f"of {reason}" in said
    assert_new(clipbert, arguments, models[theirs], tmp_path / "run", weights)


def test_yes_and_no_are_not_match_and_no_match(
    clipbert: Clipbert, models: Mapping[str, Path], data: Path, tmp_path: Path
) -> None:
    """As many outputs, of the same shapes."""
    (data / "txt_db" / "answers.json").write_text('["no", "yes"]')
    for split in ("train", "val"):
        path = data / "txt_db" / f"{split}.jsonl"
        records = [json.loads(line) for line in path.read_text().splitlines()]
        lines = (json.dumps({**each, "answer": "yes" if each["answer"] in COLORS else "no"}) for each in records)
        path.write_text("\n".join(lines) + "\n")
    arguments = options("open_ended_qa", models["retrieval"], data)
    weights, _ = planned(clipbert, arguments)
    assert weights["outputs"] == {"new": 2}
    assert_new(clipbert, arguments, models["retrieval"], tmp_path / "run", weights)


@pytest.mark.parametrize("task", ["multiple_choice", "retrieval", "pretraining"])
def test_a_head_without_answers_is_taken_over_whole(
    clipbert: Clipbert, models: Mapping[str, Path], made_data: Path, tmp_path: Path, task: str
) -> None:
    arguments = options(task, models[task], made_data)
    weights, said = planned(clipbert, arguments)
    outputs = 1 if task == "multiple_choice" else 2
    assert (weights["outputs"], weights["new"]) == ({"taken over": outputs}, [])
    assert f"\n  outputs  taken over     {outputs}\n" in said
    assert clipbert(*arguments, "--run", tmp_path / "run").returncode == 0
    before, after = head(models[task]), head(tmp_path / "run")
    assert all(abs(before[name] - after[name]).max() < 1e-6 for name in after)


def test_another_number_of_options_keeps_the_head(clipbert: Clipbert, models: Mapping[str, Path], data: Path) -> None:
    for path in (data / "txt_db" / "mc").iterdir():
        records = [json.loads(line) for line in path.read_text().splitlines()]
        for record in records:
            right = record["options"].pop(record["answer"])
            record |= {"options": [right, *record["options"][:2]], "answer": 0}
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    arguments = options("multiple_choice", models["multiple_choice"], data, "objective.num_options=3")
    weights, _ = planned(clipbert, arguments)
    assert (weights["outputs"], weights["new"]) == ({"taken over": 1}, [])


@pytest.mark.parametrize(
    ("theirs", "ours", "more"),
    [
        ("margin", "retrieval", []),
        ("retrieval", "retrieval", ["objective.loss=margin", "objective.pool=mean"]),
        ("margin", "multiple_choice", []),
        ("multiple_choice", "retrieval", ["objective.loss=margin", "objective.pool=mean"]),
    ],
)
def test_a_score_is_no_class(
    clipbert: Clipbert, models: Mapping[str, Path], made_data: Path, theirs: str, ours: str, more: list[str]
) -> None:
    """Retrieval has two classes, or with the margin loss a single score, which is not that of an option."""
    weights, _ = planned(clipbert, options(ours, models[theirs], made_data, *more))
    assert list(weights["outputs"]) == ["new"]
    (reason,) = weights["ignored"]
    assert reason in {
        "a head of task retrieval",
        "a head of task multiple_choice",
        "a head with 1 output",
        "a head with 2 outputs",
    }


# ------------------------------------------------------------------------------------------------ vocabulary


@pytest.mark.parametrize("task", DEMO_RECIPES)
def test_weights_of_another_vocabulary_are_refused(
    clipbert: Clipbert, models: Mapping[str, Path], data: Path, task: str
) -> None:
    *words, last, final = (data / "vocab.txt").read_text().split()
    (data / "vocab.txt").write_text("\n".join([*words, final, last]) + "\n")
    done = clipbert(*options(task, models[task], data), "--dry-run")
    assert done.returncode == 1
    assert "its word embeddings belong to another vocabulary than the one of model.tokenizer" in done.stderr
