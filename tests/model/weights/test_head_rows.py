"""Outputs of a saved head are taken over where they mean the same; their number says nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from made_weights import CONFIG, other_model
from safetensors.torch import load_file, save_file

from clipbert_cli.errors import WeightsError
from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.model.heads import OUTPUT_LAYERS, HeadSpec
from clipbert_cli.model.pretrained import from_pretrained, save_pretrained
from clipbert_cli.model.weights.transfer import LoadReport, load_weights

COLOURS = ("red", "green", "blue", "white", "black")
PETS = ("cat", "dog", "fish", "bird", "hamster")


def qa(*answers: str, outputs: int = 0, task: str = "open_ended_qa") -> HeadSpec:
    return HeadSpec("classifier", outputs or len(answers), task, answers)


def saved(folder: Path, spec: HeadSpec, vocabulary: str | None = None) -> ClipBert:
    model = other_model(spec.kind, spec.num_outputs)
    model.head_spec, model.vocabulary = spec, vocabulary
    save_pretrained(model, folder)
    return model


def loaded(folder: Path, spec: HeadSpec, **options: Any) -> tuple[ClipBert, ClipBert, LoadReport]:
    """The model that took the weights over, the same model before, and the report."""
    torch.manual_seed(5)
    model = ClipBert(CONFIG, spec)
    torch.manual_seed(5)
    before = ClipBert(CONFIG, spec)
    return model, before, load_weights(model, folder, **options)


def rows(model: ClipBert) -> list[list[float]]:
    """Weights and bias of each output."""
    state = model.state_dict()
    layer = next(name.removesuffix("weight") for name in state if name.startswith(OUTPUT_LAYERS))
    return torch.cat([state[f"{layer}weight"], state[f"{layer}bias"][:, None]], dim=1).tolist()


@pytest.mark.parametrize(
    "answers",
    [
        COLOURS[::-1],
        ("green", "red", "blue", "white", "black"),
        (*COLOURS, "grey", "brown"),
        ("grey", *COLOURS),
        COLOURS[2:],
        ("black", "cat", "red"),
        ("dog", "cat", "fish", "bird", "white"),
    ],
)
@pytest.mark.parametrize("spare", [0, 3])
def test_every_answer_keeps_its_own_output(tmp_path: Path, answers: tuple[str, ...], spare: int) -> None:
    source = saved(tmp_path, qa(*COLOURS, outputs=7))
    model, before, report = loaded(tmp_path, qa(*answers, outputs=len(answers) + spare))
    old, new, untouched = rows(source), rows(model), rows(before)
    for output, answer in enumerate(answers):
        assert new[output] == (old[COLOURS.index(answer)] if answer in COLOURS else untouched[output]), answer
    assert new[len(answers) :] == untouched[len(answers) :]
    assert torch.equal(model.state_dict()["head.layers.0.weight"], source.state_dict()["head.layers.0.weight"])
    counts = {what: count for what, count, _ in report.head}
    known = [output for output, answer in enumerate(answers) if answer in COLOURS]
    same = [output for output in known if COLOURS.index(answers[output]) == output]
    assert counts.get("taken over", 0) == len(same)
    assert counts.get("taken over, moved", 0) == len(known) - len(same)
    assert counts.get("new", 0) == len(answers) - len(known)
    assert counts.get("left out", 0) == len(set(COLOURS) - set(answers))
    assert counts.get("new, without an answer", 0) == spare


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (qa(*COLOURS), qa(*PETS)),
        (qa("no match", "match", task="retrieval"), qa("yes", "no")),
        (HeadSpec("classifier", 2, "retrieval"), qa("yes", "no")),
        (HeadSpec("classifier", 1, "multiple_choice"), HeadSpec("classifier", 1, "retrieval")),
        (qa(*COLOURS, task="image_qa"), qa(*COLOURS)),
        (qa("Red", "Green"), qa("red", "green")),
        (HeadSpec("pretraining", 2, "pretraining"), qa("yes", "no")),
        (HeadSpec("pretraining", 2, "pretraining"), HeadSpec("classifier", 2, "retrieval")),
        (HeadSpec("classifier", 2, "retrieval"), HeadSpec("pretraining", 2, "pretraining")),
        (HeadSpec("classifier", 2, "retrieval"), HeadSpec("classifier", 1, "retrieval")),
        (HeadSpec("classifier", 1, "retrieval"), HeadSpec("classifier", 2, "retrieval")),
    ],
)
def test_a_head_that_means_something_else_is_new(tmp_path: Path, theirs: HeadSpec, ours: HeadSpec) -> None:
    saved(tmp_path, theirs)
    model, before, report = loaded(tmp_path, ours)
    assert {name for name in report.new if name.startswith("head.")} == {
        n for n in model.state_dict() if n[:5] == "head."
    }
    assert all(torch.equal(model.state_dict()[name], before.state_dict()[name]) for name in report.new)
    assert report.head == (("new", ours.num_outputs, ""),)
    assert "text_embeddings.word_embeddings.weight" in report.loaded
    outputs = "other answers" if theirs.answers else f"a head with {theirs.num_outputs} output"
    reason = f"a head of task {theirs.task}" if theirs.task != ours.task else outputs
    assert reason in report.summary()


@pytest.mark.parametrize(
    "spec",
    [
        qa(*COLOURS),
        qa(*COLOURS, outputs=9),
        HeadSpec("classifier", 2, "retrieval"),
        HeadSpec("classifier", 1, "multiple_choice"),
        HeadSpec("pretraining", 2, "pretraining"),
    ],
)
def test_the_same_head_is_taken_over_whole(tmp_path: Path, spec: HeadSpec) -> None:
    source = saved(tmp_path, spec)
    model, _, report = loaded(tmp_path, spec, allow_new_head=False)
    assert report.new == ()
    assert report.head == (("taken over", spec.num_outputs, ""),)
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in model.state_dict().items())
    again = from_pretrained(tmp_path)
    assert again.head_spec == spec


def test_a_file_that_does_not_say_what_its_outputs_mean_is_taken_by_its_shape_and_says_so(tmp_path: Path) -> None:
    source = saved(tmp_path, HeadSpec("classifier", 5))
    model, _, report = loaded(tmp_path, qa(*COLOURS))
    assert rows(model) == rows(source)
    assert "outputs  taken over as they are, because the file does not say what they mean" in report.summary()


def test_a_line_names_as_many_answers_as_fit(tmp_path: Path) -> None:
    answers = tuple(f"number {number}" for number in range(200))
    saved(tmp_path, qa(*answers))
    _, _, report = loaded(tmp_path, qa(*answers[::-1], "a long answer " * 9))
    lines = report.summary().splitlines()[-2:]
    assert lines[0] == "  outputs  taken over, moved   200  'number 199', 'number 198' and 198 more"
    assert lines[1].startswith("           new                   1  'a long answer a long")
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("ours", [qa(*COLOURS[::-1]), qa(*PETS), qa(*COLOURS, "grey"), qa(*COLOURS, task="image_qa")])
def test_a_checkpoint_to_continue_from_must_have_the_same_head(tmp_path: Path, ours: HeadSpec) -> None:
    saved(tmp_path, qa(*COLOURS))
    with pytest.raises(WeightsError, match="its outputs are not"):
        loaded(tmp_path, ours, allow_new_head=False)


@pytest.mark.parametrize("parts", ["all", "bert"])
def test_word_embeddings_of_another_vocabulary_are_refused(tmp_path: Path, parts: Any) -> None:
    saved(tmp_path, qa(*COLOURS), "digest of one")
    for own, fits in (("digest of one", True), (None, True), ("digest of another", False)):
        model = ClipBert(CONFIG, qa(*COLOURS), vocabulary=own)
        if fits:
            load_weights(model, tmp_path, parts=parts)
        else:
            with pytest.raises(WeightsError, match="belong to another vocabulary than"):
                load_weights(model, tmp_path, parts=parts)
    load_weights(ClipBert(CONFIG, qa(*COLOURS), vocabulary="digest of another"), tmp_path, parts="visual")


# ------------------------------------------------------------------------------------------------ damage


@pytest.mark.parametrize(
    "head",
    [
        {"answers": ["a", "b"]},
        {"answers": ["a"] * 5},
        {"answers": [*COLOURS, "one too many"]},
        {"answers": "red"},
        {"answers": [1, 2, 3, 4, 5]},
        {"task": 3},
        {"num_outputs": "5"},
        {"num_outputs": True},
        {"colours": 5},
    ],
)
def test_a_description_that_does_not_fit_is_refused(tmp_path: Path, head: dict[str, Any]) -> None:
    saved(tmp_path, qa(*COLOURS))
    path = tmp_path / "config.json"
    description = json.loads(path.read_text())
    description["head"] |= head
    path.write_text(json.dumps(description))
    with pytest.raises(WeightsError):
        loaded(tmp_path, qa(*COLOURS[1:], "grey", "brown"), allow_new_head=False)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["head.layers.2.bias", "transformer.pooler.weight", "visual_encoder.grid.weight"])
def test_weights_that_are_no_numbers_are_refused_by_name(tmp_path: Path, name: str, value: float) -> None:
    saved(tmp_path, qa(*COLOURS))
    state = load_file(tmp_path / "model.safetensors")
    state[name].view(-1)[1:3] = value
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=rf"2 of the {state[name].numel()} values of {name} are NaN or infinite"):
        from_pretrained(tmp_path)
