"""Answers, vocabulary and records belong to a run: its own are used, and others are refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running import TINY, Clipbert, as_options
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

from clipbert_cli.model.hf_encoder import quiet_transformers


@pytest.fixture
def data(made_data: Path, tmp_path: Path) -> Path:
    """The data of the trained run, with texts that a test may change."""
    folder = tmp_path / "data"
    folder.mkdir()
    for entry in made_data.iterdir():
        if entry.name in ("vis_db", "videos"):
            (folder / entry.name).symlink_to(entry)
        else:
            (shutil.copytree if entry.is_dir() else shutil.copyfile)(entry, folder / entry.name)
    return folder


@pytest.fixture
def run(trained_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained_run, tmp_path / "run", symlinks=True)


def change_answers(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    answers = json.loads(path.read_text())
    listed = sorted(answers, key=answers.__getitem__) if isinstance(answers, dict) else answers
    path.write_text(json.dumps(change(listed)))


OTHER_ANSWERS: list[tuple[Callable[[list[str]], list[str]], str]] = [
    (lambda answers: answers[::-1], "entry 0 is "),
    (lambda answers: [answers[1], answers[0], *answers[2:]], "and 1 more differ"),
    (lambda answers: answers[:1], "and None in the other"),
    (lambda answers: [*answers, "one more"], "is None in the one and 'one more' in the other"),
    (lambda answers: [*answers[:-1], "another"], "and 'another' in the other"),
]


# ------------------------------------------------------------------------------------------------ resuming


def resume(clipbert: Clipbert, run: Path, data: Path) -> Any:
    return clipbert("finetune", "--run", run, "--resume", "--data-root", data)


@pytest.mark.parametrize(("change", "message"), OTHER_ANSWERS)
def test_a_run_is_not_resumed_with_other_answers(
    clipbert: Clipbert, run: Path, data: Path, change: Callable[[list[str]], list[str]], message: str
) -> None:
    before = (run / "answers.json").read_bytes()
    change_answers(data / "txt_db" / "answers.json", change)
    done = resume(clipbert, run, data)
    assert done.returncode == 1
    assert "(data.answers) has other answers than the run" in done.stderr
    assert message in done.stderr
    assert (run / "answers.json").read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        lambda entries: [*entries[:-2], entries[-1], entries[-2]],
        lambda entries: [*entries[:-1], "elephant"],
        lambda entries: [*entries, "elephant"],
    ],
)
def test_a_run_is_not_resumed_with_another_vocabulary(
    clipbert: Clipbert, run: Path, data: Path, change: Callable[[list[str]], list[str]]
) -> None:
    vocabulary = data / "vocab.txt"
    vocabulary.write_text("\n".join(change(vocabulary.read_text().split())) + "\n")
    done = resume(clipbert, run, data)
    assert done.returncode == 1
    assert f"{vocabulary} (model.tokenizer) is another tokenizer than the run's" in done.stderr


def test_a_run_is_not_resumed_with_another_treatment_of_letters(clipbert: Clipbert, run: Path, data: Path) -> None:
    (data / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert "is another tokenizer than the run's" in resume(clipbert, run, data).stderr


def test_a_run_is_not_resumed_with_other_fields(clipbert: Clipbert, run: Path) -> None:
    done = clipbert("finetune", "--run", run, "--resume", "--set", "data.fields.question=asked")
    assert done.returncode == 1
    assert 'data.fields.question was null, now "asked"' in done.stderr


def test_a_run_is_resumed_without_the_files_that_it_was_begun_with(clipbert: Clipbert, run: Path, data: Path) -> None:
    (data / "txt_db" / "answers.json").unlink()
    (data / "vocab.txt").unlink()
    done = resume(clipbert, run, data)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "fields",
    [{"question": "what is it ?"}, {"answer": "left"}, {"video_id": "train0001"}, {"question": "What color ?"}],
)
def test_a_run_is_not_resumed_with_changed_training_records(
    clipbert: Clipbert, run: Path, data: Path, fields: dict[str, str]
) -> None:
    path = data / "txt_db" / "train.jsonl"
    lines = path.read_text().splitlines()
    record = json.loads(lines[3])
    assert {**record, **fields} != record
    path.write_text("\n".join([*lines[:3], json.dumps({**record, **fields}), *lines[4:]]) + "\n")
    done = resume(clipbert, run, data)
    assert done.returncode == 1
    assert "the training records are not those that" in done.stderr


# ------------------------------------------------------------------------------------------------ inference


@pytest.mark.parametrize(("change", "message"), OTHER_ANSWERS)
def test_answers_of_a_run_that_were_changed_are_refused(
    clipbert: Clipbert, run: Path, made_data: Path, change: Callable[[list[str]], list[str]], message: str
) -> None:
    change_answers(run / "answers.json", change)
    video = made_data / "videos" / "test0000.mp4"
    for command in (["infer", "--split", "test"], ["ask", "--video", video, "what color is it ?"]):
        done = clipbert(*command, "--run", run)
        assert (done.returncode, done.stdout) == (1, "")
        assert "the answers (answers.json) are not those of the model" in done.stderr
        assert message in done.stderr


def test_a_vocabulary_of_a_run_that_was_changed_is_refused(clipbert: Clipbert, run: Path) -> None:
    entries = (run / "vocab.txt").read_text().split()
    (run / "vocab.txt").write_text("\n".join([*entries[:-2], entries[-1], entries[-2]]) + "\n")
    done = clipbert("infer", "--run", run, "--split", "test")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{run / 'vocab.txt'}: the model was trained with another vocabulary" in done.stderr


@pytest.mark.parametrize(("change", "message"), OTHER_ANSWERS)
def test_a_recipe_with_other_answers_is_refused_at_inference(
    clipbert: Clipbert, run: Path, data: Path, change: Callable[[list[str]], list[str]], message: str
) -> None:
    asked = ["infer", "--run", run, "--split", "test", "--recipe", "demo_qa", "--data-root", data]
    plain = clipbert(*asked)
    assert plain.returncode == 0, plain.stderr
    change_answers(data / "txt_db" / "answers.json", change)
    done = clipbert(*asked)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    # The run has answers of its own. What has become of the file does not matter to it.
    assert clipbert("infer", "--run", run, "--split", "test", "--data-root", data).stdout == plain.stdout


# ------------------------------------------------------------------------------------------------ starting weights


def swapped(vocabulary: str) -> str:
    *entries, last, final = vocabulary.split()
    return "\n".join([*entries, final, last]) + "\n"


@pytest.fixture
def bert(made_data: Path, tmp_path: Path) -> Path:
    """A folder with a BERT for the vocabulary of the data, as transformers writes it."""
    words = (made_data / "vocab.txt").read_text()
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    sizes["max_position_embeddings"] = 32
    with quiet_transformers():
        BertModel(BertConfig(vocab_size=len(words.split()), **sizes)).save_pretrained(tmp_path / "bert")
    (tmp_path / "bert" / "vocab.txt").write_text(words)
    return tmp_path / "bert"


def starting(clipbert: Clipbert, data: Path, start: str, *more: str) -> Any:
    settings = as_options([*TINY, "model.tokenizer=vocab.txt", f"model.weights.{start}", *more])
    return clipbert("finetune", "--recipe", "demo_qa", "--data-root", data, "--dry-run", *settings)


@pytest.mark.parametrize("form", ["vocab.txt", "tokenizer.json alone", "tokenizer.json too"])
def test_a_bert_of_another_vocabulary_of_the_same_size_is_refused(
    clipbert: Clipbert, bert: Path, data: Path, form: str
) -> None:
    assert starting(clipbert, data, f"bert={bert}").returncode == 0
    words = swapped((bert / "vocab.txt").read_text())
    if form != "vocab.txt":
        ids = {entry: number for number, entry in enumerate(words.split())}
        (bert / "tokenizer.json").write_text(json.dumps({"model": {"type": "WordPiece", "vocab": ids}}))
    if form == "tokenizer.json alone":
        (bert / "vocab.txt").unlink()
    else:
        (bert / "vocab.txt").write_text(words)
    done = starting(clipbert, data, f"bert={bert}")
    assert done.returncode == 1
    assert f"{bert}: its word embeddings belong to another vocabulary than the one of model.tokenizer" in done.stderr
    assert "entry 26 is 'a' in the one and 'and' in the other, and 1 more differ" in done.stderr
    # With the vocabulary of the weights it is sound.
    assert starting(clipbert, data, f"bert={bert}", f"model.tokenizer={bert}").returncode == 0


def test_a_tokenizer_that_reads_texts_in_another_way_is_warned_of(clipbert: Clipbert, bert: Path, data: Path) -> None:
    (bert / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    done = starting(clipbert, data, f"bert={bert}")
    assert done.returncode == 0, done.stderr
    assert f"{bert} has do_lower_case False, but texts are read with True (model.tokenizer)" in done.stderr
    assert "do_lower_case" not in starting(clipbert, data, f"bert={bert}", f"model.tokenizer={bert}").stderr


@pytest.mark.parametrize("states_vocabulary", [True, False])
def test_an_exported_model_of_another_vocabulary_is_refused(
    clipbert: Clipbert, run: Path, data: Path, tmp_path: Path, states_vocabulary: bool
) -> None:
    out = tmp_path / "exported"
    assert clipbert("runs", "export", run, out).returncode == 0
    config = json.loads((out / "config.json").read_text())
    if not states_vocabulary:
        (out / "config.json").write_text(json.dumps({**config, "vocabulary": None}))
    assert starting(clipbert, data, f"checkpoint={out}").returncode == 0
    (data / "vocab.txt").write_text(swapped((data / "vocab.txt").read_text()))
    done = starting(clipbert, data, f"checkpoint={out}")
    assert done.returncode == 1
    assert "its word embeddings belong to another vocabulary than the one of model.tokenizer" in done.stderr
    if states_vocabulary:
        (out / "vocab.txt").write_text((data / "vocab.txt").read_text())
        refused = clipbert("infer", "--run", out, "--split", "test")
        assert refused.returncode == 1
        assert "the model was trained with another vocabulary" in refused.stderr


# ------------------------------------------------------------------------------------------------ numbers


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_with_weights_that_are_no_numbers_answers_nothing(
    clipbert: Clipbert, run: Path, made_data: Path, value: float
) -> None:
    path = run / "best" / "model.safetensors"
    state = load_file(path)
    state["transformer.pooler.bias"][2] = value
    save_file(state, path)
    for command in (["infer", "--split", "test"], ["ask", "--video", made_data / "videos" / "test0000.mp4", "what ?"]):
        done = clipbert(*command, "--run", run)
        assert (done.returncode, done.stdout) == (1, "")
        assert "1 of the 16 values of transformer.pooler.bias are NaN or infinite" in done.stderr


@pytest.mark.parametrize("name", ["head.layers.2.weight", "head.layers.0.weight", "transformer.layers.0.output.weight"])
def test_scores_that_are_no_numbers_are_no_answers(clipbert: Clipbert, run: Path, name: str) -> None:
    path = run / "best" / "model.safetensors"
    state = load_file(path)
    state[name].fill_(3e38)
    save_file(state, path)
    done = clipbert("infer", "--run", run, "--split", "test")
    assert (done.returncode, done.stdout) == (1, "")
    assert "the model's scores for 'test" in done.stderr
    assert "are NaN or infinite" in done.stderr
